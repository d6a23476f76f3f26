"""What Prometheus can read of looks: measurements that were taken at intervals, and those that failed."""

from collections.abc import Collection, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge


class SampleMetrics:
    """Whether what a role measures at intervals could be measured. Safe to use from many threads."""

    def __init__(self, *, registry: CollectorRegistry, looks: Collection[str]) -> None:
        """`looks`: their names."""
        self._failed = Counter(
            "payment_callbacks_looks_failed",
            "Looks at a queue or at the database that failed; what they show is missing until one succeeds.",
            ["look"],
            registry=registry,
        )
        for look in looks:
            self._failed.labels(look)

    def count_failure(self, look: str) -> None:
        """One look failed."""
        self._failed.labels(look).inc()


def show_instead(gauge: Gauge, values: Mapping[str, float] | Mapping[tuple[str, str], float]) -> None:
    """Show these values by the gauge's label, or labels, in place of all that it showed before."""
    gauge.clear()
    for labels, value in values.items():
        gauge.labels(*((labels,) if isinstance(labels, str) else labels)).set(value)
