"""Every setting of the service, declared once: key, default, allowed values and meaning.

Those of endpoints are in `endpoints.py`. `schema.py` makes the schemas from these classes, `reading.py` reads the file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from marshmallow import ValidationError, fields, validate

from service.config.endpoints import AnyEndpoint
from service.config.schema import NOT_A_KEY, FrozenSetField, Mistake, PositiveFloat, PositiveInteger, ReadBy, Slug
from service.config.secrets import Proxy, ProxyField, Secret, SecretText, UrlField
from service.config.url_syntax import UrlMalformed, split_http_url
from service.domain.claims import IdentityField, Trust
from service.domain.events import EventType
from service.domain.money import read_money
from service.domain.order_numbers import may_be_card_number

_NOT_EMPTY = validate.Length(min=1)
_TRUSTS = {"checksum": Trust.CHECKSUM, "capability": Trust.CAPABILITY, "query": Trust.QUERIED}
# How long a withhold takes beside the call to the gateway: it is announced before, and its outcome recorded after.
_AROUND_A_CALL_SECONDS = 5.0
# What the document names in a callback.
_DOCUMENTED_FIELDS = (
    "biz_order_no",
    "pay_order_no",
    "order_type",
    "pay_type",
    "pay_status",
    "pay_time",
    "channel_response",
    "sign",
)
_PORT = r"(6553[0-5]|655[0-2]\d|65[0-4]\d{2}|6[0-4]\d{3}|[0-5]?\d{1,4})"
_HOST_AND_PORT = validate.Regexp(
    rf"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+):{_PORT}\Z", re.ASCII, error="must be host:port, the port up to 65535"
)
_PERSON = validate.Regexp(
    r"(?!\s)[^\x00-\x1f\x7f]{1,100}(?<!\s)\Z", error="must be 1 to 100 characters on one line, with no blank at an end"
)
AmountUnit = Annotated[str, validate.OneOf(["yuan", "fen"])]
HostAndPort = Annotated[str, _HOST_AND_PORT]
#: host:port where Prometheus reads the metrics of the role; "": nowhere.
MetricsBind = Annotated[str, _HOST_AND_PORT]

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


class _PatternField(fields.String):
    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return re.compile(super()._deserialize(*args, **kwargs), re.ASCII)
        except re.error as error:
            raise ValidationError(f"is not a regular expression: {error}") from error


class _PathField(fields.String):
    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        return Path(super()._deserialize(*args, **kwargs))


def _check_key(key: Secret) -> None:
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
        raise ValidationError("is not a time zone; use a name like Asia/Shanghai") from error


def _check_origin(text: str) -> None:
    try:
        url = split_http_url(text)
    except UrlMalformed as error:
        raise ValidationError(f"must be http(s)://host[:port]; it {error}") from error
    if f"{url.scheme}://{url.netloc}" != text:
        raise ValidationError("must be http(s)://host[:port], without a path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The body of a 200 response that the gateway takes for an acknowledgement. It repeats callbacks until then."""

    body: str = "success"
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A key that signs and verifies the notify_url tokens of one merchant."""

    kid: Annotated[str, validate.Regexp(r"[A-Za-z0-9_-]{1,16}\Z", error="must be 1 to 16 of A-Z, a-z, 0-9, _ and -")]
    key: Annotated[SecretText, _check_key]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """How a merchant's gateway is called."""

    url: str
    ua: Annotated[str, _NOT_EMPTY]
    aes_key: SecretText
    #: Attributes of `service.gateway.cipher.RequestDialect` that differ from their defaults.
    dialect: Mapping[str, str] = field(default_factory=dict)
    #: If a query is answered -1 with one of these messages, the order does not exist.
    not_found_messages: Sequence[str] = ()
    #: For a whole call, from connecting to the last byte of the answer.
    timeout_seconds: PositiveFloat = 15.0
    #: The CA certificates that are trusted for the gateway, in PEM. "": those of the system.
    ca_certificates: str = ""
    #: None: calls go directly to the gateway. Variables such as HTTPS_PROXY are ignored.
    proxy: Annotated[Proxy, ReadBy(ProxyField)] | None = None
    #: Without TLS, anyone on the network path can forge answers. Loopback addresses are always allowed.
    allow_plain_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountField:
    """The field in which a gateway states an order's amount, beyond its document."""

    name: Annotated[
        str,
        _NOT_EMPTY,
        validate.NoneOf(_DOCUMENTED_FIELDS, error="is a field of the gateway's document, which has no amount"),
    ]
    #: It has no default: the unit may differ from that of the amounts that we send.
    unit: AmountUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedWithholdSettings:
    """By which rules an order ends whose withhold the gateway answered with -1.

    That is no proof: each rule needs the word of the gateway's staff, or a contract.
    """

    #: Whole messages with which the gateway surely refuses for good.
    messages: frozenset[str] = frozenset()
    #: How often the gateway has to answer that it does not have the order; None: that never ends one.
    not_found_times: Annotated[int, validate.Range(min=8)] | None = None
    #: How long these answers have to take, from the refusal on.
    not_found_hours: Annotated[float, validate.Range(min=24)] = 24.0
    #: The most orders that the rules end in an hour.
    max_per_hour: PositiveInteger = 20

    def find_mistakes(self) -> Iterator[Mistake]:
        """Find that no rule is on."""
        if not self.messages and self.not_found_times is None:
            yield "messages", "names no rule; set messages or not_found_times, or leave out refused_withholds"


