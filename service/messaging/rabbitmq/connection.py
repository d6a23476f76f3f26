"""One connection to RabbitMQ on an asyncio loop, which reconnects whenever it is lost."""

import asyncio
import concurrent.futures
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.connection import Connection, URLParameters
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ChannelClosedByClient

from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.parameters import connection_parameters
from service.messaging.rabbitmq.properties import tolerate_unreadable_headers
from service.runtime.logs import Logger

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
#: For the handshake of an orderly close.
_CLOSE_SECONDS = 1.0
#: The shortest time between two declarations of the topology.
_DECLARATION_PAUSE_SECONDS = 5.0
_NOT_FOUND = 404

_log = Logger(__name__)


class _BatchingConnection(AsyncioConnection):
    """Sends everything that is written in one iteration of the loop in one piece.

    pika makes three system calls for each publish: method, header and body.
    """

    def __init__(self, parameters: URLParameters, *, loop: asyncio.AbstractEventLoop, **callbacks: Any) -> None:
        self._loop = loop
        self._written: list[bytes] = []
        super().__init__(parameters, custom_ioloop=loop, **callbacks)

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self._send_written)
        self._written.append(data)

    def _send_written(self) -> None:
        data, self._written = b"".join(self._written), []
        if self._transport is not None:  # else the connection was lost before
            super()._adapter_emit_data(data)


