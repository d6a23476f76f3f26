"""The inquirer's metrics."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.runtime.metrics.samples import SampledGauge

_ANSWER_BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)


class InquirerMetrics:
    """The inquirer's metrics. Safe to use from many threads."""

    def __init__(self, *, registry: CollectorRegistry) -> None:
        self._asked = Counter(
            "payment_callbacks_inquiries_asked",
            "Queries sent, by outcome: answered, not-found, other-spelling or no-answer.",
            ["merchant", "outcome"],
            registry=registry,
        )
        self._reasons = Counter(
            "payment_callbacks_inquiry_reasons",
            "Why questions were asked; one question may have several reasons.",
            ["merchant", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "payment_callbacks_inquiry_seconds",
            "Time until the gateway answered, or was given up.",
            ["merchant"],
            buckets=_ANSWER_BUCKETS_SECONDS,
            registry=registry,
        )
        self._parked_by_us = Counter(
            "payment_callbacks_inquiries_given_up",
            "Inquiries that this process gave up without an answer, at their maximum age.",
            ["merchant"],
            registry=registry,
        )

    def count_question(self, merchant: str, *, outcome: str, reasons: Collection[str], seconds: float) -> None:
        """Count a settled question; `reasons` are constant words."""
        self._asked.labels(merchant, outcome).inc()
        self._seconds.labels(merchant).observe(seconds)
        for reason in reasons:
            self._reasons.labels(merchant, reason).inc()

    def count_parked(self, merchant: str) -> None:
        """Count an inquiry that was given up."""
        self._parked_by_us.labels(merchant).inc()


class InquirerBacklogMetrics:
    """What is to be asked, by merchant, and why rules end no orders."""

    def __init__(self, *, registry: CollectorRegistry) -> None:
        self.oldest_due = SampledGauge(
            "payment_callbacks_inquiries_oldest_due_seconds",
            "How long the question that is due longest has waited, of those that an order is owed and of doubts, which"
            " anyone can raise; 0 where none is due. The same in every process.",
            ["merchant", "kind"],
            registry=registry,
        )
        self.suspensions = SampledGauge(
            "payment_callbacks_refusal_rules_suspended",
            "The number of orders because of which the rules for refused withholds are suspended, by reason:"
            " missing-order (the gateway does not have what it accepted or called paid), correction (a rule ended what"
            " was paid after all), max-per-hour (they wait). 0: not suspended. The same in every process.",
            ["merchant", "reason"],
            registry=registry,
        )
