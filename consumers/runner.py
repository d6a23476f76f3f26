"""The life of a consumer of the callbacks' queue: receive, decode, apply, acknowledge.

The only place that settles messages, and the only one with a broad `except`: here it is decided what becomes of a
message that could not be applied.

- *Commit, then acknowledge.* A crash in between hands the message out again, and applying it twice does no harm.
- *Trouble is never poison.* While the database or the broker is away the batch is held, nothing more is taken, and the
  same is tried again with growing pauses (`Patience`). It is not requeued: each requeue counts against the queue's
  delivery limit. What a broker that will not wait so long takes back is tried all the same, and comes again when more
  is asked for. SIGTERM while holding gives everything back and leaves at once.
- *Poison is what fails alone.* A failed batch is run again by halves, so that one bad message among a hundred costs
  about fourteen small transactions, until each bad one stands alone in its transaction. One that is refused there
  (`UndecodableMessage`, `ClaimUnstorable`, `UnknownMerchant`) goes to the dead letters with its reason.
- *A bug needs a witness.* Any other exception may be the message's fault or ours, and a broken handler would bury the
  whole queue. So such a message is a suspect: it is held and tried again with what comes next, and is buried only in a
  round in which another message was applied, which proves that the handler works. Until then each round logs an error;
  once the suspects fill a batch nothing more is taken, and the queue keeps what comes, for a release that can read it.
"""

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog

from consumers.faults import describe_fault, frames_of
from consumers.retry import Patience, Stopping
from service.ledger.errors import ClaimUnstorable, UnknownMerchant
from service.messaging.contract import Delivery, Message, Subscriber
from service.messaging.errors import UndecodableMessage
from service.runtime.traceparent import TRACEPARENT, trace_id_of

Item = TypeVar("Item")

_log = structlog.get_logger()

# How soon SIGTERM is seen while the queue is empty.
_WAIT_SECONDS = 0.5


