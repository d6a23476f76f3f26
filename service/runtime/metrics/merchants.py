"""Metrics by merchant that several roles have, and the label itself: outsiders must not be able to add time series."""

from collections.abc import Callable, Collection
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.domain.claims import Claim, ClaimSource, OrderStatus
from service.domain.lags import LAG_BOUNDS_SECONDS
from service.domain.order_state import Verdict

#: The label of merchants that are not configured.
UNKNOWN_MERCHANT = "unknown"


class MerchantLabel:
    """The label's value for any merchant. Safe to share between threads."""

    def __init__(self, merchants: Collection[str]) -> None:
        """`merchants`: the configured slugs."""
        self.known = frozenset(merchants)

    def of(self, merchant: str) -> str:
        """The slug where it is configured, else `unknown`."""
        return merchant if merchant in self.known else UNKNOWN_MERCHANT


class ClaimMetrics:
    """Claims and what they changed. Safe to use from many threads."""

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        merchants: Collection[str],
        source: ClaimSource,
        clock: Callable[[], datetime],
    ) -> None:
        """`merchants`: the configured slugs; `source`: whose claims the role records."""
        self._label = MerchantLabel(merchants)
        self._clock = clock
        self._source = source
        self._claims = Counter(
            "payment_callbacks_claims_recorded",
            "Claims recorded, by source and by what each did to the order.",
            ["merchant", "source", "verdict"],
            registry=registry,
        )
        self._transitions = Counter(
            "payment_callbacks_transitions",
            "Orders that moved to a status, or were corrected to it.",
            ["merchant", "source", "status"],
            registry=registry,
        )
        self._final_status_seconds = Histogram(
            "payment_callbacks_final_status_seconds",
            "Time from paid_at, as the claim states it, until the final status of the order was recorded.",
            ["merchant"],
            buckets=LAG_BOUNDS_SECONDS,
            registry=registry,
        )
        # All series exist from the start, so that the first of a kind is seen as an increase.
        for merchant in (*self._label.known, UNKNOWN_MERCHANT):
            self._final_status_seconds.labels(merchant)
            for verdict in Verdict:
                self._claims.labels(merchant, source.value, verdict.value)
            for status in OrderStatus:
                self._transitions.labels(merchant, source.value, status.value)

    def count_claims(self, merchant: str, *, verdict: str, moved_to: OrderStatus | None, claims: int = 1) -> None:
        """Count committed claims; `moved_to` where their orders took their status."""
        label = self._label.of(merchant)
        self._claims.labels(label, self._source.value, verdict).inc(claims)
        if moved_to is not None:
            self._transitions.labels(label, self._source.value, moved_to.value).inc(claims)

    def observe_final_status(self, claim: Claim, verdict: Verdict) -> None:
        """Record how long after `paid_at` this claim, just recorded, made its order's status final, if it did.

        Clocks that differ may make the time negative.
        """
        if verdict.moves and claim.status and claim.status.terminal and claim.paid_at:
            seconds = (self._clock() - claim.paid_at).total_seconds()
            self._final_status_seconds.labels(self._label.of(claim.merchant)).observe(max(seconds, 0.0))


def show_gateways(registry: CollectorRegistry, *, usable: Collection[str], unusable: Collection[str]) -> None:
    """Show which merchants' gateways this process cannot use; that changes only with a restart."""
    gauge = Gauge(
        "payment_callbacks_gateway_unusable",
        "1 where the settings of the merchant's gateway cannot be used, so that nothing is sent or asked; else 0.",
        ["merchant"],
        registry=registry,
    )
    for merchant in usable:
        gauge.labels(merchant).set(0)
    for merchant in unusable:
        gauge.labels(merchant).set(1)
