"""The URLs of the settings, each judged by the library that will connect to it."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from service.ledger.errors import DriverMissing, UnusableDatabaseUrl
from service.messaging.errors import UnusableBrokerUrl
from service.settings import Settings


def find_unusable_urls(settings: Settings) -> Iterator[tuple[str, str]]:
    """The place of each URL that nothing can connect to, and why. Connects to nothing, and quotes no secret.

    Without PostgreSQL's driver its URLs are left unjudged: not every role needs it.
    """
    if settings.broker.urls:
        yield from _judge_broker_urls(settings)
    if settings.database_url or settings.database.migrate_url:
        yield from _judge_database_urls(settings)


# What judges them is imported with them: most commands need neither.


def _judge_broker_urls(settings: Settings) -> Iterator[tuple[str, str]]:
    from service.messaging.parameters import connection_parameters

    for number, url in enumerate(settings.broker.urls):
        try:
            connection_parameters([url.reveal()], connection_name="")
        except UnusableBrokerUrl as error:
            yield f"broker.urls.{number}", str(error)


def _judge_database_urls(settings: Settings) -> Iterator[tuple[str, str]]:
    from service.bootstrap.database import make_ledger_engine, make_migration_engine

    if settings.database_url:
        yield from _judge("database_url", lambda: make_ledger_engine(settings))
    if settings.database.migrate_url:
        yield from _judge("database.migrate_url", lambda: make_migration_engine(settings))


def _judge(place: str, make: Callable[[], object]) -> Iterator[tuple[str, str]]:
    try:
        with suppress(DriverMissing):
            make()
    except UnusableDatabaseUrl as error:
        yield place, str(error)