class Handler(Protocol[Item]):
    """What one consumer does with messages."""

    def decode(self, message: Message) -> Item:
        """What the message carries. Raises `UndecodableMessage`, `UnknownMerchant`. Pure: it may be called again."""

    def apply(self, items: Sequence[Item]) -> None:
        """All of it in one transaction, committed on return. Applying the same again must be harmless.

        Raises `LedgerUnavailable` where trying again can help, and `ClaimUnstorable` where one of the items never can
        be applied; nothing is applied then.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """A message that failed alone."""

    delivery: Delivery
    error: Exception

    @property
    def refused(self) -> bool:
        """Whether the error itself says that the message is to blame."""
        return isinstance(self.error, UndecodableMessage | ClaimUnstorable | UnknownMerchant)


class Runner(Generic[Item]):
    """Runs one handler on one subscriber, in the calling thread."""

    def __init__(
        self,
        *,
        subscriber: Subscriber,
        handler: Handler[Item],
        batch_size: int,
        first_retry_seconds: float,
        most_retry_seconds: float,
    ) -> None:
        self._subscriber = subscriber
        self._handler = handler
        self._batch_size = batch_size
        self._first_retry_seconds = first_retry_seconds
        self._most_retry_seconds = most_retry_seconds
        # By identity, since a delivery is no key: what has to be given back at the end.
        self._unsettled: dict[int, Delivery] = {}

    def run(self, stop: threading.Event) -> None:
        """Consume until `stop` is set, finish the batch in hand, give back the rest, close the subscriber."""
        patience = Patience(stop=stop, first_seconds=self._first_retry_seconds, most_seconds=self._most_retry_seconds)
        try:
            with suppress(Stopping):
                self._consume(stop, patience)
            with suppress(Stopping):
                patience.insist(self._give_back)
        finally:
            self._subscriber.close()

    def _consume(self, stop: threading.Event, patience: Patience) -> None:
        suspects: Sequence[Delivery] = ()
        doubtful_rounds = 0
        while not stop.is_set():
            pause = patience.pause_after(doubtful_rounds) if suspects else _WAIT_SECONDS
            room = self._batch_size - len(suspects)
            fresh = self._receive(room, pause, stop, patience)
            if room:  # a full batch takes no copies: it keeps what it has to try, and leaves the queue alone
                suspects = self._still_held(suspects)
            if (fresh or suspects) and not stop.is_set():
                suspects = self._work([*suspects, *fresh], patience)
                doubtful_rounds = doubtful_rounds + 1 if suspects else 0

    def _receive(self, room: int, wait_seconds: float, stop: threading.Event, patience: Patience) -> Sequence[Delivery]:
        if not room:
            stop.wait(wait_seconds)
            return ()
        fresh = patience.insist(lambda: self._subscriber.receive(max_messages=room, wait_seconds=wait_seconds))
        self._unsettled.update((id(delivery), delivery) for delivery in fresh)
        return fresh

    def _still_held(self, suspects: Sequence[Delivery]) -> Sequence[Delivery]:
        """Without those that a lost connection took back: they come again, and their copies would fill the batch."""
        self._forget([suspect for suspect in suspects if not self._subscriber.holds(suspect)])
        return [suspect for suspect in suspects if id(suspect) in self._unsettled]

    def _work(self, deliveries: Sequence[Delivery], patience: Patience) -> Sequence[Delivery]:
        """Settle a batch; the answer is its suspects, which stay unsettled."""
        decoded, failures = self._decode(deliveries)
        handler_works = False
        parts = deque([decoded] if decoded else [])
        while parts:
            part = parts.popleft()
            error = self._apply(part, patience)
            if error is None:
                handler_works = True
            elif len(part) == 1:
                failures.append(_Failure(delivery=part[0][0], error=error))
            else:
                middle = len(part) // 2
                parts.extendleft([part[middle:], part[:middle]])
        suspects = []
        for failure in failures:
            if failure.refused or handler_works:
                self._bury(failure, patience)
            else:
                suspects.append(failure)
        if suspects:
            _log.error(
                "handler_fails",
                trace_id=_trace_id(suspects[0].delivery),
                held=len(suspects),
                reason=describe_fault(suspects[0].error),
                frames=frames_of(suspects[0].error),
            )
        return [suspect.delivery for suspect in suspects]

    def _decode(self, deliveries: Sequence[Delivery]) -> tuple[list[tuple[Delivery, Item]], list[_Failure]]:
        decoded: list[tuple[Delivery, Item]] = []
        failures: list[_Failure] = []
        for delivery in deliveries:
            try:
                decoded.append((delivery, self._handler.decode(delivery.message)))
            except Exception as error:  # noqa: BLE001 -- judged in _work
                failures.append(_Failure(delivery=delivery, error=error))
        return decoded, failures

    def _apply(self, part: Sequence[tuple[Delivery, Item]], patience: Patience) -> Exception | None:
        """Commit, then acknowledge; the answer is what kept it from being committed."""
        items = [item for _, item in part]
        try:
            patience.insist(lambda: self._handler.apply(items))
        except Stopping:
            raise
        except Exception as error:  # noqa: BLE001 -- judged in _work
            return error
        deliveries = [delivery for delivery, _ in part]
        patience.insist(lambda: self._subscriber.acknowledge(deliveries))
        self._forget(deliveries)
        return None

    def _bury(self, failure: _Failure, patience: Patience) -> None:
        reason = describe_fault(failure.error)
        patience.insist(lambda: self._subscriber.dead_letter(failure.delivery, reason=reason))
        self._forget([failure.delivery])
        _log.error(
            "message_dead_lettered",
            trace_id=_trace_id(failure.delivery),
            message_id=failure.delivery.message.message_id,
            previous_deliveries=failure.delivery.previous_deliveries,
            reason=reason,
            frames="" if failure.refused else frames_of(failure.error),
        )

    def _give_back(self) -> None:
        if self._unsettled:
            self._subscriber.release(list(self._unsettled.values()))
            _log.info("messages_given_back", count=len(self._unsettled))

    def _forget(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            del self._unsettled[id(delivery)]


def _trace_id(delivery: Delivery) -> str | None:
    return trace_id_of(delivery.message.headers.get(TRACEPARENT))
