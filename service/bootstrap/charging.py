"""Announces orders, and sends withholds to their gateways."""

from sqlalchemy import Engine

from service.bootstrap.ledger import make_refused_withholds, make_store
from service.charging.announce import Announcer
from service.charging.bulkhead import Bulkhead
from service.charging.withhold import Withholder
from service.config.settings import Settings
from service.gateway.notify_addresses import NotifyTokens
from service.ledger.store import LedgerStore
from service.ledger.withholds import Withholds
from service.runtime.clock import now


def make_announcer(settings: Settings, store: LedgerStore) -> Announcer:
    """Announces orders, and makes their notify_urls."""
    return Announcer(
        store=store,
        merchants=settings.merchants,
        public_url=settings.receiver.public_url,
        tokens={
            slug: NotifyTokens(merchant=slug, keys=merchant.token_keys)
            for slug, merchant in settings.merchants.items()
            if merchant.token_keys
        },
        clock=now,
    )


def make_withholder(settings: Settings, engine: Engine, gateways: Bulkhead) -> Withholder:
    """Sends each order once. The ledger records it before, and the outcome after."""
    store = make_store(settings, engine)
    return Withholder(
        announcer=make_announcer(settings, store),
        store=store,
        withholds=Withholds(engine=engine, clock=now, refusals=make_refused_withholds(settings, store)),
        merchants=settings.merchants,
        gateways=gateways,
    )
