"""The role `console`."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from flask import Blueprint, Flask
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from service.bootstrap.charging import make_announcer
from service.bootstrap.ledger import make_readiness_check, make_store
from service.config.settings import ConsoleSettings, Settings
from service.console.app import create_console
from service.console.audit import make_audit
from service.console.charts import make_charts
from service.console.dead_letters import make_dead_letters
from service.console.endpoints import make_endpoints
from service.console.orders import make_orders
from service.console.people import OpenIdSignIn, ProxySignIn, TokenSignIn
from service.console.signs import make_signs
from service.console.today import make_today
from service.identity.tokens import Authenticator
from service.ledger.attention import AttentionList
from service.ledger.dead_letters import DeadLetterStore
from service.ledger.endpoint_tests import EndpointTests
from service.ledger.endpoints import Pauses, read_endpoint_states
from service.ledger.outbox import Outbox
from service.ledger.replays import Replays
from service.ledger.reports import Reports
from service.runtime.clock import now
from service.runtime.metrics.exposition import name_role
from service.serving.health import Drain, Health


class OpenIdUnusable(Exception):
    """The settings ask for OpenID Connect, and what it needs is not installed. The text says how to install it."""


def require_openid(settings: Settings) -> None:
    """Raises OpenIdUnusable if people are to sign in through OpenID Connect, and the extra `oidc` is not installed."""
    if settings.console.openid is not None:
        try:
            import service.console.openid  # noqa: F401 - it is only to be found
        except ModuleNotFoundError as error:
            raise OpenIdUnusable(
                f"console.openid is set, and {error.name} is not installed: pip install 'payment-callbacks[oidc]', "
                "or remove console.openid"
            ) from error


def _make_openid(console: ConsoleSettings) -> tuple[OpenIdSignIn | None, Sequence[Blueprint]]:
    if console.openid is None:
        return None, []
    from service.console.openid import make_openid  # the extra `oidc`

    people = OpenIdSignIn(console.openid)
    return people, [make_openid(console.openid, public_url=console.public_url, people=people)]


def make_console(settings: Settings, engine: Engine, drain: Drain, log_metrics: Collector) -> Flask:
    """The application of one worker of the role `console`. `engine` needs a connection per thread, and one more.

    `drain` says when the worker is about to end. `log_metrics` are the metrics of the log of all workers.
    """
    store = make_store(settings, engine)
    console = settings.console
    openid, openid_pages = _make_openid(console)
    registry = CollectorRegistry()
    name_role(registry, "console")
    registry.register(log_metrics)
    return create_console(
        settings=console,
        blueprints=[
            make_today(
                attention=AttentionList(engine=engine),
                reports=Reports(engine=engine),
                read_endpoints=lambda: read_endpoint_states(engine, [endpoint.name for endpoint in settings.endpoints]),
                zones={slug: ZoneInfo(merchant.time_zone) for slug, merchant in settings.merchants.items()},
            ),
            make_orders(store=store, announcer=make_announcer(settings, store), merchants=list(settings.merchants)),
            make_endpoints(
                engine=engine,
                pauses=Pauses(engine=engine, clock=now),
                tests=EndpointTests(engine=engine),
                outbox=Outbox(engine=engine),
                replays=Replays(engine=engine),
                endpoints=[endpoint.name for endpoint in settings.endpoints],
                clock=now,
            ),
            make_dead_letters(letters=DeadLetterStore(engine=engine)),
            make_charts(engine=engine, clock=now),
            make_signs(),
            make_audit(engine=engine),
            *openid_pages,
        ],
        tokens=TokenSignIn(Authenticator(tokens=settings.api.tokens)),
        openid=openid,
        proxy=ProxySignIn(console.proxy) if console.proxy else None,
        registry=registry,
        health=Health(drain=drain, find_trouble=make_readiness_check(engine)),
    )
