"""A short session with RabbitMQ, for commands: synchronous calls that share one deadline."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.channel import Channel
from pika.connection import URLParameters
from pika.exceptions import ChannelClosedByBroker
from pika.spec import Basic

from service.messaging.errors import BrokerUnavailable, MessagingError, TopologyMismatch, TopologyMissing
from service.messaging.interface import Message
from service.messaging.rabbitmq.parameters import HANDSHAKE_SECONDS, connection_parameters
from service.messaging.rabbitmq.properties import from_delivery, tolerate_unreadable_headers

_NOT_FOUND = 404
_PRECONDITION_FAILED = 406
#: For the handshake of an orderly close.
_CLOSE_SECONDS = 1.0
_SHORTEST_HANDSHAKE_SECONDS = 0.1
#: For messages to be back in their queue.
_RETURN_SECONDS = 5.0
_LOOK_SECONDS = 0.01

_Done = Callable[[Any], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A message fetched from a queue, which keeps it until it is acknowledged."""

    message: Message
    delivery_tag: int
    #: All headers as the broker gave them, its own included.
    raw_headers: Mapping[str, Any]


class BrokerSession:
    """Use it as a context manager, in one thread. `timeout_seconds` is for the whole session.

    pika's blocking connection waits for ever for the response to a declare; this one raises `BrokerUnavailable` when
    the time is up. Messages that were fetched and not acknowledged return to their queue at the end.
    """

    def __init__(self, *, urls: Sequence[str], connection_name: str, timeout_seconds: float) -> None:
        tolerate_unreadable_headers()
        self._parameters = connection_parameters(urls, connection_name=connection_name)
        self._timeout_seconds = timeout_seconds
        self._deadline = 0.0
        self._loop = IOLoop()
        self._connection: SelectConnection | None = None
        self._channel: Channel | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._deadline = time.monotonic() + self._timeout_seconds
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def declare_exchange(self, name: str, *, type: str, arguments: Mapping[str, str | int]) -> None:
        """Declare a durable exchange. Raises `TopologyMismatch`."""
        self._call(
            f"exchange {name!r}",
            lambda channel, done: channel.exchange_declare(
                name, type, durable=True, arguments=dict(arguments), callback=done
            ),
        )

    def declare_queue(self, name: str, *, arguments: Mapping[str, str | int]) -> None:
        """Declare a durable queue. Raises `TopologyMismatch`."""
        self._call(
            f"queue {name!r}",
            lambda channel, done: channel.queue_declare(name, durable=True, arguments=dict(arguments), callback=done),
        )

    def bind_queue(self, name: str, *, exchange: str, routing_key: str) -> None:
        """Bind a queue to an exchange."""
        self._call(
            f"binding of queue {name!r} to exchange {exchange!r}",
            lambda channel, done: channel.queue_bind(name, exchange, routing_key, callback=done),
        )

    def count(self, queue: str) -> int:
        """How many messages are ready in a queue. Raises `TopologyMissing`."""
        response = self._call(
            f"queue {queue!r}",
            lambda channel, done: channel.queue_declare(queue, passive=True, callback=done),
        )
        return int(response.method.message_count)

    def fetch(self, queue: str) -> Fetched | None:
        """The next message of a queue, unacknowledged; None where it is empty. Raises `TopologyMissing`."""

        def get(channel: Channel, done: _Done) -> None:
            channel.add_callback(lambda _frame: done(None), [Basic.GetEmpty])
            channel.basic_get(queue, lambda _channel, *fetched: done(fetched))

        response = self._call(f"queue {queue!r}", get)
        if response is None:
            return None
        method, properties, body = response
        return Fetched(
            message=from_delivery(method, properties, body),
            delivery_tag=method.delivery_tag,
            raw_headers=properties.headers or {},
        )

    def acknowledge(self, fetched: Fetched) -> None:
        """Remove a fetched message from its queue. It takes effect only if the session ends orderly."""
        self._usable_channel().basic_ack(fetched.delivery_tag)

    def give_back(self, queue: str, *, messages: int) -> None:
        """Return what was fetched from a queue and not acknowledged; its number is `messages`.

        Waits until the queue has them again, so that whoever looks next sees them: the broker returns them a moment
        after it was told to. Another consumer may take them meanwhile, so it does not wait for long.
        """
        if not messages:
            return
        self._usable_channel().basic_nack(0, multiple=True, requeue=True)
        give_up_at = time.monotonic() + _RETURN_SECONDS
        while self.count(queue) < messages and time.monotonic() < give_up_at:
            time.sleep(_LOOK_SECONDS)

    def _open(self) -> None:
        refusals = []
        for host in self._parameters:
            connection = self._connect(host)
            if connection.is_open:
                self._connection = connection
                self._channel = self._await("a channel", partial(_open_channel, connection))
                self._channel.add_on_close_callback(self._on_closed)
                return
            refusals.append(f"{host.host}:{host.port}: {self._error!r}")
            self._error = None
        raise BrokerUnavailable(f"no broker can be reached: {'; '.join(refusals)}")

    def _connect(self, host: URLParameters) -> SelectConnection:
        """A connection that is open, or that failed within the deadline.

        The attempt ends by pika's own time limit, because pika fails if it is closed during the handshake.
        """
        remaining = self._deadline - time.monotonic()
        host.stack_timeout = max(min(HANDSHAKE_SECONDS, remaining), _SHORTEST_HANDSHAKE_SECONDS)
        connection = SelectConnection(
            host,
            on_open_callback=lambda _connection: self._loop.stop(),
            on_open_error_callback=self._on_closed,
            on_close_callback=self._on_closed,
            custom_ioloop=self._loop,
        )
        self._loop.start()
        return connection

    def _call(self, what: str, request: Callable[[Channel, _Done], object]) -> Any:
        channel = self._usable_channel()
        try:
            return self._await(what, lambda done: request(channel, done))
        except ChannelClosedByBroker as error:
            raise _translated(what, error) from error

    def _usable_channel(self) -> Channel:
        if self._channel is None or not self._channel.is_open:
            raise BrokerUnavailable("the connection is closed")
        return self._channel

    def _await(self, what: str, request: Callable[[_Done], object]) -> Any:
        """Run the loop until `request` has called back, the connection is lost, or the time is up."""
        responses: list[Any] = []

        def done(response: Any) -> None:
            responses.append(response)
            self._loop.stop()

        timer = self._loop.call_later(max(self._deadline - time.monotonic(), 0), self._loop.stop)
        request(done)
        self._loop.start()
        self._loop.remove_timeout(timer)
        if responses:
            return responses[0]
        if isinstance(self._error, ChannelClosedByBroker):
            raise self._error
        if self._error is not None:
            raise BrokerUnavailable(f"connection lost while waiting for {what}: {self._error}") from self._error
        raise BrokerUnavailable(f"no answer for {what} within {self._timeout_seconds} s")

    def _on_closed(self, _closed: object, reason: BaseException) -> None:
        self._error = self._error or reason
        self._loop.stop()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.is_open:
            connection.close()
            give_up_at = time.monotonic() + _CLOSE_SECONDS
            self._loop.call_later(_CLOSE_SECONDS, self._loop.stop)
            while not connection.is_closed and time.monotonic() < give_up_at:
                self._loop.start()  # stops for the channel, then for the connection
        self._loop.close()


def _open_channel(connection: SelectConnection, done: _Done) -> None:
    connection.channel(on_open_callback=done)


def _translated(what: str, error: ChannelClosedByBroker) -> MessagingError:
    if error.reply_code == _PRECONDITION_FAILED:
        return TopologyMismatch(
            f"{what} exists with other settings than ours: {error.reply_text}. Either delete it once it is empty "
            f"(rabbitmqctl delete_queue NAME --if-empty) and declare again, or keep it and set the same by a policy."
        )
    if error.reply_code == _NOT_FOUND:
        return TopologyMissing(f"{what} does not exist. Run `payment-callbacks topology declare`.")
    return MessagingError(f"the broker refused {what}: {error}")
