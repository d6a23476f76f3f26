"""What the settings' file may hold: a marshmallow schema per table. Unknown keys are errors."""

import base64
import binascii
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from marshmallow import Schema, ValidationError, fields, post_load, validate, validates, validates_schema

from service.config.settings import (
    Acknowledgement,
    ApiScope,
    ApiSettings,
    ApiToken,
    BrokerSettings,
    DatabaseSettings,
    DispatcherSettings,
    EndpointSettings,
    GatewaySettings,
    InquirerSettings,
    LedgerSettings,
    MerchantSettings,
    Proxy,
    ReceiverSettings,
    Secret,
    Settings,
    SpoolSettings,
    TokenKey,
)
from service.config.url_syntax import PERCENT_ENCODE, UrlMalformed, check_credentials_url, split_http_url
from service.domain.claims import Trust
from service.domain.events import EventType

_TRUSTS = {"checksum": Trust.CHECKSUM, "capability": Trust.CAPABILITY, "query": Trust.QUERIED}
_SLUG = validate.Regexp(
    r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?\Z", error="must be a slug: a-z, 0-9 and inner hyphens, at most 64"
)
_KID = validate.Regexp(r"[A-Za-z0-9_-]{1,16}\Z", error="must be 1 to 16 of A-Z, a-z, 0-9, _ and -")
_POSITIVE = validate.Range(min=0, min_inclusive=False)
_AT_LEAST_ONE = validate.Range(min=1)
_PORT = r"(6553[0-5]|655[0-2]\d|65[0-4]\d{2}|6[0-4]\d{3}|[0-5]?\d{1,4})"
_HOST_AND_PORT = validate.Regexp(
    rf"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+):{_PORT}\Z", re.ASCII, error="must be host:port, the port up to 65535"
)
# A withhold is announced before the gateway is called, and its outcome recorded after.
_AROUND_A_CALL_SECONDS = 5.0
_WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105 - the convention's prefix, no secret


class _SecretField(fields.String):
    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        # Files and variables that were made with an editor or with echo end in the end of a line.
        value = super()._deserialize(*args, **kwargs).rstrip("\r\n")
        if not value:
            raise ValidationError("must not be empty")
        self._check(value)
        return Secret(value)

    def _check(self, value: str) -> None:
        if not value.isprintable() or value != value.strip():
            raise ValidationError(
                "must hold no control character, such as the end of a line or a tab, and no space at its ends"
            )


class _UrlField(_SecretField):
    """A URL with a password in it, so its errors quote none of it. Who uses it judges the rest."""

    def __init__(self, *, schemes: Collection[str], example: str, **options: Any) -> None:
        super().__init__(**options)
        self._schemes = schemes
        self._example = example

    def _check(self, value: str) -> None:
        scheme, _, rest = value.partition("://")
        if not rest or scheme.partition("+")[0] not in self._schemes:
            raise ValidationError(f"must look like {self._example}; {PERCENT_ENCODE}")
        if scheme == "sqlite":  # it names a file
            return super()._check(value)
        try:
            check_credentials_url(value)
        except UrlMalformed as error:
            raise ValidationError(str(error)) from error


class _ProxyField(_SecretField):
    """A proxy's URL, which may hold a password, so its errors quote none of it."""

    def _check(self, value: str) -> None:
        try:
            check_credentials_url(value)
            url = urlsplit(value)
            # Reading the port checks it.
            usable = url.hostname and url.port != 0 and url.scheme == "http" and value.isascii()
        except ValueError:
            usable = False
        if not usable or url.path.strip("/") or url.query:
            raise ValidationError(
                "must look like http://user:password@proxy.example.com:3128; percent-encode what is neither letter nor"
                " digit in user and password"
            )

    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        url = urlsplit(super()._deserialize(*args, **kwargs).reveal())
        credentials = None
        if url.username is not None:
            credentials = Secret(f"{unquote(url.username)}:{unquote(url.password or '')}")
        return Proxy(host=url.hostname or "", port=url.port or 80, credentials=credentials)


class _Section(Schema):
    """A table of the file; what it does not name keeps the dataclass's default."""

    value: type

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return self.value(**data)


class _AcknowledgementSchema(_Section):
    value = Acknowledgement
    body = fields.String()
    content_type = fields.String()


class _TokenKeySchema(_Section):
    value = TokenKey
    kid = fields.String(required=True, validate=_KID)
    key = _SecretField(required=True)

    @validates_schema
    def _long_enough(self, data: dict[str, Any], **_: Any) -> None:
        if len(data["key"].reveal().encode()) < 32:
            raise ValidationError("must have at least 32 bytes; make one with `payment-callbacks keys new`", "key")


