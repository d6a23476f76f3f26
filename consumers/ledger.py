"""The ledger consumer: receives messages from the callbacks' queue, decodes them, records them, acknowledges them.

This is the only place that settles messages, and the only one with a broad `except`: it decides what becomes of a
message that cannot be recorded.

- *Commit, then acknowledge.* After a crash in between, the message is delivered again; recording it twice is harmless.
- *An unavailable server is never the message's fault.* While the database or the broker is unavailable the batch is
  held, nothing more is received, and the same batch is tried again with growing pauses (`Retrier`). It is not requeued:
  each requeue counts against the queue's delivery limit. A batch that the broker takes back meanwhile is tried all the
  same, and is delivered again. SIGTERM while a batch is held releases everything and ends at once.
- *Poison messages.* A failed batch is tried again in halves until each bad message is alone in its
  transaction; one bad message among a hundred costs about fourteen small transactions. A message that is refused there
  (`UndecodableMessage`, `ClaimUnstorable`, `UnknownMerchant`) goes to the dead letters with its reason.
- *Unknown errors.* Any other exception may be the fault of the message or of this release, and a faulty release
  would send the whole queue to the dead letters. Such a message is a suspect. It is held and tried again with the next
  batch, and goes to the dead letters only in a round in which another message was recorded, which proves that recording
  works. Until then each round logs an error. Once the suspects fill a batch nothing more is received, and the queue
  keeps its messages for a release that can record them.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from consumers.dead_letters import make_record
from consumers.faults import describe_fault, frames_of
from consumers.outages import Retrier, Stopped
from service.config.settings import LedgerSettings
from service.domain.claims import Claim
from service.domain.depths import DepthReport
from service.domain.order_state import Verdict
from service.domain.refusals import RefusalCount
from service.ledger.dead_letters import DeadLetterStore
from service.ledger.depths import DepthStore
from service.ledger.errors import ClaimUnstorable, UnknownMerchant
from service.ledger.store import LedgerStore
from service.messaging.codec import DEPTH_V1, REFUSALS_V1, decode_claim, decode_depth, decode_refusals
from service.messaging.errors import UndecodableMessage
from service.messaging.interface import Delivery, Message, Subscriber
from service.messaging.rabbitmq.topology import LEDGER_QUEUE
from service.runtime.logs import Logger
from service.runtime.metrics.ledger import LedgerMetrics
from service.runtime.metrics.merchants import ClaimMetrics
from service.runtime.traceparent import TRACEPARENT, trace_id_of
from service.runtime.tracing import NO_TRACING, Tracing

#: What one message carries.
Content = Claim | DepthReport | Sequence[RefusalCount]

_log = Logger(__name__)

# How soon SIGTERM is noticed while the queue is empty.
_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """A message that failed alone."""

    delivery: Delivery
    error: Exception

    @property
    def is_poison(self) -> bool:
        """Whether the error itself shows that the message is at fault."""
        return isinstance(self.error, UndecodableMessage | ClaimUnstorable | UnknownMerchant)


class Recorder:
    """Decodes messages and records what they carry: the claims of a batch in one transaction, all else before."""

    def __init__(
        self,
        *,
        store: LedgerStore,
        dead_letters: DeadLetterStore,
        depths: DepthStore,
        metrics: LedgerMetrics,
        claim_metrics: ClaimMetrics,
        clock: Callable[[], datetime],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._depths = depths
        self._metrics = metrics
        self._claim_metrics = claim_metrics
        self._clock = clock
        self._tracing = tracing

    def decode(self, message: Message) -> Content:
        """What the message carries. Raises UndecodableMessage and UnknownMerchant."""
        if message.type == REFUSALS_V1:
            return decode_refusals(message)
        if message.type == DEPTH_V1:
            return decode_depth(message)
        claim = decode_claim(message)
        if not self._store.is_configured(claim.merchant):
            # The receiver knew the merchant and acknowledged the callback, so the gateway will not repeat it.
            raise UnknownMerchant(f"{claim.merchant} is not in the ledger's settings; add it, and replay")
        return claim

    def record(self, contents: Sequence[Content]) -> None:
        """Record the contents and commit. Repeating it is harmless.

        Raises LedgerUnavailable where a retry can help and ClaimUnstorable where one of the claims can never be
        recorded; no claim is recorded then.
        """
        claims = [content for content in contents if isinstance(content, Claim)]
        if len(claims) < len(contents):
            self._record_numbers([content for content in contents if not isinstance(content, Claim)])
        if claims:
            began = time.monotonic()
            verdicts = self._record_claims(claims)
            self._report(claims, verdicts, seconds=time.monotonic() - began)

    def _record_claims(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        if not self._tracing.on:
            return self._store.record(claims)
        with self._tracing.process(LEDGER_QUEUE, [claim.traceparent for claim in claims]) as spans:
            # The events of a claim, and the questions about it, go on from its span.
            verdicts = self._store.record(
                [replace(claim, traceparent=span.traceparent) for claim, span in zip(claims, spans, strict=True)]
            )
            for claim, verdict, span in zip(claims, verdicts, spans, strict=True):
                span.set("payment.merchant", claim.merchant)
                span.set("payment.verdict", verdict.value)
        return verdicts

    def _record_numbers(self, numbers: Sequence[DepthReport | Sequence[RefusalCount]]) -> None:
        if counts := [count for some in numbers if not isinstance(some, DepthReport) for count in some]:
            self._store.record_refusals(counts)
        if reports := [one for one in numbers if isinstance(one, DepthReport)]:
            self._depths.record(reports)

    def record_dead_letter(self, message: Message, *, reason: str) -> None:
        """Record that the message is about to become a dead letter. Repeating it is harmless."""
        self._dead_letters.record([make_record(message, reason=reason, died_at=self._clock())])

    def _report(self, claims: Sequence[Claim], verdicts: Sequence[Verdict], *, seconds: float) -> None:
        now = self._clock()
        for claim, verdict in zip(claims, verdicts, strict=True):
            self._metrics.observe_wait((now - claim.stated_at).total_seconds())
            self._claim_metrics.observe_final_status(claim, verdict)
            if verdict is not Verdict.DUPLICATE:  # the batch's line counts them: a gateway repeats for a day
                _log.info(
                    "claim_recorded",
                    trace_id=trace_id_of(claim.traceparent),
                    merchant=claim.merchant,
                    biz_order_no=claim.biz_order_no,
                    status=claim.status,
                    verdict=verdict,
                )
        alike = Counter(
            (claim.merchant, verdict, claim.status if verdict.moves else None)
            for claim, verdict in zip(claims, verdicts, strict=True)
        )
        for (merchant, verdict, moved_to), count in alike.items():
            self._claim_metrics.count_claims(merchant, verdict=verdict, moved_to=moved_to, claims=count)
        self._metrics.observe_batch(claims=len(claims), seconds=seconds)
        _log.info(
            "claims_recorded",
            claims=len(claims),
            verdicts=dict(Counter(verdict.value for verdict in verdicts)),
            seconds=round(seconds, 4),
        )


class LedgerConsumer:
    """Records the queue's messages, batch by batch. Any number of processes may do so at once."""

    def __init__(self, *, subscriber: Subscriber, recorder: Recorder, settings: LedgerSettings) -> None:
        self._subscriber = subscriber
        self._recorder = recorder
        self._settings = settings
        # What has to be released at the end, by identity, since a delivery is no key.
        self._unsettled: dict[int, Delivery] = {}

    def run(self, stop: threading.Event) -> None:
        """Consume until `stop` is set, finish the batch in hand, release the rest, close the subscriber."""
        retrier = Retrier(
            stop=stop,
            first_seconds=self._settings.initial_retry_seconds,
            max_seconds=self._settings.max_retry_seconds,
        )
        try:
            with suppress(Stopped):
                self._consume(stop, retrier)
            with suppress(Stopped):
                retrier.call(self._release)
        finally:
            self._subscriber.close()

    def _consume(self, stop: threading.Event, retrier: Retrier) -> None:
        suspects: Sequence[Delivery] = ()
        rounds_with_suspects = 0
        while not stop.is_set():
            pause = retrier.pause_after(rounds_with_suspects) if suspects else _WAIT_SECONDS
            room = self._settings.batch_size - len(suspects)
            fresh = self._receive(room, pause, stop, retrier)
            if room:  # a full batch receives no copies, so it keeps all that it has to try
                suspects = self._still_held(suspects)
            if (fresh or suspects) and not stop.is_set():
                suspects = self._process([*suspects, *fresh], retrier)
                rounds_with_suspects = rounds_with_suspects + 1 if suspects else 0

    def _receive(self, room: int, wait_seconds: float, stop: threading.Event, retrier: Retrier) -> Sequence[Delivery]:
        if not room:
            stop.wait(wait_seconds)
            return ()
        fresh = retrier.call(lambda: self._subscriber.receive(max_messages=room, wait_seconds=wait_seconds))
        self._unsettled.update((id(delivery), delivery) for delivery in fresh)
        return fresh

    def _still_held(self, suspects: Sequence[Delivery]) -> Sequence[Delivery]:
        """The suspects without those that a lost connection took back: their copies come again."""
        self._forget([suspect for suspect in suspects if not self._subscriber.holds(suspect)])
        return [suspect for suspect in suspects if id(suspect) in self._unsettled]

    def _process(self, deliveries: Sequence[Delivery], retrier: Retrier) -> Sequence[Delivery]:
        """Settle a batch; its suspects, which stay unsettled."""
        decoded, failures = self._decode(deliveries)
        any_recorded = False
        parts = deque([decoded] if decoded else [])
        while parts:
            part = parts.popleft()
            error = self._record(part, retrier)
            if error is None:
                any_recorded = True
            elif len(part) == 1:
                failures.append(_Failure(delivery=part[0][0], error=error))
            else:
                middle = len(part) // 2
                parts.extendleft([part[middle:], part[:middle]])
        suspects = []
        for failure in failures:
            if failure.is_poison or any_recorded:
                self._dead_letter(failure, retrier)
            else:
                suspects.append(failure)
        if suspects:
            _log.error(
                "recording_failed",
                trace_id=_trace_id(suspects[0].delivery),
                held=len(suspects),
                reason=describe_fault(suspects[0].error),
                frames=frames_of(suspects[0].error),
            )
        return [suspect.delivery for suspect in suspects]

    def _decode(self, deliveries: Sequence[Delivery]) -> tuple[list[tuple[Delivery, Content]], list[_Failure]]:
        decoded: list[tuple[Delivery, Content]] = []
        failures: list[_Failure] = []
        for delivery in deliveries:
            try:
                decoded.append((delivery, self._recorder.decode(delivery.message)))
            except Exception as error:  # noqa: BLE001 -- judged in _process
                failures.append(_Failure(delivery=delivery, error=error))
        return decoded, failures

    def _record(self, part: Sequence[tuple[Delivery, Content]], retrier: Retrier) -> Exception | None:
        """Commit, then acknowledge; the error that prevented the commit."""
        contents = [content for _, content in part]
        try:
            retrier.call(lambda: self._recorder.record(contents))
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 -- judged in _process
            return error
        deliveries = [delivery for delivery, _ in part]
        retrier.call(lambda: self._subscriber.acknowledge(deliveries))
        self._forget(deliveries)
        return None

    def _dead_letter(self, failure: _Failure, retrier: Retrier) -> None:
        reason = describe_fault(failure.error)
        # Recorded first: after a crash in between it is a dead letter soon, and the keeper finds what is not.
        retrier.call(lambda: self._recorder.record_dead_letter(failure.delivery.message, reason=reason))
        retrier.call(lambda: self._subscriber.dead_letter(failure.delivery, reason=reason))
        self._forget([failure.delivery])
        _log.error(
            "message_dead_lettered",
            trace_id=_trace_id(failure.delivery),
            message_id=failure.delivery.message.message_id,
            previous_deliveries=failure.delivery.previous_deliveries,
            reason=reason,
            frames="" if failure.is_poison else frames_of(failure.error),
        )

    def _release(self) -> None:
        if self._unsettled:
            self._subscriber.release(list(self._unsettled.values()))
            _log.info("messages_released", count=len(self._unsettled))

    def _forget(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            del self._unsettled[id(delivery)]


def _trace_id(delivery: Delivery) -> str | None:
    return trace_id_of(delivery.message.headers.get(TRACEPARENT))