class BrokerConnection:
    """Connects to one of several brokers and opens a channel, again whenever that is lost, with jitter.

    Everything happens on the loop given to `start`. Call every method but `start` and `call_soon` on the loop's thread.
    `on_open` gets each new channel. `on_down` gets the reason, each time a connection is lost and each time that no
    host can be reached. An exception in a callback closes the connection and never ends the loop.

    A broker may lose its queues and bindings: one with an empty disk takes the place of another, somebody deletes a
    queue, or the broker is killed before it has written down what was declared. Nobody should have to restart the roles
    then. So the topology is declared again as soon as something is missing.
    """

    def __init__(
        self,
        *,
        urls: Sequence[str],
        connection_name: str,
        on_open: Callable[[Channel], None],
        on_down: Callable[[str], None],
    ) -> None:
        tolerate_unreadable_headers()
        self._parameters = connection_parameters(urls, connection_name=connection_name)
        self._name = connection_name
        self._on_open = on_open
        self._on_down = on_down
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: concurrent.futures.Future[None] | None = None
        self._closing = asyncio.Event()
        self._connection: AsyncioConnection | None = None
        self._gone: asyncio.Future[None] | None = None
        self._opened = False
        self._reason: str | None = None
        # Something was missing at the broker when the last connection was dropped.
        self._is_incomplete = False
        self._declare_from = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to connect on `loop`; further calls do nothing. From any thread; not before a fork."""
        with self._starting:
            if self._ended is None:
                self._loop = loop
                self._ended = asyncio.run_coroutine_threadsafe(self._run(), loop)

    async def close(self) -> None:
        """Close the connection, orderly if the broker answers within a second. Safe to call twice.

        It takes two seconds at most. A connection that is still opening then is left until the process ends.
        """
        self._closing.set()
        self._close()
        if self._loop is not None and self._ended is not None:
            self._loop.call_later(_CLOSE_SECONDS, self._cut_off)
            await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=2 * _CLOSE_SECONDS)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the loop, unless there is no connection by then. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._call, callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run `callback` in `seconds`, unless the current connection is gone by then."""
        connection = self._connection
        if self._loop is not None:
            self._loop.call_later(seconds, lambda: self._call(callback) if connection is self._connection else None)

    def _call(self, callback: Callable[[], None]) -> None:
        if self._connection is None:
            return
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - an error in a callback closes the connection
            _log.exception("broker_callback_failed", connection=self._name)
            self.drop(f"internal error: {error!r}")

    def renew(self, channel: Channel) -> None:
        """Close `channel`, which returns its unsettled messages to the queue, and open another.

        If the broker does not close it within a second, the whole connection is dropped.
        """
        if channel.is_open:
            channel.close()
            self.call_later(
                _CLOSE_SECONDS, lambda: None if channel.is_closed else self.drop("a channel does not close")
            )

    def drop(self, reason: str) -> None:
        """Replace the current connection by a new one.

        It is closed orderly if the broker answers within a second, and cut off otherwise.
        """
        self._reason = self._reason or reason
        self._close()
        self.call_later(_CLOSE_SECONDS, self._cut_off)

    def declare_topology(self) -> None:
        """Declare the topology again, because something of it is missing at the broker.

        Does nothing within some seconds of the last time, and while there is no connection.
        """
        if self._connection is not None and self._connection.is_open and time.monotonic() >= self._declare_from:
            self._declare(self._connection)

    async def _run(self) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            began = time.monotonic()
            await self._hold_one_connection()
            if time.monotonic() - began > _LONGEST_PAUSE_SECONDS:
                pause_seconds = _FIRST_PAUSE_SECONDS
            # Full jitter, so that the clients of a broker that comes back do not all reconnect at once.
            await self._pause(random.uniform(0, pause_seconds))  # noqa: S311
            pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass

    async def _hold_one_connection(self) -> None:
        """Connect to one of the hosts, in random order; return once the connection is lost or no host was reached."""
        for host in random.sample(self._parameters, k=len(self._parameters)):
            self._opened = False
            self._reason = None
            await self._use(host)
            if self._opened or self._closing.is_set():
                break
        reason = self._reason or "closed"
        if self._closing.is_set():
            _log.info("broker_disconnected", connection=self._name)
        else:
            _log.warning("broker_lost", connection=self._name, reason=reason)
        self._on_down(reason)

    async def _use(self, host: URLParameters) -> None:
        if self._closing.is_set():
            return
        loop = asyncio.get_running_loop()
        self._gone = loop.create_future()
        self._connection = _BatchingConnection(
            host,
            loop=loop,
            on_open_callback=self._on_connection_open,
            on_open_error_callback=self._on_connection_gone,
            on_close_callback=self._on_connection_gone,
        )
        try:
            await self._gone
        finally:
            self._connection = None

    def _on_connection_open(self, connection: Connection) -> None:
        if self._closing.is_set():
            connection.close()
            return
        if self._is_incomplete:
            self._is_incomplete = False
            self._declare(connection, then=self._open_channel)
        else:
            self._open_channel(connection)

    def _open_channel(self, connection: Connection) -> None:
        if connection.is_open:
            connection.channel(on_open_callback=self._on_channel_open)

    def _declare(self, connection: Connection, *, then: Callable[[Connection], None] | None = None) -> None:
        """Declare the topology on a channel of its own: the broker closes it where it refuses a declaration."""
        self._declare_from = time.monotonic() + _DECLARATION_PAUSE_SECONDS

        def on_open(channel: Channel) -> None:
            topology.declare_on(channel)
            channel.close()

        def on_closed(_channel: Channel, reason: Exception) -> None:
            if isinstance(reason, ChannelClosedByClient):
                _log.warning("topology_declared_again", connection=self._name)
            else:
                _log.warning("topology_declaration_failed", connection=self._name, reason=str(reason))
            if then is not None:
                then(connection)

        channel = connection.channel(on_open_callback=on_open)
        channel.add_on_close_callback(on_closed)
        # A broker that lacks nodes may not answer a declaration at all.
        self.call_later(
            _DECLARATION_PAUSE_SECONDS,
            lambda: None if channel.is_closed else self.drop("a declaration is not answered"),
        )

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        if not self._opened:
            self._opened = True
            _log.info("broker_connected", connection=self._name)
        self._on_open(channel)

    def _on_channel_closed(self, channel: Channel, reason: Exception) -> None:
        if isinstance(reason, ChannelClosedByClient) and channel.connection.is_open:
            self._open_channel(channel.connection)
        else:
            self._is_incomplete = isinstance(reason, ChannelClosedByBroker) and reason.reply_code == _NOT_FOUND
            self.drop(str(reason))

    def _on_connection_gone(self, _connection: Connection, reason: BaseException) -> None:
        self._reason = self._reason or str(reason) or repr(reason)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _close(self) -> None:
        # One that is still opening ends by its own time limit: pika fails if it is closed during the handshake.
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _cut_off(self) -> None:
        # pika has no public method that ends a connection when the broker does not answer its close.
        if self._connection is not None and self._connection.is_closing:
            self._connection._terminate_stream(AMQPConnectionError("the broker did not answer a close"))
