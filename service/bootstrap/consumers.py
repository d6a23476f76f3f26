"""The long-running roles, and what each of them measures at intervals."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from consumers.dispatcher import Dispatcher
from consumers.inquirer import AskedGateway, Inquirer
from consumers.ledger import LedgerConsumer
from consumers.pruner import Pruner
from consumers.queried_gateway import QueriedGateway
from consumers.sinks.amqp import AmqpSink
from consumers.sinks.sink import Sink
from consumers.sinks.webhook import WebhookSink
from consumers.watch import Look, Watch
from service.bootstrap.ledger import make_agenda, make_store
from service.bootstrap.messaging import make_depths, make_rabbit_publisher, make_subscriber
from service.claims import ClaimSource
from service.clock import now
from service.gateway.client import GatewayClient
from service.gateway.clients import GatewayClients
from service.ledger.forgeries import Forgeries
from service.ledger.outbox import Outbox
from service.ledger.pauses import Pauses
from service.ledger.reports import Reports
from service.ledger.states import Verdict
from service.metrics.claims import ClaimMetrics
from service.metrics.dispatcher import DispatcherBacklogMetrics, DispatcherMetrics
from service.metrics.gateways import show_gateways
from service.metrics.inquirer import InquirerBacklogMetrics, InquirerMetrics
from service.metrics.ledger import LedgerBacklogMetrics, LedgerMetrics
from service.metrics.looks import LookMetrics
from service.settings import EndpointSettings, MerchantSettings, Settings

#: Database connections that the role `ledger` uses at once: its consumer, its watch and its pruner.
LEDGER_POOL_SIZE = 3


def make_ledger_consumer(settings: Settings, engine: Engine, registry: CollectorRegistry) -> LedgerConsumer:
    """The role `ledger`."""
    return LedgerConsumer(
        subscriber=make_subscriber(settings),
        store=make_store(settings, engine),
        settings=settings.ledger,
        metrics=LedgerMetrics(registry=registry),
        claim_metrics=_claim_metrics(settings, registry, ClaimSource.CALLBACK),
        clock=now,
    )


def make_ledger_watch(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Watch:
    """What the role `ledger` measures at intervals; takes one connection of `engine`."""
    metrics, reports = LedgerBacklogMetrics(registry=registry), Reports(engine=engine)
    looks: list[Look[Any]] = [
        Look(name="queues", measure=make_depths(settings).count, show=metrics.show_queues),
        Look(
            name="conflicts",
            measure=lambda: reports.open_conflicts(settings.merchants),
            show=metrics.show_conflicts,
        ),
        Look(
            name="last-claims",
            measure=lambda: _last_claim_times(settings.merchants, reports),
            show=metrics.show_last_claims,
        ),
    ]
    return _watch(looks, registry)


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
    heard = reports.last_claims({slug: merchant.least_telling_trust for slug, merchant in merchants.items()})
    return times | {(slug, source.value): at.timestamp() for (slug, source), at in heard.items()}


def make_dispatcher(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Dispatcher:
    """The role `dispatcher`."""
    return Dispatcher(
        outbox=Outbox(engine=engine),
        sinks={endpoint.name: make_sink(settings, endpoint) for endpoint in settings.endpoints},
        endpoints=settings.endpoints,
        settings=settings.dispatcher,
        metrics=DispatcherMetrics(registry=registry, endpoints=[endpoint.name for endpoint in settings.endpoints]),
        clock=now,
    )


def make_sink(settings: Settings, endpoint: EndpointSettings) -> Sink:
    """What hands events to one endpoint."""
    if endpoint.kind == "amqp":
        publisher = make_rabbit_publisher(settings, f"dispatcher-{endpoint.name}")
        return AmqpSink(publisher=publisher, timeout_seconds=endpoint.timeout_seconds)
    return WebhookSink(endpoint=endpoint, clock=now)


def make_dispatcher_watch(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Watch:
    """What the role `dispatcher` measures at intervals; takes one connection of `engine`."""
    metrics, outbox = DispatcherBacklogMetrics(registry=registry), Outbox(engine=engine)
    pauses = Pauses(engine=engine, clock=now)
    names = [endpoint.name for endpoint in settings.endpoints]
    looks = [
        Look(name="undelivered", measure=lambda: outbox.oldest_open_ages(names), show=metrics.show_oldest),
        Look(name="parked-deliveries", measure=lambda: outbox.count_parked(names), show=metrics.show_parked),
        Look(name="paused-endpoints", measure=lambda: pauses.ages(names), show=metrics.show_paused),
    ]
    return _watch(looks, registry)


def dispatcher_pool_size(settings: Settings) -> int:
    """Database connections that the dispatcher's loops and its watch use at once."""
    return len(settings.endpoints) + 1


def make_inquirer(
    settings: Settings, engine: Engine, registry: CollectorRegistry, gateways: GatewayClients
) -> Inquirer:
    """The role `inquirer`, which asks those gateways that can be used. The other merchants' inquiries stay open."""
    show_gateways(registry, usable=gateways.usable, unusable=gateways.unusable)
    return Inquirer(
        agenda=make_agenda(settings, engine),
        gateways={
            slug: AskedGateway(
                gateway=_queried(merchant, gateways.usable[slug]), timeout_seconds=merchant.gateway.timeout_seconds
            )
            for slug, merchant in settings.merchants.items()
            if merchant.gateway and slug in gateways.usable
        },
        settings=settings.inquirer,
        metrics=InquirerMetrics(registry=registry),
        claim_metrics=_claim_metrics(settings, registry, ClaimSource.QUERY),
    )


def make_inquirer_watch(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Watch:
    """What the role `inquirer` measures at intervals; takes one connection of `engine`."""
    metrics, agenda = InquirerBacklogMetrics(registry=registry), make_agenda(settings, engine)
    # Also those whose gateway cannot be used: what is due to them waits all the same.
    asked = [slug for slug, merchant in settings.merchants.items() if merchant.gateway]
    looks: list[Look[Any]] = [
        Look(name="due-inquiries", measure=lambda: agenda.oldest_due_ages(asked), show=metrics.show_oldest_due),
        Look(name="parked-inquiries", measure=lambda: agenda.count_parked(asked), show=metrics.show_parked),
    ]
    return _watch(looks, registry)


def inquirer_pool_size(settings: Settings) -> int:
    """Database connections that the inquirer's loops and its watch use at once."""
    return sum(merchant.gateway is not None for merchant in settings.merchants.values()) + 1


def _claim_metrics(settings: Settings, registry: CollectorRegistry, source: ClaimSource) -> ClaimMetrics:
    return ClaimMetrics(registry=registry, merchants=settings.merchants, source=source, verdicts=list(Verdict))


def _watch(looks: Sequence[Look[Any]], registry: CollectorRegistry) -> Watch:
    return Watch(looks, metrics=LookMetrics(registry=registry, looks=[look.name for look in looks]))


def _queried(merchant: MerchantSettings, client: GatewayClient) -> QueriedGateway:
    return QueriedGateway(
        client=client,
        merchant=merchant.slug,
        pay_types=merchant.pay_types,
        time_zone=ZoneInfo(merchant.time_zone),
    )
