"""The role `ledger`."""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from consumers.dead_letters import DeadLetterKeeper
from consumers.ledger import LedgerConsumer, Recorder
from consumers.maintenance import pruning
from consumers.sampler import Sample, Sampler
from consumers.threads import repeated
from service.bootstrap.ledger import make_store
from service.bootstrap.messaging import make_dead_letters, make_message_counter, make_queue_report, make_subscriber
from service.config.settings import MerchantSettings, Settings
from service.domain.claims import ClaimSource
from service.domain.depths import REPORT_EVERY_SECONDS
from service.ledger.attention import AttentionList
from service.ledger.dead_letters import DeadLetterStore
from service.ledger.depths import DepthStore
from service.ledger.forgeries import Forgeries
from service.ledger.reports import Reports
from service.runtime.clock import now
from service.runtime.metrics.ledger import LedgerBacklogMetrics, LedgerMetrics
from service.runtime.metrics.merchants import ClaimMetrics
from service.runtime.tracing import NO_TRACING, Tracing

#: The most database connections that the role uses at once: for its consumer, sampler, pruner, dead letters, totals
#: and reports of the queue's depth.
LEDGER_POOL_SIZE = 6
# Orders younger than this count for the share of disputed ones.
_DISPUTES_SINCE = timedelta(days=1)
# At this age, and for so long, orders are counted as explained or not: longer than the time between two scrapes.
_EXPLAINED_WITHIN = timedelta(days=1)
_DAY_OLD_FOR = timedelta(minutes=5)


def make_ledger_consumer(
    settings: Settings, engine: Engine, registry: CollectorRegistry, tracing: Tracing = NO_TRACING
) -> LedgerConsumer:
    """The role `ledger`."""
    return LedgerConsumer(
        subscriber=make_subscriber(settings),
        recorder=Recorder(
            store=make_store(settings, engine),
            dead_letters=DeadLetterStore(engine=engine),
            depths=DepthStore(engine=engine),
            metrics=LedgerMetrics(registry=registry),
            claim_metrics=ClaimMetrics(
                registry=registry,
                merchants=settings.merchants,
                source=ClaimSource.CALLBACK,
                clock=now,
            ),
            clock=now,
            tracing=tracing,
        ),
        settings=settings.ledger,
    )


def make_ledger_sampler(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Sampler:
    """The periodic measurements of the role `ledger`. Uses one connection of `engine`."""
    metrics, reports = LedgerBacklogMetrics(registry=registry), Reports(engine=engine)
    samples: list[Sample[Any]] = [
        Sample(name="queues", measure=make_message_counter(settings), show=metrics.queue_messages.show),
        Sample(name="attention", measure=AttentionList(engine=engine).count, show=metrics.attention.show),
        Sample(
            name="disputes",
            measure=lambda: reports.disputed_ratios(settings.merchants, since=now() - _DISPUTES_SINCE),
            show=metrics.disputed_ratio.show,
        ),
        Sample(
            name="explained",
            measure=lambda: _day_old_orders(settings.merchants, reports),
            show=metrics.day_old_orders.show,
        ),
        Sample(
            name="last-claims",
            measure=lambda: _last_claim_times(settings.merchants, reports),
            show=metrics.last_claim.show,
        ),
    ]
    return Sampler(samples, registry=registry)


def pruning_forged_orders(settings: Settings, engine: Engine) -> AbstractContextManager[None]:
    """Remove old forged orders while the `with` lasts. Uses one connection of `engine`."""
    return pruning(
        Forgeries(engine=engine),
        keep=timedelta(days=settings.ledger.forged_order_days),
        max_kept=settings.ledger.max_forged_orders,
        clock=now,
    )


def make_dead_letter_keeper(settings: Settings, engine: Engine) -> DeadLetterKeeper:
    """Keeps the ledger's rows of dead letters equal to the queue's. Uses one connection of `engine`."""
    return DeadLetterKeeper(
        letters=make_dead_letters(settings),
        count=make_message_counter(settings),
        store=DeadLetterStore(engine=engine),
        clock=now,
    )


def reporting_queue_depth(settings: Settings, engine: Engine) -> AbstractContextManager[None]:
    """Report the queue's depth to the ledger while the `with` lasts. Uses one connection of `engine`."""
    measure, depths = make_queue_report(settings), DepthStore(engine=engine)
    return repeated(
        lambda _over: depths.record([measure()]),
        name="queue-depth",
        every_seconds=REPORT_EVERY_SECONDS,
        failure="queue_depth_not_reported",
    )


def _day_old_orders(merchants: Collection[str], reports: Reports) -> Mapping[tuple[str, str], float]:
    until = now() - _EXPLAINED_WITHIN
    counts = reports.count_explained(merchants, since=until - _DAY_OLD_FOR, until=until)
    return {(merchant, str(explained).lower()): float(number) for (merchant, explained), number in counts.items()}


def _last_claim_times(merchants: Mapping[str, MerchantSettings], reports: Reports) -> Mapping[tuple[str, str], float]:
    # A gateway without any claim has the time 0, so that it raises an alert.
    times = {(slug, ClaimSource.CALLBACK.value): 0.0 for slug in merchants}
    times |= {(slug, ClaimSource.QUERY.value): 0.0 for slug, merchant in merchants.items() if merchant.gateway}
    received = reports.last_claims({slug: merchant.liveness_trust for slug, merchant in merchants.items()})
    return times | {(slug, source.value): at.timestamp() for (slug, source), at in received.items()}
