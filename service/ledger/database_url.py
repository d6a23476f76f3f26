"""The database's URL: which database it names, and how to connect to PostgreSQL with it.

Judging a URL needs neither SQLAlchemy nor, where it names a SQLite file, PostgreSQL's driver, so most commands start
without importing them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.config.url_syntax import PERCENT_ENCODE
from service.ledger.errors import DriverMissing, UnusableDatabaseUrl

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

CONNECT_SECONDS = 5
#: PostgreSQL ends an ordinary statement after this time.
STATEMENT_SECONDS = 10
#: We wait this much longer, so that it is the server that ends such a statement, and reports it.
MARGIN_SECONDS = 2.0

_POSTGRESQL_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
# We notice a vanished host within about 10 s, whether we wait for its answer or for its TCP acknowledgement.
_PARAMETERS = {
    "connect_timeout": str(CONNECT_SECONDS),
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "10000",
    # No other encoding has all characters of names and of the banks' texts.
    "client_encoding": "UTF8",
}
_SETTINGS = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": "3s",
    # A frozen process must not keep others from its orders.
    "idle_in_transaction_session_timeout": "15s",
    # A claim's message is acknowledged in the queue after the commit, so that has to outlive a power cut, whatever the
    # server's default is.
    "synchronous_commit": "on",
    "timezone": "UTC",
}
# A host that libpq does not have to look up, and on which nobody listens.
_NO_HOST = "/dev/null"
_NO_CONNECTION = "connection to server"


def find_libpq_url(url: str) -> str | None:
    """The URL as PostgreSQL's client library reads it; None where it names no PostgreSQL database.

    Raises UnusableDatabaseUrl where it names a driver that is not supported.
    """
    scheme, _, rest = url.partition("://")
    if scheme in _POSTGRESQL_SCHEMES:
        return f"postgresql://{rest}"
    if scheme.partition("+")[0] in _POSTGRESQL_SCHEMES:
        raise UnusableDatabaseUrl("it names another driver than the one that there is: let it begin with postgresql://")
    return None


def require_driver() -> None:
    """Raise DriverMissing, which says how to install it, unless PostgreSQL's driver can be imported."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise DriverMissing(
            "PostgreSQL's driver is not installed: pip install --require-hashes -r requirements/postgresql.txt"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQLAccess:
    """How to connect, and what each transaction sets first."""

    #: libpq's parameters, by keyword.
    parameters: Mapping[str, str]
    #: The server's settings, by name, for one transaction at a time; none where the connection has them.
    transaction_settings: Mapping[str, str]

    @property
    def display_url(self) -> "URL":
        """A URL for SQLAlchemy to show. It has room for one host only; `parameters` are what connects."""
        from sqlalchemy.engine import URL  # slow to import, and not needed to judge a URL

        port = self.parameters.get("port", "")
        return URL.create(
            "postgresql+psycopg",
            username=self.parameters.get("user"),
            password=self.parameters.get("password"),
            host=self.parameters.get("host"),
            port=int(port) if port.isdigit() else None,
            database=self.parameters.get("dbname"),
        )


def read_postgresql_url(url: str, *, pooled: bool, application_name: str) -> PostgreSQLAccess:
    """The URL's parameters and our own limits; `application_name` is for a URL that has none. Connects to nothing.

    `pooled` means that a pooler hands sessions out per transaction. Then the server's settings, those in `options` and
    ours, go with each transaction and not with the connection. Raises DriverMissing, and UnusableDatabaseUrl, which
    quotes no secret, also for a parameter that the URL and we set to different values.
    """
    require_driver()
    theirs = _parse(url)
    _require_hosts(url, theirs)
    _require_no_clash(theirs, _PARAMETERS)
    # Our options would otherwise replace those of the environment (PGOPTIONS).
    options = theirs.get("options") or _default_options()
    settings, others = _split_options(options)
    _require_no_clash(settings, _SETTINGS)
    parameters = {**theirs, **_PARAMETERS, "fallback_application_name": application_name}
    _judge(parameters)
    if pooled:
        if others:
            raise UnusableDatabaseUrl("behind a pooler, its options may hold nothing but settings: -c name=value")
        return PostgreSQLAccess(
            parameters={**parameters, "options": ""}, transaction_settings={**settings, **_SETTINGS}
        )
    ours = [f"-c {name}={value}" for name, value in _SETTINGS.items()]
    return PostgreSQLAccess(
        parameters={**parameters, "options": " ".join([options, *ours]).strip()}, transaction_settings={}
    )


def _parse(url: str) -> dict[str, str]:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except (psycopg.Error, UnicodeError) as error:
        # Without its cause, which quotes the URL.
        raise UnusableDatabaseUrl(
            f"PostgreSQL's client library cannot read it ({_unquoted(error)}); {PERCENT_ENCODE}"
        ) from None


def _require_hosts(url: str, parameters: Mapping[str, str]) -> None:
    """A URL with nothing before its path means this machine's socket; one with a user or a port needs a host."""
    authority = url.partition("://")[2].partition("?")[0].partition("/")[0]
    hosts = parameters.get("host", "").split(",")
    if authority and not all(hosts):
        raise UnusableDatabaseUrl(f"it names no host, or one of its hosts is empty; {PERCENT_ENCODE}")
    for host in hosts:
        if not host.startswith(("/", "@")):
            try:
                host.encode("idna")  # as a question to a name server
            except UnicodeError:
                raise UnusableDatabaseUrl(f"it names a host that is none; {PERCENT_ENCODE}") from None


def _require_no_clash(theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    for name in sorted(theirs.keys() & ours.keys()):
        if _normal(theirs[name]) != _normal(ours[name]):
            raise UnusableDatabaseUrl(
                f"its {name}={theirs[name]} clashes with {name}={ours[name]}, which payment-callbacks sets itself: "
                "take it out"
            )


def _normal(value: str) -> str:
    """Makes utf-8 equal to UTF8."""
    return value.casefold().replace("-", "")


def _default_options() -> str:
    from psycopg.pq import Conninfo

    return next((option.val or b"" for option in Conninfo.get_defaults() if option.keyword == b"options"), b"").decode()


def _split_options(options: str) -> tuple[dict[str, str], list[str]]:
    """The settings in `options` by name, and its other arguments, split as PostgreSQL's server splits them."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", options)]
    settings, others = {}, []
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word += words.pop(0)
        name, equals, value = word[2:].partition("=")
        if word[:2] in ("-c", "--") and equals:
            settings[name.replace("-", "_").casefold()] = value
        else:
            others.append(word)
    return settings, others


def _judge(parameters: Mapping[str, str]) -> None:
    """Let libpq try to connect to a host that does not exist: it checks most values only then."""
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import PGconn

    hosts = ",".join(_NO_HOST for _ in parameters.get("host", "").split(","))
    attempt = {name: value for name, value in parameters.items() if name != "hostaddr"} | {"host": hosts}
    connection = PGconn.connect_start(make_conninfo("", **attempt).encode())
    said = connection.error_message.decode(errors="replace")
    connection.finish()
    if not said.startswith(_NO_CONNECTION):
        raise UnusableDatabaseUrl(f"PostgreSQL's client library refuses it ({_unquoted(said)}); {PERCENT_ENCODE}")


def _unquoted(said: object) -> str:
    """libpq's message without what it quotes of the URL, from the first quote to the last."""
    if isinstance(said, UnicodeError):
        return "not UTF-8"
    return re.sub(r'"[\s\S]*"', '"…"', str(said)).strip()
