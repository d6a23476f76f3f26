"""Settings -> the things that run: the only place that chooses implementations and wires them.

Everything made here owns threads, files or connections from its first use on, so make it in the process that uses it.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from flask import Flask
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from consumers.dispatcher import Dispatcher
from consumers.inquirer import AskedGateway, Inquirer
from consumers.ledger import LedgerConsumer
from consumers.queried_gateway import QueriedGateway
from consumers.sinks.amqp import AmqpSink
from consumers.sinks.sink import Sink
from consumers.sinks.webhook import WebhookSink
from consumers.watch import Look, Watch
from service.api.announcing import Announcer
from service.api.app import create_api
from service.api.callers import Callers
from service.api.cards import Cards
from service.api.gauges import Gauges
from service.api.health import Drain, Health
from service.api.lanes import Gateway, Lane, UnusableGateway
from service.api.orders import Orders
from service.api.withholding import Withholder
from service.api.withholds import WithholdRoutes
from service.claims import ClaimSource
from service.gateway.capability import CapabilityKey, CapabilityTokens
from service.gateway.client import GatewayClient
from service.gateway.clients import GatewayClients, make_client, make_clients
from service.gateway.notify_urls import NotifyUrls
from service.ledger.agenda import Agenda
from service.ledger.engine import make_engine
from service.ledger.outbox import Outbox
from service.ledger.pauses import Pauses
from service.ledger.reports import Reports
from service.ledger.rules import EndpointRules, InquiryRules, MerchantRules
from service.ledger.schema import make_schema_check
from service.ledger.states import Verdict
from service.ledger.store import LedgerStore
from service.ledger.withholds import Withholds
from service.messaging import topology
from service.messaging.contract import DeadLetters, Publisher, Subscriber
from service.messaging.dead_letters import RabbitDeadLetters
from service.messaging.depths import EmbeddedDepths, RabbitDepths
from service.messaging.embedded import EmbeddedDeadLetters, EmbeddedPublisher, EmbeddedSubscriber
from service.messaging.embedded_queue import EmbeddedQueue
from service.messaging.publisher import RabbitPublisher
from service.messaging.spool import SpoolingPublisher
from service.messaging.subscriber import RabbitSubscriber
from service.metrics.claims import ClaimMetrics
from service.metrics.dispatcher import DispatcherBacklogMetrics, DispatcherMetrics
from service.metrics.gateways import show_gateways
from service.metrics.inquirer import InquirerBacklogMetrics, InquirerMetrics
from service.metrics.ledger import LedgerBacklogMetrics, LedgerMetrics
from service.metrics.looks import LookMetrics
from service.metrics.receiver import ReceiverMetrics
from service.settings import EndpointSettings, GatewaySettings, MerchantSettings, Settings


def now() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)


def make_callback_publisher(settings: Settings, metrics: ReceiverMetrics) -> Publisher:
    """What the receiver publishes with: RabbitMQ, with the spool behind it where that is on, or the embedded queue."""
    if not settings.broker.urls:
        return EmbeddedPublisher(queue=_embedded_queue(settings))
    publisher = _rabbit_publisher(settings, "receiver")
    if not settings.spool.enabled:
        return publisher
    spooling = SpoolingPublisher(
        inner=publisher,
        spool=make_spool(settings),
        max_bytes=settings.spool.max_bytes,
        on_depth=lambda depth: metrics.set_spool_depth(
            messages=depth.messages, size_bytes=depth.bytes, oldest_at=depth.oldest_at
        ),
    )
    spooling.start()  # what an earlier process left does not wait for the next callback
    return spooling


def make_spool(settings: Settings) -> EmbeddedQueue:
    """Where the receivers of this machine keep callbacks while RabbitMQ is away."""
    return EmbeddedQueue(path=_data_file(settings, "spool.sqlite3"))


def make_subscriber(settings: Settings) -> Subscriber:
    """What the ledger's consumer receives from."""
    if not settings.broker.urls:
        return EmbeddedSubscriber(queue=_embedded_queue(settings))
    return RabbitSubscriber(
        urls=_urls(settings),
        connection_name="ledger",
        prefetch=settings.broker.prefetch,
        dead_letter_publisher=_rabbit_publisher(settings, "ledger-dead-letters"),
    )


def make_dead_letters(settings: Settings) -> DeadLetters:
    """The messages that were put aside for a person."""
    if not settings.broker.urls:
        return EmbeddedDeadLetters(queue=_embedded_queue(settings))
    return RabbitDeadLetters(urls=_urls(settings), publisher=_rabbit_publisher(settings, "dead-letters-replay"))


