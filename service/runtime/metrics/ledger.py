"""The ledger consumer's metrics."""

from prometheus_client import CollectorRegistry, Histogram

from service.runtime.metrics.samples import SampledGauge

_BATCH_BUCKETS_CLAIMS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_BATCH_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WAIT_BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)


class LedgerMetrics:
    """The ledger's batches. Safe to use from many threads."""

    def __init__(self, *, registry: CollectorRegistry) -> None:
        self._batch_claims = Histogram(
            "payment_callbacks_ledger_batch_claims",
            "Claims in one transaction.",
            buckets=_BATCH_BUCKETS_CLAIMS,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "payment_callbacks_ledger_batch_seconds",
            "Time that one transaction took until it was committed.",
            buckets=_BATCH_BUCKETS_SECONDS,
            registry=registry,
        )
        self._wait_seconds = Histogram(
            "payment_callbacks_ledger_wait_seconds",
            "Time from a callback's arrival until it was recorded.",
            buckets=_WAIT_BUCKETS_SECONDS,
            registry=registry,
        )

    def observe_batch(self, *, claims: int, seconds: float) -> None:
        """Record a committed transaction."""
        self._batch_claims.observe(claims)
        self._batch_seconds.observe(seconds)

    def observe_wait(self, seconds: float) -> None:
        """Record how long after its arrival a callback was recorded; clocks that differ may make it negative."""
        self._wait_seconds.observe(max(seconds, 0.0))


class LedgerBacklogMetrics:
    """What waits in the queues, what waits in the ledger for a person, and when gateways were last heard of."""

    def __init__(self, *, registry: CollectorRegistry) -> None:
        self.queue_messages = SampledGauge(
            "payment_callbacks_queue_messages",
            "Messages that wait, by queue: ledger, dead (put aside for a person), or unrouted (events nobody takes). "
            "The same in every process.",
            ["queue"],
            registry=registry,
        )
        self.attention = SampledGauge(
            "payment_callbacks_attention_items",
            "What waits for a person, as `orders attention` lists it, by kind, by merchant or endpoint, and by whether "
            "somebody has acknowledged it. A group of conflicts counts as one. The same in every process. Alert on "
            "those that nobody has acknowledged.",
            ["kind", "merchant", "endpoint", "acknowledged"],
            registry=registry,
        )
        self.disputed_ratio = SampledGauge(
            "payment_callbacks_disputed_orders_ratio",
            "The share (0 to 1) of the orders of the last 24 hours that were ever in dispute, by the field that claims "
            "state differently from each other or from the announcement. The same in every process.",
            ["merchant", "field"],
            registry=registry,
        )
        self.day_old_orders = SampledGauge(
            "payment_callbacks_day_old_orders",
            "Orders that became known 24 hours ago, or up to five minutes earlier, by whether they are explained as in "
            "`report`: final, still asked about, not yet due, or acknowledged. The same in every process.",
            ["merchant", "explained"],
            registry=registry,
        )
        self.last_claim = SampledGauge(
            "payment_callbacks_last_claim_timestamp_seconds",
            "When a merchant's gateway was last heard of, by an answer or a callback; 0 for never. Of callbacks, only "
            "those by token count where a merchant has tokens. The same in every process.",
            ["merchant", "source"],
            registry=registry,
        )
