"""What Prometheus can read of recorded claims, whichever role records them."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter

from service.domain.claims import ClaimSource, OrderStatus
from service.runtime.metrics.merchants import UNKNOWN_MERCHANT, MerchantLabel


class ClaimMetrics:
    """Claims and what they changed. Safe to use from many threads."""

    def __init__(
        self, *, registry: CollectorRegistry, merchants: Collection[str], source: ClaimSource, verdicts: Collection[str]
    ) -> None:
        """`merchants`: the configured slugs; `source`: whose claims the role records; `verdicts`: all there are."""
        self._label = MerchantLabel(merchants)
        self._source = source
        self._claims = Counter(
            "payment_callbacks_claims_recorded",
            "Claims recorded, by who spoke and what it did to the order.",
            ["merchant", "source", "verdict"],
            registry=registry,
        )
        self._transitions = Counter(
            "payment_callbacks_transitions",
            "Orders that moved to a status, or were corrected to it.",
            ["merchant", "source", "status"],
            registry=registry,
        )
        # From the start, so that the first of a kind is seen as an increase.
        for merchant in (*self._label.known, UNKNOWN_MERCHANT):
            for verdict in verdicts:
                self._claims.labels(merchant, source.value, verdict)
            for status in OrderStatus:
                self._transitions.labels(merchant, source.value, status.value)

    def count_claims(self, merchant: str, *, verdict: str, moved_to: OrderStatus | None, claims: int = 1) -> None:
        """So many claims were committed; `moved_to` where their orders took their status."""
        label = self._label.of(merchant)
        self._claims.labels(label, self._source.value, verdict).inc(claims)
        if moved_to is not None:
            self._transitions.labels(label, self._source.value, moved_to.value).inc(claims)
