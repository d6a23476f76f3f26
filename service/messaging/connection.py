"""One connection to RabbitMQ, kept up for ever by a thread of its own."""

import random
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.channel import Channel
from pika.connection import Connection, URLParameters
from pika.exceptions import AMQPConnectionError, ChannelClosedByClient

from service.messaging.parameters import connection_parameters
from service.messaging.unreadable_headers import tolerate_unreadable_headers

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
#: For the handshake of an orderly close.
_CLOSE_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class BrokerConnection:
    """Connects to one of several brokers, opens a channel, and does so again whenever that is lost, with jitter.

    `on_open` gets each new channel, on the connection's own thread; from then on the channel may be used on that thread
    alone (`call_soon` gets you there). `on_down` is told why, on the same thread, each time a connection is lost and
    each time that no host could be reached. An exception in any callback costs the connection, never the thread.
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
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: IOLoop | None = None
        self._connection: SelectConnection | None = None
        self._opened = False
        self._reason: str | None = None

    def start(self) -> None:
        """Start the thread, unless it runs already. Not before a fork: threads do not survive one."""
        with self._starting:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the connection's thread; from any thread. Dropped while there is no connection."""
        loop = self._loop
        if loop is not None:
            loop.add_callback_threadsafe(callback)

    def close(self, *, timeout_seconds: float) -> None:
        """Close the connection after what `call_soon` was given before, and end the thread. Safe to call twice."""
        with self._starting:
            self._closing.set()
        self.call_soon(self._close)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run `callback` in `seconds`, unless the present connection is gone by then. Only on its thread."""
        if self._loop is not None:
            self._loop.call_later(seconds, callback)

    def renew(self, channel: Channel) -> None:
        """Close `channel`, which gives back what it holds, and open another. Only on the connection's thread.

        Where the broker does not close it within a second, the whole connection is given up.
        """
        if channel.is_open:
            channel.close()
            self.call_later(
                _CLOSE_SECONDS, lambda: None if channel.is_closed else self.drop("a channel does not close")
            )

    def drop(self, reason: str) -> None:
        """Give the present connection up for a new one. Only on the connection's thread.

        It is closed in good order where the broker answers within a second, and cut off where not.
        """
        self._reason = self._reason or reason
        self._close()
        if self._loop is not None:
            self._loop.call_later(_CLOSE_SECONDS, self._cut_off)

    def _run(self) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            began = time.monotonic()
            self._hold_one_connection()
            if time.monotonic() - began > _LONGEST_PAUSE_SECONDS:
                pause_seconds = _FIRST_PAUSE_SECONDS
            # Full jitter: the clients of a broker that comes back do not all come back at the same moment.
            self._closing.wait(random.uniform(0, pause_seconds))  # noqa: S311
            pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    def _hold_one_connection(self) -> None:
        """Connect to one of the hosts, in random order; return once that is gone, or none could be reached."""
        for host in random.sample(self._parameters, k=len(self._parameters)):
            self._opened = False
            self._reason = None
            self._use(host)
            if self._opened or self._closing.is_set():
                break
        reason = self._reason or "closed"
        if self._closing.is_set():
            _log.info("broker_left", connection=self._name)
        else:
            _log.warning("broker_lost", connection=self._name, reason=reason)
        self._on_down(reason)

    def _use(self, host: URLParameters) -> None:
        loop = self._loop = IOLoop()
        try:
            if not self._closing.is_set():
                self._connection = SelectConnection(
                    host,
                    on_open_callback=self._on_connection_open,
                    on_open_error_callback=self._on_connection_gone,
                    on_close_callback=self._on_connection_gone,
                    custom_ioloop=loop,
                )
                loop.start()
        except Exception as error:  # noqa: BLE001 - this is the supervision: a callback's mistake costs one connection
            _log.exception("broker_callback_failed", connection=self._name)
            self._reason = f"internal error: {error!r}"
        finally:
            self._dispose(loop)

    def _on_connection_open(self, connection: Connection) -> None:
        if self._closing.is_set():
            connection.close()
        else:
            connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        if not self._opened:
            self._opened = True
            _log.info("broker_connected", connection=self._name)
        self._on_open(channel)

    def _on_channel_closed(self, channel: Channel, reason: Exception) -> None:
        if isinstance(reason, ChannelClosedByClient) and channel.connection.is_open:
            self._on_connection_open(channel.connection)
        else:
            self.drop(str(reason))

    def _on_connection_gone(self, _connection: Connection, reason: BaseException) -> None:
        self._reason = self._reason or str(reason) or repr(reason)
        if self._loop is not None:
            self._loop.stop()

    def _close(self) -> None:
        # One that is still opening ends by its own time limit: pika fails over a close in the middle of the handshake.
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _cut_off(self) -> None:
        # pika has no public way to end a connection whose close the broker does not answer.
        if self._connection is not None and not self._connection.is_closed:
            self._connection._terminate_stream(AMQPConnectionError("the broker did not answer a close"))

    def _dispose(self, loop: IOLoop) -> None:
        """Let go of the socket that an exception has left open."""
        if self._connection is not None and not self._connection.is_closed:
            self._loop = loop
            self._close()
            loop.call_later(_CLOSE_SECONDS, self._cut_off)
            loop.call_later(2 * _CLOSE_SECONDS, loop.stop)
            loop.start()
        self._connection = self._loop = None
        loop.close()
