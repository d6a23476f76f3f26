"""Checks the URLs of the settings with the libraries that will connect to them."""

from collections.abc import Iterator
from contextlib import suppress

from service.config.secrets import Secret
from service.config.settings import Settings
from service.ledger.errors import DriverMissing, UnusableDatabaseUrl
from service.messaging.errors import UnusableBrokerUrl


def find_unusable_urls(settings: Settings, *, with_database: bool = True) -> Iterator[tuple[str, str]]:
    """Find the URLs that cannot be used: the place and the error of each. Connects to nothing, and quotes no secret.

    Without PostgreSQL's driver its URLs are not checked: not every role needs it.
    """
    if settings.broker.urls:
        yield from _check_broker_urls(settings)
    if with_database:
        yield from _check_database_url("database_url", settings.database_url, pooled=settings.database.pooled)
        yield from _check_database_url("database.migrate_url", settings.database.migrate_url, pooled=False)


# The libraries are imported only if there are URLs: most commands need neither.


def _check_broker_urls(settings: Settings) -> Iterator[tuple[str, str]]:
    from service.messaging.rabbitmq.parameters import connection_parameters

    for number, url in enumerate(settings.broker.urls):
        try:
            connection_parameters([url.reveal()], connection_name="")
        except UnusableBrokerUrl as error:
            yield f"broker.urls.{number}", str(error)


def _check_database_url(place: str, url: Secret | None, *, pooled: bool) -> Iterator[tuple[str, str]]:
    if not url:
        return
    from service.ledger.database_url import find_libpq_url, read_postgresql_url

    try:
        with suppress(DriverMissing):
            libpq_url = find_libpq_url(url.reveal())
            if libpq_url is None:
                from service.ledger.database import make_engine

                make_engine(url.reveal(), pooled=pooled)
            else:
                # Not the engine: importing SQLAlchemy takes longer than most commands.
                read_postgresql_url(libpq_url, pooled=pooled, application_name="")
    except UnusableDatabaseUrl as error:
        yield place, str(error)