class _GatewaySchema(_Section):
    value = GatewaySettings
    url = fields.String(required=True)
    ua = fields.String(required=True, validate=validate.Length(min=1))
    aes_key = _SecretField(required=True)
    dialect = fields.Dict(keys=fields.String(), values=fields.String())
    not_found_messages = fields.List(fields.String())
    timeout_seconds = fields.Float(validate=_POSITIVE)
    ca_certificates = fields.String()
    proxy = _ProxyField()
    allow_plain_http = fields.Boolean(truthy={True}, falsy={False})


class _MerchantSchema(Schema):
    pay_types = fields.List(fields.String(), required=True, validate=validate.Length(min=1))
    amount_unit = fields.String(required=True, validate=validate.OneOf(["yuan", "fen"]))
    gateway = fields.Nested(_GatewaySchema)
    token_keys = fields.List(fields.Nested(_TokenKeySchema), validate=validate.Length(max=2))
    required_trust = fields.String(validate=validate.OneOf(list(_TRUSTS)))
    require_token = fields.Boolean(truthy={True}, falsy={False})
    time_zone = fields.String()
    acknowledgement = fields.Nested(_AcknowledgementSchema)
    answer_due_seconds = fields.Float(validate=_POSITIVE)
    least_inquiry_interval_seconds = fields.Float(validate=_POSITIVE)
    # Of one alone there is nothing to share.
    most_inquiries_per_day = fields.Integer(validate=validate.Range(min=2))
    most_inquiries_per_minute = fields.Float(validate=validate.Range(min=1, max=60_000))
    overdue_share = fields.Float(validate=validate.Range(min=0, max=1, min_inclusive=False, max_inclusive=False))
    first_inquiry_repeat_seconds = fields.Float(validate=_POSITIVE)
    most_inquiry_repeat_seconds = fields.Float(validate=_POSITIVE)
    inquiry_horizon_seconds = fields.Float(validate=_POSITIVE)

    @validates_schema
    def _known_time_zone(self, data: dict[str, Any], **_: Any) -> None:
        try:
            ZoneInfo(data.get("time_zone", "UTC"))
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValidationError("is no time zone; use a name like Asia/Shanghai", "time_zone") from error

    @validates_schema
    def _token_can_be_minted(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("require_token") and not data.get("token_keys"):
            raise ValidationError(
                "without token_keys no callback has a token, and each would be refused; set token_keys", "require_token"
            )

    @validates_schema
    def _distinct_kids(self, data: dict[str, Any], **_: Any) -> None:
        kids = [key.kid for key in data.get("token_keys", [])]
        if len(kids) != len(set(kids)):
            raise ValidationError("two keys have the same kid", "token_keys")


class _EndpointSchema(_Section):
    value = EndpointSettings
    name = fields.String(required=True, validate=_SLUG)
    kind = fields.String(required=True, validate=validate.OneOf(["webhook", "amqp"]))
    url = fields.String()
    secrets = fields.List(_SecretField(), validate=validate.Length(min=1, max=2))
    types = fields.List(fields.Enum(EventType, by_value=True), validate=validate.Length(min=1))
    merchants = fields.List(fields.String(), validate=validate.Length(min=1))
    timeout_seconds = fields.Float(validate=_POSITIVE)
    max_attempts = fields.Integer(validate=_AT_LEAST_ONE)
    first_retry_seconds = fields.Float(validate=_POSITIVE)
    most_retry_seconds = fields.Float(validate=_POSITIVE)
    concurrency = fields.Integer(validate=_AT_LEAST_ONE)

    @validates_schema
    def _complete(self, data: dict[str, Any], **_: Any) -> None:
        given = {"url", "secrets"} & set(data)
        if data["kind"] == "amqp" and given:
            raise ValidationError("belongs to webhooks; an amqp endpoint publishes to `payment.status`", given.pop())
        if data["kind"] == "webhook":
            _check_webhook_url(data.get("url", ""))
            for secret in data.get("secrets", [Secret("")]):
                _check_webhook_secret(secret.reveal())

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> EndpointSettings:
        for name in {"types", "merchants"} & set(data):
            data[name] = frozenset(data[name])
        return EndpointSettings(**data)


def _check_webhook_url(text: str) -> None:
    try:
        split_http_url(text)
    except UrlMalformed as error:
        raise ValidationError(f"a webhook {error}", "url") from error


def _check_webhook_secret(secret: str) -> None:
    try:
        key = base64.b64decode(secret.removeprefix(_WEBHOOK_SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(_WEBHOOK_SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValidationError(
            "a webhook needs secrets of the form whsec_<base64 of 24 to 64 bytes>; "
            "make one with `payment-callbacks keys new --webhook`",
            "secrets",
        )


class _ReceiverSchema(_Section):
    value = ReceiverSettings
    bind = fields.String(validate=_HOST_AND_PORT)
    public_url = fields.String()
    workers = fields.Integer(validate=_AT_LEAST_ONE)
    trusted_proxy_hops = fields.Integer(validate=validate.Range(min=0, max=8))
    confirm_timeout_seconds = fields.Float(validate=validate.Range(min=0.1, max=2.0))
    request_timeout_seconds = fields.Float(validate=validate.Range(min=0.5, max=60))
    drain_seconds = fields.Float(validate=_POSITIVE)
    metrics_bind = fields.String(validate=_HOST_AND_PORT)

    @validates("public_url")
    def _origin(self, text: str, **_: Any) -> None:
        try:
            url = split_http_url(text)
        except UrlMalformed as error:
            raise ValidationError(f"must be http(s)://host[:port]; it {error}") from error
        if f"{url.scheme}://{url.netloc}" != text:
            raise ValidationError("must be http(s)://host[:port], without a path")


class _DatabaseSchema(_Section):
    value = DatabaseSettings
    pooled = fields.Boolean(truthy={True}, falsy={False})
    migrate_url = _UrlField(schemes=("postgresql", "postgres"), example="postgresql://user:password@host/name")


class _BrokerSchema(_Section):
    value = BrokerSettings
    urls = fields.List(
        _UrlField(schemes=("amqp", "amqps"), example="amqp://user:password@host/vhost"), validate=validate.Length(min=1)
    )
    max_in_flight = fields.Integer(validate=_AT_LEAST_ONE)
    prefetch = fields.Integer(validate=validate.Range(min=1, max=2000))


class _SpoolSchema(_Section):
    value = SpoolSettings
    enabled = fields.Boolean(truthy={True}, falsy={False})
    max_bytes = fields.Integer(validate=validate.Range(min=64 * 1024))


class _LedgerSchema(_Section):
    value = LedgerSettings
    batch_size = fields.Integer(validate=validate.Range(min=1, max=1000))
    first_retry_seconds = fields.Float(validate=_POSITIVE)
    most_retry_seconds = fields.Float(validate=_POSITIVE)
    forged_order_days = fields.Integer(validate=validate.Range(min=1, max=36_500))
    most_forged_orders = fields.Integer(validate=validate.Range(min=0))
    metrics_bind = fields.String(validate=_HOST_AND_PORT)


class _DispatcherSchema(_Section):
    value = DispatcherSettings
    poll_seconds = fields.Float(validate=_POSITIVE)
    lease_seconds = fields.Float(validate=_POSITIVE)
    metrics_bind = fields.String(validate=_HOST_AND_PORT)


class _InquirerSchema(_Section):
    value = InquirerSettings
    concurrency = fields.Integer(validate=validate.Range(min=1, max=16))
    poll_seconds = fields.Float(validate=_POSITIVE)
    lease_seconds = fields.Float(validate=_POSITIVE)
    metrics_bind = fields.String(validate=_HOST_AND_PORT)


class _ApiTokenSchema(_Section):
    value = ApiToken
    name = fields.String(required=True, validate=_SLUG)
    token = _SecretField(required=True)
    # No default: what a caller may do is for whoever lets it in to say, and one of the words makes orders paid.
    scopes = fields.List(
        fields.Enum(ApiScope, by_value=True),
        required=True,
        validate=validate.Length(min=1),
        error_messages={"required": f"is needed, with some of: {', '.join(ApiScope)}"},
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> ApiToken:
        return ApiToken(**{**data, "scopes": frozenset(data["scopes"])})

    @validates_schema
    def _long_enough(self, data: dict[str, Any], **_: Any) -> None:
        token = data["token"].reveal()
        if len(token) < 32 or not token.isascii() or not token.isprintable() or " " in token:
            raise ValidationError(
                "must be at least 32 printable ASCII characters; make one with `payment-callbacks keys new`", "token"
            )


class _ApiSchema(_Section):
    value = ApiSettings
    bind = fields.String(validate=_HOST_AND_PORT)
    tokens = fields.List(fields.Nested(_ApiTokenSchema), validate=validate.Length(min=1))
    workers = fields.Integer(validate=_AT_LEAST_ONE)
    threads = fields.Integer(validate=_AT_LEAST_ONE)
    drain_seconds = fields.Float(validate=_POSITIVE)

    @validates_schema
    def _distinct_tokens(self, data: dict[str, Any], **_: Any) -> None:
        tokens = data.get("tokens", [])
        for what, found in {
            "name": [token.name for token in tokens],
            "token": [token.token for token in tokens],
        }.items():
            if len(found) != len(set(found)):
                raise ValidationError(f"two of them have the same {what}", "tokens")


class SettingsSchema(Schema):
    """The whole file. Loads to `Settings`, whose `data_directory` is as it was written."""

    merchants = fields.Dict(
        keys=fields.String(validate=_SLUG),
        values=fields.Nested(_MerchantSchema),
        required=True,
        validate=validate.Length(min=1),
    )
    endpoints = fields.List(fields.Nested(_EndpointSchema))
    data_directory = fields.String()
    database_url = _UrlField(
        schemes=("postgresql", "postgres", "sqlite"), example="postgresql://user:password@host/name"
    )
    database = fields.Nested(_DatabaseSchema)
    receiver = fields.Nested(_ReceiverSchema)
    broker = fields.Nested(_BrokerSchema)
    spool = fields.Nested(_SpoolSchema)
    ledger = fields.Nested(_LedgerSchema)
    dispatcher = fields.Nested(_DispatcherSchema)
    inquirer = fields.Nested(_InquirerSchema)
    api = fields.Nested(_ApiSchema)

    @validates_schema
    def _pooler_needs_a_database(self, data: dict[str, Any], **_: Any) -> None:
        if "database" in data and "database_url" not in data:
            raise ValidationError("has no effect without database_url, which names PostgreSQL", "database")

    @validates_schema
    def _distinct_endpoints(self, data: dict[str, Any], **_: Any) -> None:
        names = [endpoint.name for endpoint in data.get("endpoints", [])]
        for name in {name for name in names if names.count(name) > 1}:
            raise ValidationError(f"two endpoints are called `{name}`", "endpoints")

    @validates_schema
    def _known_merchants(self, data: dict[str, Any], **_: Any) -> None:
        for endpoint in data.get("endpoints", []):
            for slug in (endpoint.merchants or frozenset()) - set(data.get("merchants", {})):
                raise ValidationError(f"`{endpoint.name}` names the unknown merchant `{slug}`", "endpoints")

    @validates_schema
    def _amqp_needs_a_broker(self, data: dict[str, Any], **_: Any) -> None:
        for endpoint in data.get("endpoints", []):
            if endpoint.kind == "amqp" and not data.get("broker", BrokerSettings()).urls:
                raise ValidationError(f"`{endpoint.name}` is of kind amqp, and no broker.urls are set", "endpoints")

    @validates_schema
    def _lease_outlasts_every_send(self, data: dict[str, Any], **_: Any) -> None:
        lease = data.get("dispatcher", DispatcherSettings()).lease_seconds
        for endpoint in data.get("endpoints", []):
            if endpoint.timeout_seconds * 2 > lease:
                raise ValidationError(
                    {"lease_seconds": [f"must be at least twice every endpoint's timeout_seconds (`{endpoint.name}`)"]},
                    "dispatcher",
                )

    @validates_schema
    def _lease_outlasts_every_question(self, data: dict[str, Any], **_: Any) -> None:
        lease = data.get("inquirer", InquirerSettings()).lease_seconds
        for slug, merchant in data.get("merchants", {}).items():
            gateway = merchant.get("gateway")
            if gateway is not None and gateway.timeout_seconds * 2 > lease:
                raise ValidationError(
                    {"lease_seconds": [f"must be at least twice every merchant's gateway.timeout_seconds (`{slug}`)"]},
                    "inquirer",
                )

    @validates_schema
    def _drain_outlasts_every_call(self, data: dict[str, Any], **_: Any) -> None:
        api = data.get("api", ApiSettings())
        for slug, merchant in data.get("merchants", {}).items() if api.tokens else ():
            gateway = merchant.get("gateway")
            if gateway is not None and api.drain_seconds < gateway.timeout_seconds + _AROUND_A_CALL_SECONDS:
                raise ValidationError(
                    {
                        "drain_seconds": [
                            f"must be at least {_AROUND_A_CALL_SECONDS:g} more than the gateway.timeout_seconds of "
                            f"every merchant (`{slug}`): a withhold that is under way at SIGTERM has to end"
                        ]
                    },
                    "api",
                )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Settings:
        data["merchants"] = {slug: _merchant(slug, table) for slug, table in data["merchants"].items()}
        data["data_directory"] = Path(data["data_directory"])
        return Settings(**data)


def _merchant(slug: str, table: dict[str, Any]) -> MerchantSettings:
    trust = table.pop("required_trust", None)
    return MerchantSettings(
        **{**table, "slug": slug, "pay_types": frozenset(table["pay_types"])},
        configured_trust=_TRUSTS[trust] if trust else None,
    )
