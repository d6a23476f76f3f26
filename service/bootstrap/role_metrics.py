"""Metrics that several roles have."""

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from consumers.sampler import Sample, Sampler
from service.config.settings import Settings
from service.domain.claims import ClaimSource
from service.domain.order_state import Verdict
from service.runtime.metrics.merchants import ClaimMetrics
from service.runtime.metrics.samples import SampleMetrics


def make_claim_metrics(settings: Settings, registry: CollectorRegistry, source: ClaimSource) -> ClaimMetrics:
    """Counts of the claims from `source`, by merchant and verdict."""
    return ClaimMetrics(registry=registry, merchants=settings.merchants, source=source, verdicts=list(Verdict))


def make_sampler(samples: Sequence[Sample[Any]], registry: CollectorRegistry) -> Sampler:
    """Takes these samples at intervals, and counts failures."""
    return Sampler(samples, metrics=SampleMetrics(registry=registry, samples=[sample.name for sample in samples]))
