"""The role `ledger`."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from consumers.ledger import LedgerConsumer, Recorder
from consumers.pruner import Pruner
from consumers.sampler import Sample, Sampler
from service.bootstrap.ledger import make_store
from service.bootstrap.messaging import make_message_counter, make_subscriber
from service.bootstrap.role_metrics import make_claim_metrics, make_sampler
from service.config.settings import MerchantSettings, Settings
from service.domain.claims import ClaimSource
from service.ledger.forgeries import Forgeries
from service.ledger.reports import Reports
from service.runtime.clock import now
from service.runtime.metrics.ledger import LedgerBacklogMetrics, LedgerMetrics

#: Database connections that the role uses at once: its consumer, its sampler and its pruner.
LEDGER_POOL_SIZE = 3


def make_ledger_consumer(settings: Settings, engine: Engine, registry: CollectorRegistry) -> LedgerConsumer:
    """The role `ledger`."""
    return LedgerConsumer(
        subscriber=make_subscriber(settings),
        recorder=Recorder(
            store=make_store(settings, engine),
            metrics=LedgerMetrics(registry=registry),
            claim_metrics=make_claim_metrics(settings, registry, ClaimSource.CALLBACK),
            clock=now,
        ),
        settings=settings.ledger,
    )


def make_ledger_sampler(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Sampler:
    """What the role `ledger` measures at intervals; takes one connection of `engine`."""
    metrics, reports = LedgerBacklogMetrics(registry=registry), Reports(engine=engine)
    samples: list[Sample[Any]] = [
        Sample(name="queues", measure=make_message_counter(settings), show=metrics.queue_messages.show),
        Sample(
            name="conflicts",
            measure=lambda: reports.open_conflicts(settings.merchants),
            show=metrics.conflicts.show,
        ),
        Sample(
            name="last-claims",
            measure=lambda: _last_claim_times(settings.merchants, reports),
            show=metrics.last_claim.show,
        ),
    ]
    return make_sampler(samples, registry)


def make_pruner(settings: Settings, engine: Engine) -> Pruner:
    """What the role `ledger` removes at intervals; takes one connection of `engine`."""
    return Pruner(
        forgeries=Forgeries(engine=engine),
        keep=timedelta(days=settings.ledger.forged_order_days),
        most_kept=settings.ledger.most_forged_orders,
        clock=now,
    )


def _last_claim_times(merchants: Mapping[str, MerchantSettings], reports: Reports) -> Mapping[tuple[str, str], float]:
    # A gateway that was never heard of is one to be alerted of, not one without a sample.
    times = {(slug, ClaimSource.CALLBACK.value): 0.0 for slug in merchants}
    times |= {(slug, ClaimSource.QUERY.value): 0.0 for slug, merchant in merchants.items() if merchant.gateway}
    heard = reports.last_claims({slug: merchant.liveness_trust for slug, merchant in merchants.items()})
    return times | {(slug, source.value): at.timestamp() for (slug, source), at in heard.items()}
