"""Every setting: what it is, its default, and what it may be. How the file is read: `reading.py`."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from marshmallow import ValidationError, fields, validate

from service.config.schema import NOT_A_KEY, FrozenSetField, Mistake, ReadBy
from service.config.secrets import Proxy, ProxyField, Secret, SecretText, UrlField
from service.config.url_syntax import UrlMalformed, split_http_url
from service.domain.claims import Trust
from service.domain.events import DEFAULT_EVENT_TYPES, EventType

_NOT_EMPTY = validate.Length(min=1)
_TRUSTS = {"checksum": Trust.CHECKSUM, "capability": Trust.CAPABILITY, "query": Trust.QUERIED}
# A withhold is announced before the gateway is called, and its outcome recorded after.
_AROUND_A_CALL_SECONDS = 5.0
_WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105 - the convention's prefix, no secret

_PORT = r"(6553[0-5]|655[0-2]\d|65[0-4]\d{2}|6[0-4]\d{3}|[0-5]?\d{1,4})"
_HOST_AND_PORT = validate.Regexp(
    rf"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+):{_PORT}\Z", re.ASCII, error="must be host:port, the port up to 65535"
)
_SLUG = validate.Regexp(
    r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?\Z", error="must be a slug: a-z, 0-9 and inner hyphens, at most 64"
)

PositiveFloat = Annotated[float, validate.Range(min=0, min_inclusive=False)]
PositiveInteger = Annotated[int, validate.Range(min=1)]
HostAndPort = Annotated[str, _HOST_AND_PORT]
#: host:port where Prometheus reads the metrics of the role; "": nowhere.
MetricsBind = Annotated[str, _HOST_AND_PORT]
#: The name of a merchant, an endpoint or a caller.
Slug = Annotated[str, _SLUG]

_read_broker_url = partial(UrlField, schemes=("amqp", "amqps"), example="amqp://user:password@host/vhost")
_read_postgresql_url = partial(
    UrlField, schemes=("postgresql", "postgres"), example="postgresql://user:password@host/name"
)
_read_database_url = partial(_read_postgresql_url, schemes=("postgresql", "postgres", "sqlite"))


class _TrustField(fields.String):
    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        word = super()._deserialize(*args, **kwargs)
        if word not in _TRUSTS:
            raise ValidationError(f"Must be one of: {', '.join(_TRUSTS)}.")
        return _TRUSTS[word]


class _PathField(fields.String):
    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        return Path(super()._deserialize(*args, **kwargs))


def _check_token_key(key: Secret) -> None:
    if len(key.reveal().encode()) < 32:
        raise ValidationError("must have at least 32 bytes; make one with `payment-callbacks keys new`")


def _check_api_token(secret: Secret) -> None:
    token = secret.reveal()
    if len(token) < 32 or not token.isascii() or not token.isprintable() or " " in token:
        raise ValidationError(
            "must be at least 32 printable ASCII characters; make one with `payment-callbacks keys new`"
        )


def _check_time_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValidationError("is no time zone; use a name like Asia/Shanghai") from error


def _check_origin(text: str) -> None:
    try:
        url = split_http_url(text)
    except UrlMalformed as error:
        raise ValidationError(f"must be http(s)://host[:port]; it {error}") from error
    if f"{url.scheme}://{url.netloc}" != text:
        raise ValidationError("must be http(s)://host[:port], without a path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What a gateway wants to read in a 200 before it stops repeating a callback."""

    body: str = "success"
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A key that notify_url tokens of one merchant are made and checked with."""

    kid: Annotated[str, validate.Regexp(r"[A-Za-z0-9_-]{1,16}\Z", error="must be 1 to 16 of A-Z, a-z, 0-9, _ and -")]
    key: Annotated[SecretText, _check_token_key]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """How to reach the gateway in a merchant's name."""

    url: str
    ua: Annotated[str, _NOT_EMPTY]
    aes_key: SecretText
    #: Axes of `service.gateway.cipher.RequestDialect` that differ from its defaults.
    dialect: Mapping[str, str] = field(default_factory=dict)
    #: Messages with which a query's status -1 means "no such order" rather than "no answer".
    not_found_messages: Sequence[str] = ()
    #: Of a whole call, from connecting to the answer's last byte.
    timeout_seconds: PositiveFloat = 15.0
    #: Certificates in PEM that alone are trusted to vouch for the gateway; "": the system's.
    ca_certificates: str = ""
    #: None: the gateway is reached directly, whatever the environment says.
    proxy: Annotated[Proxy, ReadBy(ProxyField)] | None = None
    #: Without TLS nothing vouches for answers. Loopback addresses need no permission.
    allow_plain_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MerchantSettings:
    """One merchant at the gateway."""

    #: The name of its table.
    slug: Annotated[str, NOT_A_KEY] = ""
    pay_types: Annotated[frozenset[str], _NOT_EMPTY]
    #: "yuan" or "fen": the unit of `amount` at this gateway; the document does not say.
    amount_unit: Annotated[str, validate.OneOf(["yuan", "fen"])]
    #: None where there are no credentials: then the gateway cannot be asked.
    gateway: GatewaySettings | None = None
    #: The first one mints; both are accepted.
    token_keys: Annotated[Sequence[TokenKey], validate.Length(max=2)] = ()
    #: None: `query` where the gateway can be asked, else `capability`.
    configured_trust: Annotated[Trust, ReadBy(_TrustField, key="required_trust")] | None = None
    #: Whether a callback without a notify_url token is refused also where it would only be a reason to ask.
    require_token: bool = False
    #: Of the gateway's `pay_time`, which names none.
    time_zone: Annotated[str, _check_time_zone] = "Asia/Shanghai"
    acknowledgement: Acknowledgement = Acknowledgement()
    #: How long after it was announced an order ought to have its terminal status.
    answer_due_seconds: PositiveFloat = 600.0
    #: The least time between two questions to the gateway about one order.
    least_inquiry_interval_seconds: PositiveFloat = 10.0
    #: The most questions about one order in a day (UTC). At least two: of one alone there is nothing to share.
    most_inquiries_per_day: Annotated[int, validate.Range(min=2)] = 48
    #: The most questions about all orders, by all processes together.
    most_inquiries_per_minute: Annotated[float, validate.Range(min=1, max=60_000)] = 600.0
    #: The share of both that callbacks whose origin nobody can prove cannot take: it is kept for orders that are
    #: overdue, in conflict, of unknown outcome, or asked for by a person. Between 0 and 1.
    overdue_share: Annotated[float, validate.Range(min=0, max=1, min_inclusive=False, max_inclusive=False)] = 0.5
    #: While no answer settles an order: the first wait before it is asked for again, which doubles up to the most.
    first_inquiry_repeat_seconds: PositiveFloat = 10.0
    most_inquiry_repeat_seconds: PositiveFloat = 4 * 3600.0
    #: How long an order without an answer is asked for before it is parked for a person.
    inquiry_horizon_seconds: PositiveFloat = 7 * 86400.0

    @property
    def required_trust(self) -> Trust:
        """The least trust that changes an order of this merchant."""
        if self.configured_trust is not None:
            return self.configured_trust
        return Trust.QUERIED if self.gateway else Trust.CAPABILITY

    @property
    def liveness_trust(self) -> Trust:
        """The least trust of a callback that proves that the gateway is up. With token keys, it needs a token."""
        by_token = self.token_keys and self.required_trust > Trust.CHECKSUM
        return Trust.CAPABILITY if by_token else Trust.CHECKSUM

    def find_mistakes(self) -> Iterator[Mistake]:
        """What does not fit together."""
        if self.require_token and not self.token_keys:
            yield (
                "require_token",
                "without token_keys no callback has a token, and each would be refused; set token_keys",
            )
        if len(self.token_keys) != len({key.kid for key in self.token_keys}):
            yield "token_keys", "two keys have the same kid"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """One downstream system."""

    name: Slug
    kind: Annotated[str, validate.OneOf(["webhook", "amqp"])]
    #: Webhooks only.
    url: str = ""
    #: Webhooks only: the newest first; each signs, so that a receiver can change over.
    secrets: Annotated[Sequence[SecretText], validate.Length(min=1, max=2)] = ()
    types: Annotated[frozenset[EventType], _NOT_EMPTY] = DEFAULT_EVENT_TYPES
    #: None: every merchant's events.
    merchants: Annotated[frozenset[str], _NOT_EMPTY] | None = None
    timeout_seconds: PositiveFloat = 10.0
    max_attempts: PositiveInteger = 60
    first_retry_seconds: PositiveFloat = 1.0
    most_retry_seconds: PositiveFloat = 3600.0
    #: How many events are under way to this endpoint at once, per dispatcher process.
    concurrency: PositiveInteger = 8

    def find_mistakes(self) -> Iterator[Mistake]:
        """What does not fit its kind."""
        if self.kind == "amqp":
            for key, given in {"url": self.url, "secrets": self.secrets}.items():
                if given:
                    yield key, "belongs to webhooks; an amqp endpoint publishes to `payment.status`"
            return
        try:
            split_http_url(self.url)
        except UrlMalformed as error:
            yield "url", f"a webhook {error}"
        if not self.secrets or not all(_is_webhook_secret(secret.reveal()) for secret in self.secrets):
            yield (
                "secrets",
                "a webhook needs secrets of the form whsec_<base64 of 24 to 64 bytes>; "
                "make one with `payment-callbacks keys new --webhook`",
            )


