"""Metrics of samples: measurements that a role takes at intervals."""

from collections.abc import Collection, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge


class SampleMetrics:
    """Samples that failed. Safe to use from many threads."""

    def __init__(self, *, registry: CollectorRegistry, samples: Collection[str]) -> None:
        """`samples`: their names."""
        self._failed = Counter(
            "payment_callbacks_samples_failed",
            "Samples of a queue or of the database that failed; what they show is missing until one succeeds.",
            ["sample"],
            registry=registry,
        )
        for sample in samples:
            self._failed.labels(sample)

    def count_failure(self, sample: str) -> None:
        """Count a failed sample."""
        self._failed.labels(sample).inc()


class SampledGauge:
    """A gauge whose values are measured all at once. Safe to use from many threads."""

    def __init__(self, name: str, description: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        self._gauge = Gauge(name, description, labels, registry=registry)

    def show(self, values: Mapping[str, float] | Mapping[tuple[str, ...], float]) -> None:
        """Replace all that it shows by these values, by its label or labels; what is not named is not known."""
        self._gauge.clear()
        for labels, value in values.items():
            self._gauge.labels(*((labels,) if isinstance(labels, str) else labels)).set(value)
