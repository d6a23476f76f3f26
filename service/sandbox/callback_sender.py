"""Sends callbacks when they are due, again until they are acknowledged, and counts how they were answered."""

import heapq
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count

import urllib3

from service.sandbox.callback_plan import Address, PlannedCallback, Sender
from service.sandbox.callback_renderer import CallbackRenderer
from service.sandbox.orders import OrderBook, SandboxOrder
from service.sandbox.settings import SandboxSettings

#: This many forgeries and false callbacks are kept for tests. Older ones are only counted.
_KEPT_FALSEHOODS = 100_000
# Counts that are shown even at 0.
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


class CallbackReply(StrEnum):
    """How a callback was answered."""

    ACKNOWLEDGED = "acknowledged"
    #: With anything but the acknowledgement.
    REFUSED = "refused"
    #: Not at all.
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Falsehood:
    """A false callback, by a forger or by the gateway, and how it was answered."""

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
        """Count a callback that was sent. `duplicate`: it had been acknowledged before."""
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

    def count(self, name: str) -> None:
        """Count something else: `given_up`, a callback that was never acknowledged and is not sent again; `dropped`, an
        order that has a notify_url and gets no callback; `withholds_*`, a withhold by how it was answered.
        """
        with self._lock:
            self._counts[name] += 1

    def counts(self) -> dict[str, int]:
        """All counts by name. The usual ones are present even at 0."""
        with self._lock:
            return {**dict.fromkeys(_ALWAYS, 0), **self._counts}

    def forgeries(self) -> list[Falsehood]:
        """The forgeries sent, oldest first."""
        with self._lock:
            return list(self._forgeries)

    def lies(self) -> list[Falsehood]:
        """The gateway's own false callbacks, oldest first, with their repetitions."""
        with self._lock:
            return list(self._lies)


def _falsehood(callback: PlannedCallback, reply: CallbackReply) -> Falsehood:
    return Falsehood(
        biz_order_no=callback.order.biz_order_no,
        pay_status=callback.pay_status,
        pay_order_no=callback.pay_order_no,
        address=callback.address,
        reply=reply,
    )


@dataclass(order=True, slots=True)
class _ScheduledCallback:
    """One callback on its way; sorts by when it is due."""

    due: float
    number: int
    callback: PlannedCallback = field(compare=False)
    failures: int = field(compare=False, default=0)
    acknowledged: bool = field(compare=False, default=False)


class CallbackSender:
    """Threads that take due callbacks from one heap. `start` starts them."""

    def __init__(
        self, *, settings: SandboxSettings, renderer: CallbackRenderer, book: OrderBook, counters: Counters
    ) -> None:
        self._settings = settings
        self._renderer = renderer
        self._book = book
        self._counters = counters
        self._heap: list[_ScheduledCallback] = []
        self._numbers = count()
        self._under_way = 0
        self._closed = False
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._http = urllib3.PoolManager(
            maxsize=settings.senders,
            retries=False,
            timeout=urllib3.Timeout(total=settings.timing.callback_timeout_seconds),
        )

    def start(self) -> None:
        """Begin to send."""
        for number in range(self._settings.senders):
            thread = threading.Thread(target=self._work, name=f"callback-sender-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def schedule(self, callbacks: Sequence[PlannedCallback]) -> None:
        """Send each at its time, counted from now."""
        now = time.monotonic()
        with self._wake:
            for callback in callbacks:
                heapq.heappush(
                    self._heap, _ScheduledCallback(now + callback.delay_seconds, next(self._numbers), callback)
                )
            self._wake.notify_all()

    def outstanding(self) -> int:
        """How many callbacks are scheduled or being sent."""
        with self._wake:
            return len(self._heap) + self._under_way

    def close(self) -> None:
        """Stop sending. Callbacks that are being sent end within their time limit. Safe to call twice."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        self._http.clear()

    def _work(self) -> None:
        while (scheduled := self._take()) is not None:
            reply = self._send(scheduled.callback)
            self._counters.record_reply(scheduled.callback, reply, duplicate=scheduled.acknowledged)
            self._put_back(self._next(scheduled, reply))

    def _take(self) -> _ScheduledCallback | None:
        with self._wake:
            while not self._closed:
                wait_seconds = self._heap[0].due - time.monotonic() if self._heap else None
                if wait_seconds is not None and wait_seconds <= 0:
                    self._under_way += 1
                    return heapq.heappop(self._heap)
                self._wake.wait(wait_seconds)
            return None

    def _put_back(self, scheduled: _ScheduledCallback | None) -> None:
        # In one step, so that `outstanding` never returns 0 in between.
        with self._wake:
            self._under_way -= 1
            if scheduled is not None:
                heapq.heappush(self._heap, scheduled)
                self._wake.notify()

    def _next(self, scheduled: _ScheduledCallback, reply: CallbackReply) -> _ScheduledCallback | None:
        callback = scheduled.callback
        if callback.sender is Sender.FORGER:
            return None
        if reply is CallbackReply.ACKNOWLEDGED or scheduled.acknowledged:
            if callback.repeats == 0:
                return None
            again = replace(callback, repeats=callback.repeats - 1)
            soon = random.Random(f"{self._settings.seed}/{callback.order.biz_order_no}/{callback.repeats}")  # noqa: S311
            return self._schedule_in(soon.uniform(0.0, 0.5), again, acknowledged=True)
        waits = self._settings.timing.repeat_after_seconds
        if scheduled.failures >= len(waits):
            self._counters.count("given_up")
            return None
        return self._schedule_in(waits[scheduled.failures], callback, failures=scheduled.failures + 1)

    def _schedule_in(
        self, wait_seconds: float, callback: PlannedCallback, *, failures: int = 0, acknowledged: bool = False
    ) -> _ScheduledCallback:
        return _ScheduledCallback(
            time.monotonic() + wait_seconds, next(self._numbers), callback, failures, acknowledged
        )

    def _send(self, callback: PlannedCallback) -> CallbackReply:
        rendered = self._renderer.render(callback, other_order=self._other_order(callback))
        try:
            response = self._http.request(
                "POST",
                rendered.url,
                body=rendered.body,
                headers={"Content-Type": rendered.content_type, "User-Agent": "payment-callbacks-sandbox"},
                redirect=False,
            )
        except urllib3.exceptions.HTTPError:
            return CallbackReply.UNANSWERED
        expected = self._settings.acknowledgement.body.encode()
        return (
            CallbackReply.ACKNOWLEDGED
            if response.status == 200 and response.data.strip() == expected
            else CallbackReply.REFUSED
        )

    def _other_order(self, callback: PlannedCallback) -> SandboxOrder | None:
        if callback.address is not Address.OTHER_TOKEN:
            return None
        return self._book.neighbour(callback.order)