def _is_webhook_secret(secret: str) -> bool:
    try:
        key = base64.b64decode(secret.removeprefix(_WEBHOOK_SECRET_PREFIX), validate=True)
    except binascii.Error:
        return False
    return secret.startswith(_WEBHOOK_SECRET_PREFIX) and 24 <= len(key) <= 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSettings:
    """The endpoint behind notify_url."""

    bind: HostAndPort = "127.0.0.1:8080"
    #: What the gateway reaches it by, without a path; notify_urls start with it.
    public_url: Annotated[str, _check_origin] = "http://127.0.0.1:8080"
    workers: PositiveInteger = 2
    #: How many proxies in front of it append to X-Forwarded-For; 0 believes no header.
    trusted_proxy_hops: Annotated[int, validate.Range(min=0, max=8)] = 0
    #: The longest wait for the broker's confirm; the answer follows within half a second.
    confirm_timeout_seconds: Annotated[float, validate.Range(min=0.1, max=2.0)] = 2.0
    #: A whole request must have arrived within this time.
    request_timeout_seconds: Annotated[float, validate.Range(min=0.5, max=60)] = 5.0
    #: At SIGTERM, how long requests under way may take.
    drain_seconds: PositiveFloat = 10.0
    metrics_bind: MetricsBind = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """How PostgreSQL is reached, beyond `database_url`."""

    #: Whether `database_url` names a pooler that gives out sessions for one transaction at a time.
    pooled: bool = False
    #: What migrations connect to instead: PostgreSQL itself, past the pooler. None: `database_url`.
    migrate_url: Annotated[Secret, ReadBy(_read_postgresql_url)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """RabbitMQ; without a URL, the embedded queue stands in for it."""

    #: amqp:// or amqps:// URLs of the nodes of one cluster, tried in turn.
    urls: Annotated[Sequence[Annotated[Secret, ReadBy(_read_broker_url)]], _NOT_EMPTY] = ()
    #: Publishes without a confirm yet, per process; further ones fail at once.
    max_in_flight: PositiveInteger = 1000
    prefetch: Annotated[int, validate.Range(min=1, max=2000)] = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Where callbacks are kept while RabbitMQ is away."""

    enabled: bool = False
    max_bytes: Annotated[int, validate.Range(min=64 * 1024)] = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """The consumer that writes the ledger."""

    batch_size: Annotated[int, validate.Range(min=1, max=1000)] = 250
    #: The pause before a batch that the database did not take is tried again; doubles up to the most.
    first_retry_seconds: PositiveFloat = 0.5
    most_retry_seconds: PositiveFloat = 15.0
    #: How long a forged order is kept: one of which only strangers spoke, and which the gateway does not have.
    forged_order_days: Annotated[int, validate.Range(min=1, max=36_500)] = 30
    #: How many of them are kept of each merchant; of more, the oldest go early.
    most_forged_orders: Annotated[int, validate.Range(min=0)] = 100_000
    metrics_bind: MetricsBind = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherSettings:
    """The consumer that tells downstream."""

    poll_seconds: PositiveFloat = 0.25
    #: How long a claimed event is ours; at least twice any endpoint's time limit, and up to five times it pays.
    lease_seconds: PositiveFloat = 60.0
    metrics_bind: MetricsBind = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InquirerSettings:
    """The consumer that asks the gateways."""

    #: Questions under way at once, per merchant and process.
    concurrency: Annotated[int, validate.Range(min=1, max=16)] = 4
    poll_seconds: PositiveFloat = 0.5
    #: How long a claimed inquiry is ours; at least twice any gateway's time limit.
    lease_seconds: PositiveFloat = 60.0
    metrics_bind: MetricsBind = ""


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

    name: Slug
    token: Annotated[SecretText, _check_api_token]
    #: Without a default: whoever lets a caller in has to say what it may do, and one of the scopes makes orders paid.
    scopes: Annotated[
        frozenset[ApiScope],
        _NOT_EMPTY,
        ReadBy(
            partial(
                FrozenSetField,
                fields.Enum(ApiScope, by_value=True),
                error_messages={"required": f"is needed, with some of: {', '.join(ApiScope)}"},
            )
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The internal API: orders announced, sent, shown and resolved. Not for the public side of any proxy."""

    bind: HostAndPort = "127.0.0.1:8081"
    #: Who may call it; nobody by default, and then `run all` leaves it out.
    tokens: Annotated[Sequence[ApiToken], _NOT_EMPTY] = ()
    workers: PositiveInteger = 2
    threads: PositiveInteger = 8
    #: At SIGTERM, how long requests under way may take; at least 5 more than any gateway's timeout_seconds.
    drain_seconds: PositiveFloat = 20.0

    def find_mistakes(self) -> Iterator[Mistake]:
        """What two callers have in common that only one may have."""
        if len(self.tokens) != len({token.name for token in self.tokens}):
            yield "tokens", "two of them have the same name"
        if len(self.tokens) != len({token.token for token in self.tokens}):
            yield "tokens", "two of them have the same token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything, checked."""

    merchants: Annotated[Mapping[Slug, MerchantSettings], _NOT_EMPTY]
    endpoints: Sequence[EndpointSettings] = ()
    #: Where the embedded queue, the embedded ledger and the spool keep their files. A local disk.
    data_directory: Annotated[Path, ReadBy(_PathField)] = Path("data")
    #: PostgreSQL's URL as libpq reads it, or sqlite:///...; None: SQLite in the data directory.
    database_url: Annotated[Secret, ReadBy(_read_database_url)] | None = None
    database: DatabaseSettings = DatabaseSettings()
    receiver: ReceiverSettings = ReceiverSettings()
    broker: BrokerSettings = BrokerSettings()
    spool: SpoolSettings = SpoolSettings()
    ledger: LedgerSettings = LedgerSettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    inquirer: InquirerSettings = InquirerSettings()
    api: ApiSettings = ApiSettings()

    def find_mistakes(self) -> Iterator[Mistake]:
        """What does not fit together in different sections."""
        if self.database != DatabaseSettings() and not self.database_url:
            yield "database", "has no effect without database_url, which names PostgreSQL"
        names = [endpoint.name for endpoint in self.endpoints]
        for name in {name for name in names if names.count(name) > 1}:
            yield "endpoints", f"two endpoints are called `{name}`"
        for endpoint in self.endpoints:
            for slug in (endpoint.merchants or frozenset()) - set(self.merchants):
                yield "endpoints", f"`{endpoint.name}` names the unknown merchant `{slug}`"
            if endpoint.kind == "amqp" and not self.broker.urls:
                yield "endpoints", f"`{endpoint.name}` is of kind amqp, and no broker.urls are set"
            if self.dispatcher.lease_seconds < endpoint.timeout_seconds * 2:
                yield (
                    "dispatcher.lease_seconds",
                    f"must be at least twice every endpoint's timeout_seconds (`{endpoint.name}`)",
                )
        for slug, merchant in self.merchants.items():
            if merchant.gateway:
                yield from self._find_short_times(slug, merchant.gateway.timeout_seconds)

    def _find_short_times(self, slug: str, timeout_seconds: float) -> Iterator[Mistake]:
        if self.inquirer.lease_seconds < timeout_seconds * 2:
            yield (
                "inquirer.lease_seconds",
                f"must be at least twice every merchant's gateway.timeout_seconds (`{slug}`)",
            )
        if self.api.tokens and self.api.drain_seconds < timeout_seconds + _AROUND_A_CALL_SECONDS:
            yield (
                "api.drain_seconds",
                f"must be at least {_AROUND_A_CALL_SECONDS:g} more than the gateway.timeout_seconds of "
                f"every merchant (`{slug}`): a withhold that is under way at SIGTERM has to end",
            )

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