def declare_topology(settings: Settings, *, timeout_seconds: float = 10.0) -> None:
    """Declare what lives on the broker; nothing to do for the embedded queue. Harmless to repeat.

    Raises `BrokerUnavailable`, or `TopologyMismatch` where something of another shape has one of our names.
    """
    if settings.broker.urls:
        topology.declare(_urls(settings), timeout_seconds=timeout_seconds)


def make_ledger_engine(settings: Settings, *, pool_size: int = 2) -> Engine:
    """The ledger's database: `database_url`, or a SQLite file in the data directory."""
    if settings.database_url:
        return make_engine(settings.database_url.reveal(), pool_size=pool_size)
    return make_engine(f"sqlite:///{_data_file(settings, 'ledger.sqlite3')}", pool_size=pool_size)


def make_store(settings: Settings, engine: Engine) -> LedgerStore:
    """The ledger, with the rules of every merchant and endpoint."""
    return LedgerStore(
        engine=engine,
        rules={slug: _merchant_rules(merchant) for slug, merchant in settings.merchants.items()},
        endpoints=[_endpoint_rules(endpoint) for endpoint in settings.endpoints],
        clock=now,
    )


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
    looks = [
        Look(name="queues", measure=_depths(settings).count, show=metrics.show_queues),
        Look(
            name="conflicts",
            measure=lambda: reports.open_conflicts(settings.merchants),
            show=metrics.show_conflicts,
        ),
    ]
    return _watch(looks, registry)


