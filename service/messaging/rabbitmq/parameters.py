"""Connection parameters for RabbitMQ: checked URLs, and time limits that notice a dead link within seconds."""

import struct
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

import pika
from pika import spec
from pika.exceptions import AMQPError

from service.config.url_syntax import PERCENT_ENCODE, UrlMalformed, check_credentials_url
from service.messaging.errors import UnusableBrokerUrl

#: For TCP, TLS and AMQP handshakes together.
HANDSHAKE_SECONDS = 3

# The parameters of pika that we set ourselves; a URL may set the others.
_PARAMETERS: dict[str, Any] = {
    # In seconds; each side gives up after two missed heartbeats.
    "heartbeat": 10,
    # For the TCP connection to one address.
    "socket_timeout": 1,
    "stack_timeout": HANDSHAKE_SECONDS,
    # In milliseconds: how long sent bytes may stay unacknowledged by the peer's kernel. This notices a cut link long
    # before a heartbeat does.
    "tcp_options": {"TCP_USER_TIMEOUT": 3_000},
    # We retry ourselves: after all hosts, with jitter.
    "connection_attempts": 1,
    "retry_delay": 0,
    # Keep a blocked connection: publishing fails at once meanwhile, and the broker says when it is unblocked.
    "blocked_connection_timeout": None,
}
_URL_PARAMETERS = ("channel_max", "client_properties", "frame_max", "locale", "ssl_options")


def connection_parameters(urls: Sequence[str], *, connection_name: str) -> list[pika.URLParameters]:
    """One set of parameters per broker URL (`amqp://` or `amqps://`), in the order given.

    `rabbitmqctl list_connections` shows `connection_name`. Raises ValueError where there is no URL, and
    UnusableBrokerUrl, which quotes no secret, for a URL that pika would reject or misread.
    """
    if not urls:
        raise ValueError("no broker URL: give at least one amqp:// or amqps:// URL")
    return [_parameters(url, connection_name) for url in urls]


def _parameters(url: str, connection_name: str) -> pika.URLParameters:
    parameters, given = _read(url)
    for name, value in _PARAMETERS.items():
        if name in given and getattr(parameters, name) != value:
            raise UnusableBrokerUrl(
                f"its {name}={getattr(parameters, name)} clashes with {name}={value}, which payment-callbacks sets"
                " itself: take it out"
            )
        setattr(parameters, name, value)
    parameters.client_properties = {**(parameters.client_properties or {}), "connection_name": connection_name}
    _check_encodable(parameters)
    return parameters


def _read(url: str) -> tuple[pika.URLParameters, Sequence[str]]:
    """The URL as pika reads it, and the names of its parameters."""
    try:
        check_credentials_url(url)
        parts = urlsplit(url)
        _check_parts(parts)
    except UrlMalformed as error:
        raise UnusableBrokerUrl(str(error)) from error
    except ValueError:
        # Without the cause, here and below, because it quotes the URL.
        raise UnusableBrokerUrl(f"its host or its port cannot be read; {PERCENT_ENCODE}") from None
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if not set(names) <= {*_URL_PARAMETERS, *_PARAMETERS}:
        raise UnusableBrokerUrl(
            f"it has a parameter that pika does not know; pika knows {', '.join(_URL_PARAMETERS)}; {PERCENT_ENCODE}"
        )
    try:
        return pika.URLParameters(url), names
    except (ValueError, TypeError, AttributeError, SyntaxError, OSError, MemoryError, RecursionError):
        raise UnusableBrokerUrl(
            f"pika cannot read a value of its parameters ({', '.join(names)}); {PERCENT_ENCODE}"
        ) from None


def _check_encodable(parameters: pika.URLParameters) -> None:
    """Encode what pika sends of the URL: else it would fail only while it connects, with an error that quotes it."""
    try:
        spec.Connection.StartOk(parameters.client_properties, response="", locale=parameters.locale).encode()
        spec.Connection.Open(parameters.virtual_host).encode()
    except (AMQPError, struct.error, AttributeError, TypeError, ValueError, RecursionError):
        raise UnusableBrokerUrl(
            "AMQP cannot carry its virtual host, its locale or its client_properties: names have at most 255 bytes, and"
            f" properties are texts, whole numbers, booleans, lists and dictionaries; {PERCENT_ENCODE}"
        ) from None


def _check_parts(parts: SplitResult) -> None:
    """Raise ValueError for parts that pika would reject or misread."""
    if parts.scheme not in ("amqp", "amqps"):
        raise UrlMalformed("must begin with amqp:// or amqps://")
    if not parts.hostname or parts.port == 0:
        raise UrlMalformed(f"it names no host, or a port that is none; {PERCENT_ENCODE}")
    parts.hostname.encode("idna")  # as for a DNS query
    if "," in parts.netloc.rpartition("@")[2]:
        raise UrlMalformed(f"it names several hosts: give each node a URL of its own; {PERCENT_ENCODE}")
    if "@" in parts.netloc and not (parts.username and parts.password):
        raise UrlMalformed(f"it lacks the user or the password of amqp://user:password@host/vhost; {PERCENT_ENCODE}")
    if parts.path.count("/") > 1:
        raise UrlMalformed(f"its virtual host has a raw /; {PERCENT_ENCODE}")
