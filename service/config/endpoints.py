"""The settings of endpoints: what all have in common, and a class for each kind.

A new kind is a class here, named in `AnyEndpoint`, and a sink. docs/changing-it.md has the steps.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, validate

from service.config.schema import PositiveFloat, PositiveInteger, ReadBy, Slug
from service.config.secrets import Secret, SecretField
from service.config.url_syntax import UrlMalformed, split_http_url
from service.domain.events import DEFAULT_EVENT_TYPES, EventType

_NOT_EMPTY = validate.Length(min=1)
_WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105 - the convention's prefix, no secret
_WEBHOOK_SECRETS = (
    "a webhook needs secrets of the form whsec_<base64 of 24 to 64 bytes>; "
    "make one with `payment-callbacks keys new --webhook`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """One downstream system, of whatever kind."""

    #: Whether it is reached through our broker, `broker.urls`.
    needs_broker: ClassVar[bool] = False

    name: Slug
    kind: str
    types: Annotated[frozenset[EventType], _NOT_EMPTY] = DEFAULT_EVENT_TYPES
    #: None: every merchant's events.
    merchants: Annotated[frozenset[str], _NOT_EMPTY] | None = None
    timeout_seconds: PositiveFloat = 10.0
    max_attempts: PositiveInteger = 60
    initial_retry_seconds: PositiveFloat = 1.0
    max_retry_seconds: PositiveFloat = 3600.0
    #: The most deliveries at once, per dispatcher process.
    concurrency: PositiveInteger = 8


def _check_webhook_url(url: str) -> None:
    try:
        split_http_url(url)
    except UrlMalformed as error:
        raise ValidationError(f"a webhook {error}") from error


def _check_webhook_secret(secret: Secret) -> None:
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(_WEBHOOK_SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(_WEBHOOK_SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValidationError(_WEBHOOK_SECRETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings(EndpointSettings):
    """An HTTP server of a downstream system."""

    kind: Literal["webhook"] = "webhook"
    url: Annotated[str, _check_webhook_url]
    #: The newest first. Each of them signs, so that a receiver can change from one to the other.
    secrets: Annotated[
        Sequence[Secret],
        ReadBy(
            partial(
                fields.List,
                SecretField(validate=_check_webhook_secret),
                error_messages={"required": _WEBHOOK_SECRETS},
            )
        ),
        validate.Length(min=1, max=2),
    ]

    @property
    def address(self) -> str:
        """For people: the URL without its query, which may hold a key."""
        url = urlsplit(self.url)
        return f"{url.scheme}://{url.netloc}{url.path}{'?…' if url.query else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpSettings(EndpointSettings):
    """The topic exchange `payment.status` on our broker, to which any service binds its own queue."""

    needs_broker: ClassVar[bool] = True

    kind: Literal["amqp"] = "amqp"

    @property
    def address(self) -> str:
        """For people: the exchange."""
        return "exchange payment.status"


#: An endpoint of any kind.
AnyEndpoint = WebhookSettings | AmqpSettings
