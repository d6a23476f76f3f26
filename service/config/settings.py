"""What an operator can set, as values. How it is read from a file: `settings_file.py`, `settings_schemas.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from service.domain.claims import Trust
from service.domain.events import DEFAULT_EVENT_TYPES, EventType


class Secret:
    """A secret that no log, traceback or dump shows; `reveal()` where it is used."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What a gateway wants to read in a 200 before it stops repeating a callback."""

    body: str = "success"
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A key that notify_url tokens of one merchant are made and checked with."""

    kid: str
    key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy that is spoken to without TLS."""

    host: str
    port: int
    #: `user:password`, as its Basic authentication wants them; None where it asks for none.
    credentials: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """How to reach the gateway in a merchant's name."""

    url: str
    ua: str
    aes_key: Secret
    #: Axes of `service.gateway.cipher.RequestDialect` that differ from its defaults.
    dialect: Mapping[str, str] = field(default_factory=dict)
    #: Messages with which a query's status -1 means "no such order" rather than "no answer".
    not_found_messages: Sequence[str] = ()
    #: Of a whole call, from connecting to the answer's last byte.
    timeout_seconds: float = 15.0
    #: Certificates in PEM that alone are trusted to vouch for the gateway; "": the system's.
    ca_certificates: str = ""
    #: None: the gateway is reached directly, whatever the environment says.
    proxy: Proxy | None = None
    #: Without TLS nothing vouches for answers. Loopback addresses need no permission.
    allow_plain_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MerchantSettings:
    """One merchant at the gateway."""

    slug: str
    pay_types: frozenset[str]
    #: "yuan" or "fen": the unit of `amount` at this gateway; the document does not say.
    amount_unit: str
    #: None where there are no credentials: then the gateway cannot be asked.
    gateway: GatewaySettings | None = None
    #: The first one mints; both are accepted.
    token_keys: Sequence[TokenKey] = ()
    #: None: `query` where the gateway can be asked, else `capability`.
    configured_trust: Trust | None = None
    #: Whether a callback without a notify_url token is refused also where it would only be a reason to ask.
    require_token: bool = False
    #: Of the gateway's `pay_time`, which names none.
    time_zone: str = "Asia/Shanghai"
    acknowledgement: Acknowledgement = Acknowledgement()
    #: How long after it was announced an order ought to have its terminal status.
    answer_due_seconds: float = 600.0
    #: The least time between two questions to the gateway about one order.
    least_inquiry_interval_seconds: float = 10.0
    #: The most questions about one order in a day (UTC).
    most_inquiries_per_day: int = 48
    #: The most questions about all orders, by all processes together.
    most_inquiries_per_minute: float = 600.0
    #: The share of both that callbacks whose origin nobody can prove cannot take: it is kept for orders that are
    #: overdue, in conflict, of unknown outcome, or asked for by a person. Between 0 and 1.
    overdue_share: float = 0.5
    #: While no answer settles an order: the first wait before it is asked for again, which doubles up to the most.
    first_inquiry_repeat_seconds: float = 10.0
    most_inquiry_repeat_seconds: float = 4 * 3600.0
    #: How long an order without an answer is asked for before it is parked for a person.
    inquiry_horizon_seconds: float = 7 * 86400.0

    @property
    def required_trust(self) -> Trust:
        """The least trust that changes an order of this merchant."""
        if self.configured_trust is not None:
            return self.configured_trust
        return Trust.QUERIED if self.gateway else Trust.CAPABILITY

    @property
    def least_telling_trust(self) -> Trust:
        """The least trust of a callback that tells that the gateway speaks: it must have come by a token, if any do."""
        by_token = self.token_keys and self.required_trust > Trust.CHECKSUM
        return Trust.CAPABILITY if by_token else Trust.CHECKSUM


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """One downstream system."""

    name: str
    #: "webhook" or "amqp".
    kind: str
    #: Webhooks only.
    url: str = ""
    #: Webhooks only: the newest first; each signs, so that a receiver can change over.
    secrets: Sequence[Secret] = ()
    types: frozenset[EventType] = DEFAULT_EVENT_TYPES
    #: None: every merchant's events.
    merchants: frozenset[str] | None = None
    timeout_seconds: float = 10.0
    max_attempts: int = 60
    first_retry_seconds: float = 1.0
    most_retry_seconds: float = 3600.0
    #: How many events are under way to this endpoint at once, per dispatcher process.
    concurrency: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSettings:
    """The endpoint behind notify_url."""

    bind: str = "127.0.0.1:8080"
    #: What the gateway reaches it by, without a path; notify_urls start with it.
    public_url: str = "http://127.0.0.1:8080"
    workers: int = 2
    #: How many proxies in front of it append to X-Forwarded-For; 0 believes no header.
    trusted_proxy_hops: int = 0
    #: The longest wait for the broker's confirm; the answer follows within half a second.
    confirm_timeout_seconds: float = 2.0
    #: A whole request must have arrived within this time.
    request_timeout_seconds: float = 5.0
    #: At SIGTERM, how long requests under way may take.
    drain_seconds: float = 10.0
    #: host:port where Prometheus reads the receiver's metrics; "": nowhere.
    metrics_bind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """How PostgreSQL is reached, beyond `database_url`."""

    #: Whether `database_url` names a pooler that gives out sessions for one transaction at a time.
    pooled: bool = False
    #: What migrations connect to instead: PostgreSQL itself, past the pooler. None: `database_url`.
    migrate_url: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """RabbitMQ; without a URL, the embedded queue stands in for it."""

    #: amqp:// or amqps:// URLs of the nodes of one cluster, tried in turn.
    urls: Sequence[Secret] = ()
    #: Publishes without a confirm yet, per process; further ones fail at once.
    max_in_flight: int = 1000
    prefetch: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Where callbacks are kept while RabbitMQ is away."""

    enabled: bool = False
    max_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """The consumer that writes the ledger."""

    batch_size: int = 250
    #: The pause before a batch that the database did not take is tried again; doubles up to the most.
    first_retry_seconds: float = 0.5
    most_retry_seconds: float = 15.0
    #: How long a forged order is kept: one of which only strangers spoke, and which the gateway does not have.
    forged_order_days: int = 30
    #: How many of them are kept of each merchant; of more, the oldest go early.
    most_forged_orders: int = 100_000
    #: host:port where Prometheus reads the ledger's metrics; "": nowhere.
    metrics_bind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherSettings:
    """The consumer that tells downstream."""

    poll_seconds: float = 0.25
    #: How long a claimed event is ours; at least twice any endpoint's time limit, and up to five times it pays.
    lease_seconds: float = 60.0
    #: host:port where Prometheus reads the dispatcher's metrics; "": nowhere.
    metrics_bind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InquirerSettings:
    """The consumer that asks the gateways."""

    #: Questions under way at once, per merchant and process.
    concurrency: int = 4
    poll_seconds: float = 0.5
    #: How long a claimed inquiry is ours; at least twice any gateway's time limit.
    lease_seconds: float = 60.0
    #: host:port where Prometheus reads the inquirer's metrics; "": nowhere.
    metrics_bind: str = ""


class ApiScope(StrEnum):
    """What a caller of the internal API may do. None includes another."""

    #: List orders, and see everything that happened around one.
    READ = "read"
    ANNOUNCE = "announce"
    #: Announce an order and have a card charged for it.
    WITHHOLD = "withhold"
    #: Bind cards.
    CARDS = "cards"
    #: Have the gateway asked.
    INQUIRE = "inquire"
    #: Decide an order's status in a person's name: downstream takes it for paid.
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """What one caller of the internal API shows, and what it may do; its name is kept with what it does."""

    name: str
    token: Secret
    scopes: frozenset[ApiScope]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The internal API: orders announced, sent, shown and resolved. Not for the public side of any proxy."""

    bind: str = "127.0.0.1:8081"
    #: Who may call it; nobody by default, and then `run all` leaves it out.
    tokens: Sequence[ApiToken] = ()
    workers: int = 2
    threads: int = 8
    #: At SIGTERM, how long requests under way may take; at least 5 more than any gateway's timeout_seconds.
    drain_seconds: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything, checked."""

    merchants: Mapping[str, MerchantSettings]
    endpoints: Sequence[EndpointSettings] = ()
    #: Where the embedded queue, the embedded ledger and the spool keep their files. A local disk.
    data_directory: Path = Path("data")
    #: PostgreSQL's URL as libpq reads it, or sqlite:///...; None: SQLite in the data directory.
    database_url: Secret | None = None
    database: DatabaseSettings = DatabaseSettings()
    receiver: ReceiverSettings = ReceiverSettings()
    broker: BrokerSettings = BrokerSettings()
    spool: SpoolSettings = SpoolSettings()
    ledger: LedgerSettings = LedgerSettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    inquirer: InquirerSettings = InquirerSettings()
    api: ApiSettings = ApiSettings()

    def warnings(self) -> list[str]:
        """What is allowed and yet worth a second look; said at start and by `config check`."""
        found = []
        for merchant in self.merchants.values():
            where = f"merchants.{merchant.slug}"
            if merchant.required_trust is Trust.CHECKSUM:
                found.append(
                    f"{where}.required_trust is `checksum`: the callback's sign has no secret, so anyone who can "
                    "reach the receiver can mark any order paid. Use `capability` or `query`."
                )
            if merchant.required_trust is Trust.CAPABILITY and not merchant.token_keys:
                found.append(f"{where} requires `capability` and has no token_keys: every callback is refused.")
            if merchant.required_trust is Trust.QUERIED and not merchant.gateway:
                found.append(f"{where} requires `query` and has no gateway to ask: no order will ever change.")
            if merchant.gateway and merchant.gateway.allow_plain_http:
                found.append(
                    f"{where}.gateway.allow_plain_http: whoever is on the way to the gateway can read personal data "
                    "and answer that any order is paid."
                )
        for endpoint in self.endpoints:
            terminal = endpoint.types & {EventType.SUCCEEDED, EventType.FAILED}
            if terminal and EventType.CORRECTED not in endpoint.types:
                found.append(
                    f"endpoints.{endpoint.name} takes {', '.join(sorted(terminal))} but not payment.corrected: "
                    "it would never hear that one of them was wrong."
                )
        if self.spool.enabled and not self.broker.urls:
            found.append("spool.enabled has no effect on the embedded queue, which is a file itself.")
        return found
