"""Which database a URL names."""

from service.ledger.errors import DriverMissing, UnusableDatabaseUrl

_POSTGRESQL_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


def find_libpq_url(url: str) -> str | None:
    """The URL as PostgreSQL's client library reads it; None where it names no PostgreSQL database.

    Raises UnusableDatabaseUrl where it names a driver that there is not.
    """
    scheme, _, rest = url.partition("://")
    if scheme in _POSTGRESQL_SCHEMES:
        return f"postgresql://{rest}"
    if scheme.partition("+")[0] in _POSTGRESQL_SCHEMES:
        raise UnusableDatabaseUrl("it names another driver than the one that there is: let it begin with postgresql://")
    return None


def no_driver() -> DriverMissing:
    """Says how to install PostgreSQL's driver."""
    return DriverMissing(
        "PostgreSQL's driver is not installed: pip install --require-hashes -r requirements/postgresql.txt"
    )