def make_dispatcher(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Dispatcher:
    """The role `dispatcher`."""
    return Dispatcher(
        outbox=Outbox(engine=engine, clock=now),
        sinks={endpoint.name: make_sink(settings, endpoint) for endpoint in settings.endpoints},
        endpoints=settings.endpoints,
        settings=settings.dispatcher,
        metrics=DispatcherMetrics(registry=registry, endpoints=[endpoint.name for endpoint in settings.endpoints]),
        clock=now,
    )


def make_sink(settings: Settings, endpoint: EndpointSettings) -> Sink:
    """What hands events to one endpoint."""
    if endpoint.kind == "amqp":
        publisher = _rabbit_publisher(settings, f"dispatcher-{endpoint.name}")
        return AmqpSink(publisher=publisher, timeout_seconds=endpoint.timeout_seconds)
    return WebhookSink(endpoint=endpoint, clock=now)


def make_dispatcher_watch(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Watch:
    """What the role `dispatcher` measures at intervals; takes one connection of `engine`."""
    metrics, outbox = DispatcherBacklogMetrics(registry=registry), Outbox(engine=engine, clock=now)
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
        agenda=_agenda(settings, engine),
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
    metrics, agenda = InquirerBacklogMetrics(registry=registry), _agenda(settings, engine)
    # Also those whose gateway cannot be used: what is due to them waits all the same.
    asked = [slug for slug, merchant in settings.merchants.items() if merchant.gateway]
    looks = [
        Look(name="due-inquiries", measure=lambda: agenda.oldest_due_ages(asked), show=metrics.show_oldest_due),
        Look(name="parked-inquiries", measure=lambda: agenda.count_parked(asked), show=metrics.show_parked),
    ]
    return _watch(looks, registry)


def inquirer_pool_size(settings: Settings) -> int:
    """Database connections that the inquirer's loops and its watch use at once."""
    return sum(merchant.gateway is not None for merchant in settings.merchants.values()) + 1


def make_tokens(merchant: MerchantSettings) -> CapabilityTokens:
    """Mints and reads the merchant's notify_url tokens. Raises `KeyUnusable` where it has no keys."""
    keys = [CapabilityKey(kid=key.kid, secret=key.key.reveal().encode()) for key in merchant.token_keys]
    return CapabilityTokens(merchant=merchant.slug, keys=keys)


def make_gateway_client(merchant: MerchantSettings, gateway: GatewaySettings) -> GatewayClient:
    """Speaks to the merchant's gateway. Raises a `GatewayError` where its settings cannot be used."""
    return make_client(merchant, gateway, clock=now)


def make_gateway_clients(settings: Settings) -> GatewayClients:
    """A client for each merchant with a gateway, and why there is none for some."""
    return make_clients(settings.merchants.values(), clock=now)


def make_announcer(settings: Settings, store: LedgerStore) -> Announcer:
    """Announces orders and knows their addresses."""
    notify_urls = NotifyUrls(
        public_url=settings.receiver.public_url,
        tokens={
            slug: make_tokens(merchant) if merchant.token_keys else None
            for slug, merchant in settings.merchants.items()
        },
    )
    return Announcer(store=store, merchants=settings.merchants, notify_urls=notify_urls, clock=now)


def make_withholder(settings: Settings, engine: Engine, gateways: Mapping[str, Gateway]) -> Withholder:
    """Sends each order once, with the ledger knowing of it before and of its outcome after."""
    store = make_store(settings, engine)
    return Withholder(
        announcer=make_announcer(settings, store),
        store=store,
        withholds=Withholds(engine=engine, clock=now),
        merchants=settings.merchants,
        gateways=gateways,
    )


def make_api(settings: Settings, engine: Engine, drain: Drain) -> Flask:
    """The role `api`: one worker's application, with a connection of `engine` for each of its threads and one more.

    `drain` says when the worker is about to end.
    """
    store = make_store(settings, engine)
    announcer = make_announcer(settings, store)
    # A gateway that hangs gets half of the threads at most.
    places = max(settings.api.threads // 2, 1)
    clients = make_gateway_clients(settings)
    gateways: dict[str, Gateway] = {
        **{slug: Lane(gateway=client, places=places) for slug, client in clients.usable.items()},
        **{slug: UnusableGateway(merchant=slug, reason=str(error)) for slug, error in clients.unusable.items()},
    }
    withholder = make_withholder(settings, engine, gateways)
    return create_api(
        routes=[
            *Orders(store=store, announcer=announcer).routes(),
            *WithholdRoutes(withholder=withholder).routes(),
            *Cards(merchants=settings.merchants, gateways=gateways).routes(),
        ],
        callers=Callers(tokens=settings.api.tokens),
        gauges=Gauges(
            reports=Reports(engine=engine),
            merchants={slug: merchant.least_telling_trust for slug, merchant in settings.merchants.items()},
            gateways=clients,
        ),
        health=Health(drain=drain, schema_serves=make_schema_check(engine)),
    )


def _agenda(settings: Settings, engine: Engine) -> Agenda:
    return Agenda(
        engine=engine,
        store=make_store(settings, engine),
        rules={slug: _inquiry_rules(merchant) for slug, merchant in settings.merchants.items()},
        clock=now,
    )


def _claim_metrics(settings: Settings, registry: CollectorRegistry, source: ClaimSource) -> ClaimMetrics:
    return ClaimMetrics(registry=registry, merchants=settings.merchants, source=source, verdicts=list(Verdict))


def _depths(settings: Settings) -> RabbitDepths | EmbeddedDepths:
    if settings.broker.urls:
        return RabbitDepths(urls=_urls(settings))
    return EmbeddedDepths(queue=_embedded_queue(settings))


def _watch(looks: Sequence[Look], registry: CollectorRegistry) -> Watch:
    return Watch(looks, metrics=LookMetrics(registry=registry, looks=[look.name for look in looks]))


def _merchant_rules(merchant: MerchantSettings) -> MerchantRules:
    return MerchantRules(
        required_trust=merchant.required_trust,
        can_ask=merchant.gateway is not None,
        answer_due_seconds=merchant.answer_due_seconds,
        inquiry_horizon_seconds=merchant.inquiry_horizon_seconds,
    )


def _inquiry_rules(merchant: MerchantSettings) -> InquiryRules:
    return InquiryRules(
        least_interval_seconds=merchant.least_inquiry_interval_seconds,
        most_per_day=merchant.most_inquiries_per_day,
        most_per_minute=merchant.most_inquiries_per_minute,
        overdue_share=merchant.overdue_share,
        first_repeat_seconds=merchant.first_inquiry_repeat_seconds,
        most_repeat_seconds=merchant.most_inquiry_repeat_seconds,
    )


def _queried(merchant: MerchantSettings, client: GatewayClient) -> QueriedGateway:
    return QueriedGateway(
        client=client,
        merchant=merchant.slug,
        pay_types=merchant.pay_types,
        time_zone=ZoneInfo(merchant.time_zone),
    )


def _endpoint_rules(endpoint: EndpointSettings) -> EndpointRules:
    return EndpointRules(name=endpoint.name, types=endpoint.types, merchants=endpoint.merchants)


def _rabbit_publisher(settings: Settings, connection_name: str) -> RabbitPublisher:
    return RabbitPublisher(
        urls=_urls(settings), connection_name=connection_name, max_in_flight=settings.broker.max_in_flight
    )


def _embedded_queue(settings: Settings) -> EmbeddedQueue:
    return EmbeddedQueue(path=_data_file(settings, "callbacks.sqlite3"))


def _urls(settings: Settings) -> Sequence[str]:
    return [url.reveal() for url in settings.broker.urls]


def _data_file(settings: Settings, name: str) -> Path:
    """A file in the data directory, which is made for its owner alone: it holds people's data."""
    settings.data_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings.data_directory / name
