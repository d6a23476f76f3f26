"""What several roles measure."""

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from consumers.watch import Look, Watch
from service.claims import ClaimSource
from service.ledger.states import Verdict
from service.metrics.claims import ClaimMetrics
from service.metrics.looks import LookMetrics
from service.settings import Settings


def make_claim_metrics(settings: Settings, registry: CollectorRegistry, source: ClaimSource) -> ClaimMetrics:
    """Counts of the claims from `source`, by merchant and verdict."""
    return ClaimMetrics(registry=registry, merchants=settings.merchants, source=source, verdicts=list(Verdict))


def make_watch(looks: Sequence[Look[Any]], registry: CollectorRegistry) -> Watch:
    """Measures at intervals, and shows how that goes."""
    return Watch(looks, metrics=LookMetrics(registry=registry, looks=[look.name for look in looks]))
