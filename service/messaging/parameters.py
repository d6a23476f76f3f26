"""How we connect to RabbitMQ: time limits that notice a dead link within seconds."""

from collections.abc import Sequence

import pika

#: Seconds between heartbeats; the broker and we each give up after two have been missed.
_HEARTBEAT_SECONDS = 10
#: For the TCP connection to one address.
_SOCKET_TIMEOUT_SECONDS = 1
#: For TCP, TLS and AMQP handshakes together.
HANDSHAKE_SECONDS = 3
#: How long sent bytes may stay unacknowledged by the peer's kernel: it notices a cut link long before a heartbeat does.
_TCP_USER_TIMEOUT_MILLISECONDS = 3_000


def connection_parameters(urls: Sequence[str], *, connection_name: str) -> list[pika.URLParameters]:
    """One set of parameters per broker URL (`amqp://` or `amqps://`), in the order given.

    `connection_name` is what operators see in `rabbitmqctl list_connections`. Raises ValueError for a URL of another
    scheme, and for none at all.
    """
    if not urls:
        raise ValueError("no broker URL: give at least one amqp:// or amqps:// URL")
    return [_parameters(url, connection_name) for url in urls]


def _parameters(url: str, connection_name: str) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.heartbeat = _HEARTBEAT_SECONDS
    parameters.socket_timeout = _SOCKET_TIMEOUT_SECONDS
    parameters.stack_timeout = HANDSHAKE_SECONDS
    parameters.tcp_options = {"TCP_USER_TIMEOUT": _TCP_USER_TIMEOUT_MILLISECONDS}
    parameters.connection_attempts = 1  # trying again is ours to decide: after all hosts, with jitter
    parameters.retry_delay = 0
    # A blocked connection is kept: publishing fails at once meanwhile, and the broker says when it is unblocked.
    parameters.blocked_connection_timeout = None
    parameters.client_properties = {"connection_name": connection_name}
    return parameters
