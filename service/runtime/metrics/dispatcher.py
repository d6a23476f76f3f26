"""The dispatcher's metrics."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.runtime.metrics.samples import SampledGauge

_SEND_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAG_BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
_OUTCOMES = ("delivered", "failed", "parked", "lease-lost")


class DispatcherMetrics:
    """Deliveries by endpoint. Safe to use from many threads."""

    def __init__(self, *, registry: CollectorRegistry, endpoints: Collection[str]) -> None:
        """`endpoints`: the names of those that are configured."""
        self._deliveries = Counter(
            "payment_callbacks_deliveries",
            "Attempts to deliver an event, by outcome: delivered, failed (and due again), parked or lease-lost.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self._send_seconds = Histogram(
            "payment_callbacks_delivery_seconds",
            "Time that one attempt took, whatever its outcome.",
            ["endpoint"],
            buckets=_SEND_BUCKETS_SECONDS,
            registry=registry,
        )
        self._lag_seconds = Histogram(
            "payment_callbacks_lag_seconds",
            "End to end: from when the callback arrived, or the gateway was asked, until the event was delivered.",
            ["endpoint"],
            buckets=_LAG_BUCKETS_SECONDS,
            registry=registry,
        )
        # All series exist from the start, so that the first of a kind is seen as an increase.
        for endpoint in endpoints:
            for outcome in _OUTCOMES:
                self._deliveries.labels(endpoint, outcome)

    def count_delivery(self, endpoint: str, *, outcome: str) -> None:
        """Count a settled try: `delivered`, `failed`, `parked` or `lease-lost`."""
        self._deliveries.labels(endpoint, outcome).inc()

    def observe_send(self, endpoint: str, seconds: float) -> None:
        """Record how long one try took."""
        self._send_seconds.labels(endpoint).observe(seconds)

    def observe_lag(self, endpoint: str, seconds: float) -> None:
        """Record how long after its cause an event was delivered; clocks that differ may make it negative."""
        self._lag_seconds.labels(endpoint).observe(max(seconds, 0.0))


class DispatcherBacklogMetrics:
    """What waits for a delivery, by endpoint, and which endpoints are paused."""

    def __init__(self, *, registry: CollectorRegistry) -> None:
        self.oldest = SampledGauge(
            "payment_callbacks_undelivered_oldest_seconds",
            "How long the oldest undelivered event has waited; 0 where none does. The same in every process.",
            ["endpoint"],
            registry=registry,
        )
        self.paused = SampledGauge(
            "payment_callbacks_endpoint_paused_seconds",
            "How long an operator has had the endpoint paused; 0 where it is not. The same in every process.",
            ["endpoint"],
            registry=registry,
        )
