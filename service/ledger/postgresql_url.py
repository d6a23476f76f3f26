"""PostgreSQL's URL, read by libpq, and what every connection of ours adds to it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo, PGconn

from service.config.url_syntax import PERCENT_ENCODE
from service.ledger.errors import UnusableDatabaseUrl
from service.ledger.limits import STATEMENT_SECONDS

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

CONNECT_SECONDS = 5

# A host that vanished without a word is noticed within about 10 s, whether we wait for its answer or for its ack.
_PARAMETERS = {
    "connect_timeout": str(CONNECT_SECONDS),
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "10000",
    # Names and banks' words could not be sent in another.
    "client_encoding": "UTF8",
}
_SETTINGS = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": "3s",
    # A frozen process must not keep others from its orders.
    "idle_in_transaction_session_timeout": "15s",
    "timezone": "UTC",
}
# A host that libpq does not have to look up, and that nobody listens on.
_NO_HOST = "/dev/null"
_NO_CONNECTION = "connection to server"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQLAccess:
    """How to connect, and what each transaction sets first."""

    #: libpq's parameters, by keyword.
    parameters: Mapping[str, str]
    #: The server's settings, by name, for one transaction at a time; none where the connection has them.
    transaction_settings: Mapping[str, str]

    @property
    def display_url(self) -> "URL":
        """For SQLAlchemy to show. It has a part for one host alone, and `parameters` are what connects."""
        from sqlalchemy.engine import URL  # here: commands that only judge the URL are spared its import

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
    """What the URL says, with our own limits added; `application_name` is for a URL that has none. Connects to nothing.

    Behind a pooler that is `pooled` by transaction, the server's settings in `options` go with each transaction, as
    ours do, and none with the connection. Raises UnusableDatabaseUrl, which quotes no secret, also for a parameter that
    the URL and we set to different values.
    """
    theirs = _parse(url)
    _require_hosts(url, theirs)
    _require_no_clash(theirs, _PARAMETERS)
    # What the environment says (PGOPTIONS) would be replaced, too.
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
    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except (psycopg.Error, UnicodeError) as error:
        # Without its cause, which quotes the URL.
        raise UnusableDatabaseUrl(
            f"PostgreSQL's client library cannot read it ({_unquoted(error)}); {PERCENT_ENCODE}"
        ) from None


def _require_hosts(url: str, parameters: Mapping[str, str]) -> None:
    """A URL without anything before its path is for the socket of this machine; one with a user or a port is not."""
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
    """So that utf-8 is UTF8."""
    return value.casefold().replace("-", "")


def _default_options() -> str:
    return next((option.val or b"" for option in Conninfo.get_defaults() if option.keyword == b"options"), b"").decode()


def _split_options(options: str) -> tuple[dict[str, str], list[str]]:
    """The settings in the command line `options` by name, and its other words, as PostgreSQL's server splits them."""
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
    """libpq looks at most values only when it connects: so let it try, at a host that is none."""
    hosts = ",".join(_NO_HOST for _ in parameters.get("host", "").split(","))
    attempt = {name: value for name, value in parameters.items() if name != "hostaddr"} | {"host": hosts}
    connection = PGconn.connect_start(make_conninfo("", **attempt).encode())
    said = connection.error_message.decode(errors="replace")
    connection.finish()
    if not said.startswith(_NO_CONNECTION):
        raise UnusableDatabaseUrl(f"PostgreSQL's client library refuses it ({_unquoted(said)}); {PERCENT_ENCODE}")


def _unquoted(said: object) -> str:
    """libpq's words without what it quotes of the URL, from the first quote to the last."""
    if isinstance(said, UnicodeError):
        return "not UTF-8"
    return re.sub(r'"[\s\S]*"', '"…"', str(said)).strip()
