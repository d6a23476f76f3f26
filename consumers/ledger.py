"""From the queue to the ledger."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from consumers.runner import Runner
from service.config.settings import LedgerSettings
from service.domain.claims import Claim
from service.domain.order_state import Verdict
from service.domain.refusals import RefusalCount
from service.ledger.errors import UnknownMerchant
from service.ledger.store import LedgerStore
from service.messaging.codec import REFUSALS_V1, decode_claim, decode_refusals
from service.messaging.contract import Message, Subscriber
from service.runtime.metrics.claims import ClaimMetrics
from service.runtime.metrics.ledger import LedgerMetrics
from service.runtime.traceparent import trace_id_of

#: What one message carries.
_Item = Claim | Sequence[RefusalCount]

_log = structlog.get_logger()


class LedgerConsumer:
    """Records what the queue holds, batch by batch. Any number of processes may do so at once."""

    def __init__(
        self,
        *,
        subscriber: Subscriber,
        store: LedgerStore,
        settings: LedgerSettings,
        metrics: LedgerMetrics,
        claim_metrics: ClaimMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._runner = Runner(
            subscriber=subscriber,
            handler=_Recorder(store=store, metrics=metrics, claim_metrics=claim_metrics, clock=clock),
            batch_size=settings.batch_size,
            first_retry_seconds=settings.first_retry_seconds,
            most_retry_seconds=settings.most_retry_seconds,
        )

    def run(self, stop: threading.Event) -> None:
        """Consume in the calling thread until `stop` is set, then close the subscriber."""
        self._runner.run(stop)


class _Recorder:
    """The runner's handler: one batch, one transaction for its claims; counts of refusals are recorded before."""

    def __init__(
        self,
        *,
        store: LedgerStore,
        metrics: LedgerMetrics,
        claim_metrics: ClaimMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._claim_metrics = claim_metrics
        self._clock = clock

    def decode(self, message: Message) -> _Item:
        if message.type == REFUSALS_V1:
            return decode_refusals(message)
        claim = decode_claim(message)
        if not self._store.is_configured(claim.merchant):
            # The receiver knew the merchant and acknowledged, so the gateway will not say it again.
            raise UnknownMerchant(f"{claim.merchant} is not in the ledger's settings; add it, and replay")
        return claim

    def apply(self, items: Sequence[_Item]) -> None:
        if counts := [count for item in items if not isinstance(item, Claim) for count in item]:
            self._store.record_refusals(counts)
        if claims := [item for item in items if isinstance(item, Claim)]:
            self._record(claims)

    def _record(self, claims: Sequence[Claim]) -> None:
        began = time.monotonic()
        verdicts = self._store.record(claims)
        seconds = time.monotonic() - began
        now = self._clock()
        for claim, verdict in zip(claims, verdicts, strict=True):
            self._metrics.observe_wait((now - claim.stated_at).total_seconds())
            if verdict is not Verdict.DUPLICATE:  # the line of the batch counts them: a gateway repeats for a day
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
