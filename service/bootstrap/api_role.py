"""The role `api`."""

from zoneinfo import ZoneInfo

from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from service.api.app import create_api
from service.api.attention import make_attention
from service.api.cards import make_cards, make_withholds
from service.api.dead_letters import make_dead_letters
from service.api.events import make_events
from service.api.operating import make_operating
from service.api.orders import make_orders
from service.api.reports import make_report
from service.bootstrap.charging import make_announcer, make_withholder
from service.bootstrap.gateways import make_gateway_clients
from service.bootstrap.ledger import make_readiness_check, make_store
from service.charging.bulkhead import Bulkhead
from service.config.settings import Settings
from service.identity.tokens import Authenticator
from service.ledger.attention import AttentionList
from service.ledger.dead_letters import DeadLetterStore
from service.ledger.endpoint_tests import EndpointTests
from service.ledger.endpoints import Pauses
from service.ledger.feed import EventFeed
from service.ledger.outbox import Outbox
from service.ledger.replays import Replays
from service.ledger.reports import Reports
from service.runtime.clock import now
from service.runtime.metrics.exposition import name_role
from service.runtime.metrics.merchants import show_gateways
from service.runtime.tracing import NO_TRACING, Tracing
from service.serving.health import Drain, Health


def make_api(
    settings: Settings, engine: Engine, drain: Drain, log_metrics: Collector, tracing: Tracing = NO_TRACING
) -> Flask:
    """The application of one worker of the role `api`. `engine` needs a connection per thread, and one more.

    `drain` says when the worker is about to end. `log_metrics` are the metrics of the log of all workers.
    """
    store = make_store(settings, engine)
    announcer = make_announcer(settings, store)
    clients = make_gateway_clients(settings, tracing)
    # A gateway that hangs can occupy half of the threads at most.
    gateways = Bulkhead(clients, max_calls=max(settings.api.threads // 2, 1))
    # The same in each worker: no metric counts requests.
    registry = CollectorRegistry()
    name_role(registry, "api")
    show_gateways(registry, usable=clients.usable, unusable=clients.unusable)
    registry.register(log_metrics)
    return create_api(
        blueprints=[
            make_orders(store=store, announcer=announcer),
            make_events(feed=EventFeed(engine=engine), drain=drain, max_waiting=max(settings.api.threads // 4, 1)),
            make_attention(attention=AttentionList(engine=engine)),
            make_dead_letters(letters=DeadLetterStore(engine=engine)),
            make_report(
                reports=Reports(engine=engine),
                zones={slug: ZoneInfo(merchant.time_zone) for slug, merchant in settings.merchants.items()},
            ),
            make_operating(
                engine=engine,
                store=store,
                pauses=Pauses(engine=engine, clock=now),
                tests=EndpointTests(engine=engine),
                outbox=Outbox(engine=engine),
                replays=Replays(engine=engine),
                endpoints=[endpoint.name for endpoint in settings.endpoints],
            ),
            make_withholds(withholder=make_withholder(settings, engine, gateways)),
            make_cards(merchants=settings.merchants, gateways=gateways),
        ],
        authenticator=Authenticator(tokens=settings.api.tokens),
        registry=registry,
        health=Health(drain=drain, find_trouble=make_readiness_check(engine)),
        tracing=tracing,
    )