@dataclass(frozen=True, slots=True, kw_only=True)
class MerchantSettings:
    """One merchant at the gateway."""

    #: The name of the merchant's table in the file.
    slug: Annotated[str, NOT_A_KEY] = ""
    pay_types: Annotated[frozenset[str], _NOT_EMPTY]
    #: The unit of `amount` at this gateway. The gateway's document does not name it.
    amount_unit: AmountUnit
    #: Where callbacks and answers state the amount; None: the gateway states none.
    amount_field: AmountField | None = None
    #: In which fields two claims about one payment must not differ.
    identity_fields: frozenset[IdentityField] = frozenset(IdentityField)
    #: None: there are no credentials, so the gateway cannot be queried.
    gateway: GatewaySettings | None = None
    #: The first one signs new tokens. Tokens of both are accepted.
    token_keys: Annotated[Sequence[TokenKey], validate.Length(max=2)] = ()
    #: None: `query` if the gateway can be queried, else `capability`.
    configured_trust: Annotated[Trust, ReadBy(_TrustField, key="required_trust")] | None = None
    #: Refuse callbacks without a notify_url token, even where they would only be a reason to query the gateway.
    require_token: bool = False
    #: The time zone of the gateway's `pay_time`, which names none.
    time_zone: Annotated[str, _check_time_zone] = "Asia/Shanghai"
    acknowledgement: Acknowledgement = Acknowledgement()
    #: An order without a terminal status is overdue this long after it was announced.
    answer_due_seconds: PositiveFloat = 600.0
    #: The least time between two queries of one order.
    min_inquiry_interval_seconds: PositiveFloat = 10.0
    #: The most queries of one order in a day (UTC). `overdue_share` divides them, so there have to be two.
    max_inquiries_per_day: Annotated[int, validate.Range(min=2)] = 48
    #: The most queries of all orders, by all processes together.
    max_inquiries_per_minute: Annotated[float, validate.Range(min=1, max=60_000)] = 600.0
    #: The share of both limits that callbacks of unproven origin cannot use. It is reserved for orders that are
    #: overdue, in conflict, of unknown outcome, or queried by a person. Between 0 and 1.
    overdue_share: Annotated[float, validate.Range(min=0, max=1, min_inclusive=False, max_inclusive=False)] = 0.5
    #: The wait before the next query while no answer settles the order. It doubles each time, up to the most.
    first_inquiry_repeat_seconds: PositiveFloat = 10.0
    max_inquiry_repeat_seconds: PositiveFloat = 4 * 3600.0
    #: An order without an answer is parked for a person after this time.
    inquiry_horizon_seconds: PositiveFloat = 7 * 86400.0
    #: By which rules the orders of refused withholds end; None: only a claim or a person ends them.
    refused_withholds: RefusedWithholdSettings | None = None
    #: Above this amount (an exact one, in `amount_unit`), for an unknown amount, to `succeeded` and to change a final
    #: status, a second person has to confirm a resolution. None: no second person is needed.
    second_person_above: str | None = None
    #: A regular expression for whole order numbers. One that matches is never taken for a bank card number. None: an
    #: order number that may be one is masked in logs.
    order_number_pattern: Annotated[re.Pattern[str], ReadBy(_PatternField)] | None = None

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

    def may_be_card_number(self, order_no: str) -> bool:
        """Whether an order number has the form of a bank card number, and not that of this merchant's numbers."""
        pattern = self.order_number_pattern
        return may_be_card_number(order_no) and (pattern is None or not pattern.fullmatch(order_no))

    def find_mistakes(self) -> Iterator[Mistake]:
        """Find settings that contradict each other."""
        if self.require_token and not self.token_keys:
            yield (
                "require_token",
                "without token_keys no callback has a token, and each would be refused; set token_keys",
            )
        if self.amount_field and IdentityField.AMOUNT not in self.identity_fields:
            yield "amount_field", "has no effect unless identity_fields names `amount`"
        if len(self.token_keys) != len({key.kid for key in self.token_keys}):
            yield "token_keys", "two keys have the same kid"
        if self.second_person_above is not None and read_money(self.second_person_above, self.amount_unit) is None:
            yield "second_person_above", f'must be an exact amount in {self.amount_unit}, as text, such as "10000"'
        if self.refused_withholds:
            yield from self._find_unusable_rules(self.refused_withholds)

    def _find_unusable_rules(self, rules: RefusedWithholdSettings) -> Iterator[Mistake]:
        if self.gateway is None:
            yield "refused_withholds", "has no effect without a gateway, since no withhold is sent"
        elif rules.not_found_times is not None and not self.gateway.not_found_messages:
            yield "refused_withholds", "not_found_times counts nothing unless gateway.not_found_messages names messages"
        if rules.not_found_times is not None and rules.not_found_hours * 3600 >= self.inquiry_horizon_seconds:
            yield "refused_withholds", "not_found_hours must be less than inquiry_horizon_seconds, when inquiries end"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSettings:
    """The endpoint behind notify_url."""

    bind: HostAndPort = "127.0.0.1:8080"
    #: The URL, without a path, at which the gateway reaches the receiver. notify_urls start with it.
    public_url: Annotated[str, _check_origin] = "http://127.0.0.1:8080"
    workers: PositiveInteger = 2
    #: How many proxies in front of it append to X-Forwarded-For. 0: the header is ignored.
    trusted_proxy_hops: Annotated[int, validate.Range(min=0, max=8)] = 0
    #: The longest wait for the broker's confirm. The receiver answers within half a second after it.
    confirm_timeout_seconds: Annotated[float, validate.Range(min=0.1, max=2.0)] = 2.0
    #: The longest time in which a whole request must arrive.
    request_timeout_seconds: Annotated[float, validate.Range(min=0.5, max=60)] = 5.0
    #: How long requests may still take after SIGTERM.
    drain_seconds: PositiveFloat = 10.0
    metrics_bind: MetricsBind = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """How PostgreSQL is reached, beyond `database_url`."""

    #: Whether `database_url` names a pooler in transaction mode.
    pooled: bool = False
    #: The URL for migrations: PostgreSQL itself instead of the pooler. None: `database_url`.
    migrate_url: Annotated[Secret, ReadBy(_read_postgresql_url)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """RabbitMQ. Without a URL, the embedded queue is used."""

    #: amqp:// or amqps:// URLs of the nodes of one cluster. They are tried in turn.
    urls: Annotated[Sequence[Annotated[Secret, ReadBy(_read_broker_url)]], _NOT_EMPTY] = ()
    #: The most unconfirmed publishes per process. Further ones fail at once.
    max_in_flight: PositiveInteger = 1000
    prefetch: Annotated[int, validate.Range(min=1, max=2000)] = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """The file that keeps callbacks while RabbitMQ is away."""

    enabled: bool = False
    max_bytes: Annotated[int, validate.Range(min=64 * 1024)] = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """The consumer that writes the ledger."""

    batch_size: Annotated[int, validate.Range(min=1, max=1000)] = 250
    #: The wait before a batch that failed is tried again. It doubles each time, up to the most.
    initial_retry_seconds: PositiveFloat = 0.5
    max_retry_seconds: PositiveFloat = 15.0
    #: How long a forged order is kept: it has only claims of unproven origin, and the gateway does not have it.
    forged_order_days: Annotated[int, validate.Range(min=1, max=36_500)] = 30
    #: The most forged orders that are kept per merchant. The oldest are removed first.
    max_forged_orders: Annotated[int, validate.Range(min=0)] = 100_000
    metrics_bind: MetricsBind = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherSettings:
    """The consumer that delivers events to the endpoints."""

    poll_seconds: PositiveFloat = 0.25
    #: How long a delivery is leased: at least twice every endpoint's time limit. Five times is better.
    lease_seconds: PositiveFloat = 60.0
    metrics_bind: MetricsBind = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InquirerSettings:
    """The consumer that queries the gateways."""

    #: The most queries at once, per merchant and process.
    concurrency: Annotated[int, validate.Range(min=1, max=16)] = 4
    poll_seconds: PositiveFloat = 0.5
    #: How long an inquiry is leased: at least twice every gateway's time limit.
    lease_seconds: PositiveFloat = 60.0
    metrics_bind: MetricsBind = ""


class ApiScope(StrEnum):
    """What a caller of the internal API may do. No scope includes another."""

    #: List orders, and see the history of one.
    READ = "read"
    ANNOUNCE = "announce"
    #: Announce an order and have a card charged for it.
    WITHHOLD = "withhold"
    #: Bind cards.
    CARDS = "cards"
    #: Query the gateway about an order.
    INQUIRE = "inquire"
    #: Pause and resume endpoints, and have events delivered again.
    OPERATE = "operate"
    #: Decide an order's status in a person's name, such as that it is paid.
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """The token of one caller of the internal API, and its scopes. Its name is recorded with what it does."""

    name: Slug
    token: Annotated[SecretText, _check_api_token]
    #: Required: one of the scopes can make an order paid, so each caller's have to be chosen.
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
    #: Who uses it, if that is one person: what tells this person from all others, alike in every token of this person.
    person: Annotated[str, _PERSON] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The internal API, which announces, sends, shows and resolves orders. It must not be public."""

    bind: HostAndPort = "127.0.0.1:8081"
    #: Its callers. Without any, `run all` does not start it.
    tokens: Annotated[Sequence[ApiToken], _NOT_EMPTY] = ()
    workers: PositiveInteger = 2
    threads: PositiveInteger = 8
    #: How long requests may still take after SIGTERM: at least 5 more than every gateway's timeout_seconds.
    drain_seconds: PositiveFloat = 20.0

    def find_mistakes(self) -> Iterator[Mistake]:
        """Find names and tokens that are not unique."""
        if len(self.tokens) != len({token.name for token in self.tokens}):
            yield "tokens", "two of them have the same name"
        if len(self.tokens) != len({token.token for token in self.tokens}):
            yield "tokens", "two of them have the same token"


def _check_network(text: str) -> None:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValidationError("must be a network like 10.0.0.0/8, without bits set behind its prefix") from error


#: The scopes of each group of people; "*" is everybody who has signed in.
Groups = Annotated[Mapping[str, frozenset[ApiScope]], _NOT_EMPTY]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """Signing in to the console through a proxy that authenticates people and names them in a header."""

    #: Where the proxy is. From anywhere else, its headers are ignored.
    networks: Annotated[Sequence[Annotated[str, _check_network]], _NOT_EMPTY]
    user_header: str = "X-Forwarded-User"
    #: Names of groups, separated by commas.
    groups_header: str = "X-Forwarded-Groups"
    groups: Groups


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIdSettings:
    """Signing in to the console through OpenID Connect."""

    #: Its configuration is read from `<issuer>/.well-known/openid-configuration`.
    issuer: Annotated[str, validate.URL(require_tld=False, schemes={"http", "https"})]
    client_id: str
    client_secret: SecretText
    #: The claim of the ID token that lists a person's groups.
    groups_claim: str = "groups"
    groups: Groups


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSettings:
    """The operators' console, for browsers. It must not be public."""

    bind: HostAndPort = "127.0.0.1:8082"
    #: The address at which browsers reach it, without a path.
    public_url: Annotated[str, _check_origin] = "http://127.0.0.1:8082"
    #: Sign the cookies of sessions: the first one new cookies, and each one is accepted. Without any, `run all` does
    #: not start the console.
    session_keys: Annotated[Sequence[Annotated[SecretText, _check_key]], validate.Length(min=1, max=2)] = ()
    #: A session ends after this time without a request by its person, and in any case after `max_session_seconds`.
    max_idle_seconds: PositiveFloat = 1800.0
    max_session_seconds: PositiveFloat = 43200.0
    #: What people see until they choose another.
    language: Annotated[str, validate.OneOf(["en", "zh"])] = "en"
    time_zone: Annotated[str, _check_time_zone] = "Asia/Shanghai"
    openid: OpenIdSettings | None = None
    proxy: ProxySettings | None = None
    workers: PositiveInteger = 1
    threads: PositiveInteger = 8
    #: How long requests may still take after SIGTERM.
    drain_seconds: PositiveFloat = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked."""

    merchants: Annotated[Mapping[Slug, MerchantSettings], _NOT_EMPTY]
    endpoints: Sequence[AnyEndpoint] = ()
    #: The folder of the embedded queue, the embedded ledger and the spool, on a local disk.
    data_directory: Annotated[Path, ReadBy(_PathField)] = Path("data")
    #: A URL of PostgreSQL, as libpq reads it, or sqlite:///... None: SQLite in the data directory.
    database_url: Annotated[Secret, ReadBy(_read_database_url)] | None = None
    database: DatabaseSettings = DatabaseSettings()
    receiver: ReceiverSettings = ReceiverSettings()
    broker: BrokerSettings = BrokerSettings()
    spool: SpoolSettings = SpoolSettings()
    ledger: LedgerSettings = LedgerSettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    inquirer: InquirerSettings = InquirerSettings()
    api: ApiSettings = ApiSettings()
    console: ConsoleSettings = ConsoleSettings()

    @property
    def order_number_patterns(self) -> Mapping[str, re.Pattern[str]]:
        """The patterns of those merchants that have one, by merchant."""
        return {slug: m.order_number_pattern for slug, m in self.merchants.items() if m.order_number_pattern}

    def find_mistakes(self) -> Iterator[Mistake]:
        """Find sections that contradict each other."""
        if self.database != DatabaseSettings() and not self.database_url:
            yield "database", "has no effect without database_url, which names PostgreSQL"
        names = [endpoint.name for endpoint in self.endpoints]
        for name in {name for name in names if names.count(name) > 1}:
            yield "endpoints", f"two endpoints are called `{name}`"
        for endpoint in self.endpoints:
            for slug in (endpoint.merchants or frozenset()) - set(self.merchants):
                yield "endpoints", f"`{endpoint.name}` names the unknown merchant `{slug}`"
            if endpoint.needs_broker and not self.broker.urls:
                yield "endpoints", f"`{endpoint.name}` is of kind {endpoint.kind}, and no broker.urls are set"
            if self.dispatcher.lease_seconds < endpoint.timeout_seconds * 2:
                yield (
                    "dispatcher.lease_seconds",
                    f"must be at least twice every endpoint's timeout_seconds (`{endpoint.name}`)",
                )
        for slug, merchant in self.merchants.items():
            if merchant.gateway:
                yield from self._find_short_times(slug, merchant.gateway.timeout_seconds)
        yield from self._find_nameless_tokens()

    def _find_nameless_tokens(self) -> Iterator[Mistake]:
        ruled = [slug for slug, merchant in self.merchants.items() if merchant.second_person_above is not None]
        for number, token in enumerate(self.api.tokens):
            if ruled and ApiScope.RESOLVE in token.scopes and not token.person:
                yield (
                    f"api.tokens.{number}.person",
                    f"is needed, since `{token.name}` has the scope resolve and "
                    f"merchants.{ruled[0]}.second_person_above is set; give each person a token",
                )

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

    def _ways_to_resolve(self) -> list[str]:
        """The settings by which people get the scope resolve in the console."""
        console = self.console
        ways = {
            "api.tokens": [token.scopes for token in self.api.tokens],
            "console.openid.groups": console.openid.groups.values() if console.openid else (),
            "console.proxy.groups": console.proxy.groups.values() if console.proxy else (),
        }
        return [name for name, scopes in ways.items() if any(ApiScope.RESOLVE in some for some in scopes)]

    def warnings(self) -> list[str]:
        """What is allowed but doubtful. It is logged at the start and printed by `config check`."""
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
                    f"{where}.gateway.allow_plain_http: anyone on the network path to the gateway can read personal "
                    "data, and answer that any order is paid."
                )
        for endpoint in self.endpoints:
            terminal = endpoint.types & {EventType.SUCCEEDED, EventType.FAILED}
            if terminal and EventType.CORRECTED not in endpoint.types:
                found.append(
                    f"endpoints.{endpoint.name} takes {', '.join(sorted(terminal))} but not payment.corrected: "
                    "it would never learn that one of them was wrong."
                )
        if self.console.openid and not self.console.openid.issuer.startswith("https://"):
            found.append("console.openid.issuer is not https: anyone on the path to it can sign in as anybody.")
        ways = self._ways_to_resolve()
        needs_two = any(merchant.second_person_above is not None for merchant in self.merchants.values())
        people = {token.person for token in self.api.tokens if ApiScope.RESOLVE in token.scopes}
        if needs_two and ways == ["api.tokens"] and len(people) < 2:
            found.append("second_person_above is set and one person alone has the scope resolve: nobody can confirm.")
        if len(ways) > 1 and needs_two:
            found.append(
                f"{' and '.join(ways)} give the scope resolve: somebody with another identity in each could confirm "
                "their own proposal. Give it in one of them only, or the same identities in all."
            )
        if self.spool.enabled and not self.broker.urls:
            found.append("spool.enabled has no effect on the embedded queue, which is a file itself.")
        return found
