"""The URLs of the settings, each judged by the library that will connect to it."""

from collections.abc import Iterator
from contextlib import suppress

from service.config.secrets import Secret
from service.config.settings import Settings
from service.ledger.errors import DriverMissing, UnusableDatabaseUrl
from service.messaging.errors import UnusableBrokerUrl


def find_unusable_urls(settings: Settings, *, with_database: bool = True) -> Iterator[tuple[str, str]]:
    """The place of each URL that nothing can connect to, and why. Connects to nothing, and quotes no secret.

    Without PostgreSQL's driver its URLs are left unjudged: not every role needs it.
    """
    if settings.broker.urls:
        yield from _judge_broker_urls(settings)
    if with_database:
        yield from _judge_database_url("database_url", settings.database_url, pooled=settings.database.pooled)
        yield from _judge_database_url("database.migrate_url", settings.database.migrate_url, pooled=False)


# What judges them is imported with them: most commands need neither.


def _judge_broker_urls(settings: Settings) -> Iterator[tuple[str, str]]:
    from service.messaging.rabbitmq.parameters import connection_parameters

    for number, url in enumerate(settings.broker.urls):
        try:
            connection_parameters([url.reveal()], connection_name="")
        except UnusableBrokerUrl as error:
            yield f"broker.urls.{number}", str(error)


def judge_database_url(url: Secret, *, pooled: bool) -> None:
    """Raises UnusableDatabaseUrl where nothing can connect with it, and DriverMissing without PostgreSQL's driver."""
    from service.ledger.database_url import find_libpq_url, read_postgresql_url

    libpq_url = find_libpq_url(url.reveal())
    if libpq_url is None:
        from service.ledger.engine import make_engine

        make_engine(url.reveal(), pooled=pooled)
    else:
        # Not the engine: importing SQLAlchemy takes longer than most commands.
        read_postgresql_url(libpq_url, pooled=pooled, application_name="")


def _judge_database_url(place: str, url: Secret | None, *, pooled: bool) -> Iterator[tuple[str, str]]:
    if not url:
        return
    try:
        with suppress(DriverMissing):
            judge_database_url(url, pooled=pooled)
    except UnusableDatabaseUrl as error:
        yield place, str(error)
