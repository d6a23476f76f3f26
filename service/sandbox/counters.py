"""What the sandbox has sent, and what it was answered."""

import threading
from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum

from service.sandbox.callback_plan import PlannedCallback, Sender

#: Of forgeries, and of lies: so many are kept for a test to compare with; older ones are only counted.
_KEPT_FALSEHOODS = 100_000


class CallbackReply(StrEnum):
    """How a callback was answered."""

    ACKNOWLEDGED = "acknowledged"
    #: With anything but the acknowledgement.
    REFUSED = "refused"
    #: Not at all.
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Falsehood:
    """What a forger or a lying gateway claimed, and whether the receiver took it."""

    biz_order_no: str
    pay_status: str
    pay_order_no: str
    address: str
    reply: CallbackReply


class Counters:
    """Counts. Safe to use from many threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._forgeries: deque[Falsehood] = deque(maxlen=_KEPT_FALSEHOODS)
        self._lies: deque[Falsehood] = deque(maxlen=_KEPT_FALSEHOODS)
        self._lock = threading.Lock()

    def record_reply(self, callback: PlannedCallback, reply: CallbackReply, *, duplicate: bool) -> None:
        """Count one callback sent; `duplicate` when it had been acknowledged before."""
        with self._lock:
            if callback.sender is Sender.FORGER:
                self._counts["forged_sent"] += 1
                self._counts[f"forged_{reply}"] += 1
                self._forgeries.append(_falsehood(callback, reply))
                return
            self._counts["callbacks_sent"] += 1
            self._counts[reply] += 1
            self._counts["duplicates_sent"] += duplicate
            if callback.sender is Sender.LIAR:
                self._counts["lies_sent"] += 1
                self._lies.append(_falsehood(callback, reply))

    def record_given_up(self) -> None:
        """Count a callback that will not be sent again although it was never acknowledged."""
        self._count("given_up")

    def record_dropped(self) -> None:
        """Count an order that has a notify_url and gets no callback."""
        self._count("dropped")

    def record_withhold(self, answer: str) -> None:
        """Count a withhold by how it was answered."""
        self._count(f"withholds_{answer}")

    def counts(self) -> dict[str, int]:
        """All counts by name; those that are usually asked for are there even at 0."""
        with self._lock:
            return {**dict.fromkeys(_ALWAYS, 0), **self._counts}

    def forgeries(self) -> list[Falsehood]:
        """The forgeries sent, oldest first."""
        with self._lock:
            return list(self._forgeries)

    def lies(self) -> list[Falsehood]:
        """The gateway's own callbacks that contradict its answers, oldest first, with their repetitions."""
        with self._lock:
            return list(self._lies)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1


def _falsehood(callback: PlannedCallback, reply: CallbackReply) -> Falsehood:
    return Falsehood(
        biz_order_no=callback.order.biz_order_no,
        pay_status=callback.pay_status,
        pay_order_no=callback.pay_order_no,
        address=callback.address,
        reply=reply,
    )


_ALWAYS = (
    "callbacks_sent",
    "acknowledged",
    "refused",
    "unanswered",
    "duplicates_sent",
    "lies_sent",
    "given_up",
    "dropped",
    "forged_sent",
    "forged_acknowledged",
    "forged_refused",
    "forged_unanswered",
)
