"""A client's connection on a worker's loop, whose requests are answered one at a time and in order."""

import asyncio
import contextlib
import math
import socket
import time
from itertools import takewhile
from typing import Protocol

from service.serving.framing import HttpRequest, RequestFraming, RequestRefused
from service.serving.wsgi import PendingResponse

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RECEIVE_BYTES = 64 * 1024
# How much is read of further requests while one is answered: enough for one whole request.
_MAX_AHEAD_BYTES = 128 * 1024
# How much is still read after a refusal, so that the client can read the response instead of a reset.
_MAX_DISCARDED_BYTES = 1024 * 1024


class ConnectionOwner(Protocol):
    """What a connection calls on its worker, which is in a higher module."""

    def on_request(self, connection: "Connection", request: HttpRequest) -> None:
        """A whole request has arrived; `connection.answer` must be called for it, once."""

    def on_refused(self, connection: "Connection", refusal: RequestRefused) -> bytes:
        """What has arrived is not a valid request. Returns the response."""

    def on_waiting(self, connection: "Connection") -> None:
        """It begins to wait for its client, for a limited time."""

    def on_busy(self, connection: "Connection") -> None:
        """It stops waiting for its client."""

    def on_closed(self, connection: "Connection") -> None:
        """It is closed."""


class Connection:
    """A client's socket, the bytes that have arrived on it, and the request that is being answered.

    Use it on the loop's thread only. Closing it abandons a pending response.
    """

    __slots__ = (
        "_closing",
        "_discarded_bytes",
        "_ended",
        "_framing",
        "_lingering",
        "_loop",
        "_owner",
        "_reading",
        "_sock",
        "_unsent",
        "client",
        "closed",
        "closes_after_answer",
        "deadline",
        "pending",
        "request",
        "server",
    )

    def __init__(
        self,
        *,
        sock: socket.socket,
        client: tuple[str, int],
        framing: RequestFraming,
        loop: asyncio.AbstractEventLoop,
        owner: ConnectionOwner,
    ) -> None:
        """`sock` is connected and does not block."""
        self._sock = sock
        self._framing = framing
        self._loop = loop
        self._owner = owner
        self.client = client
        self.server: tuple[str, int] = sock.getsockname()[:2]
        #: The request that is being answered, and its response where that is pending.
        self.request: HttpRequest | None = None
        self.pending: PendingResponse | None = None
        #: When it is cut unless its client acts before (`time.monotonic`). Set by `WaitingConnections`.
        self.deadline = 0.0
        self.closed = False
        #: Whether it takes no request after the one that is being answered. Set by the worker.
        self.closes_after_answer = False
        self._reading = False
        # Whether the client has ended its side of the connection.
        self._ended = False
        # Whether it ends after the response that is being sent.
        self._closing = False
        # Whether its client was refused, and it only waits until the client has read that.
        self._lingering = False
        self._discarded_bytes = 0
        self._unsent = b""

    def start(self) -> None:
        """Begin to read, at once: most clients have already sent their request."""
        self._owner.on_waiting(self)
        self._receive()

    @property
    def host(self) -> str:
        """The client's address, for logs. Behind a proxy it is the proxy's."""
        return self.client[0]

    @property
    def holds_part_of_a_request(self) -> bool:
        """Whether its client has begun a request but not finished it."""
        return self._framing.buffered_bytes > 0 and not self._lingering and not self._unsent

    def answer(self, data: bytes, *, closes: bool) -> None:
        """Send the response to `request`, then wait for the next request or end."""
        if self.closed:
            return
        self.request = self.pending = None
        self._closing = closes or self._ended
        self._send(data)

    def refuse(self, data: bytes) -> None:
        """Send a refusal. Nothing that the client sends afterwards is a request."""
        if self.closed:
            return
        with contextlib.suppress(OSError):  # without waiting: a client with unread responses gets none
            self._sock.send(data)
        self._linger()

    def close(self) -> None:
        """Close it now. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        self._stop_reading()
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._owner.on_busy(self)
        self._owner.on_closed(self)
        if self.pending is not None:
            self.pending.close()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            self._read_on()
            return
        except OSError:
            self.close()  # reset by the client: nobody reads a response
            return
        if not data:
            self._end()
        elif self._lingering:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > _MAX_DISCARDED_BYTES:
                self.close()
        else:
            self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        if not self._framing.buffered_bytes and self.request is None and not self._unsent:
            self._owner.on_waiting(self)  # the time of a request begins with its first byte
        self._framing.feed(data)
        if self.request is None and not self._unsent:
            self._take_request()
        elif self._framing.buffered_bytes > _MAX_AHEAD_BYTES:
            self._stop_reading()
        if not self.closed:
            self._read_on()

    def _take_request(self) -> None:
        """Pass a whole request on; wait for more bytes where there is none yet."""
        try:
            request = self._framing.take_request(time.monotonic())
        except RequestRefused as refusal:
            self.refuse(self._owner.on_refused(self, refusal))
            return
        if request is not None:
            self.request = request
            self._owner.on_busy(self)
            self._owner.on_request(self, request)
        elif self._ended:
            self.close()
        elif self._framing.take_continue():
            with contextlib.suppress(OSError):
                self._sock.send(_CONTINUE)

    def _end(self) -> None:
        """The client sends no more. A request that has arrived is still answered."""
        self._ended = True
        self._stop_reading()
        if self._lingering or (self.request is None and not self._unsent):
            self.close()

    def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            if not self._unsent:
                self._loop.add_writer(self._sock, self._send_on)
                self._owner.on_waiting(self)
            self._unsent = data[sent:]
        else:
            self._sent()

    def _send_on(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._sock)
            self._sent()

    def _sent(self) -> None:
        if not self._closing:
            self._owner.on_waiting(self)
            if self._framing.buffered_bytes or self._ended:
                self._take_request()
            if not self.closed and not self._ended:
                self._read_on()
        elif self._framing.buffered_bytes:
            self._linger()
        else:
            self.close()

    def _linger(self) -> None:
        """Read and discard for a while: closing with unread bytes would reset the connection and lose the response."""
        if self._ended:
            self.close()
            return
        self._lingering = True
        with contextlib.suppress(OSError):  # the client has gone; the next receive notices it
            self._sock.shutdown(socket.SHUT_WR)
        self._owner.on_waiting(self)
        self._read_on()

    def _read_on(self) -> None:
        if not self._reading and not self.closed and not self._ended:
            self._reading = True
            self._loop.add_reader(self._sock, self._receive)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)


class WaitingConnections:
    """The connections that wait for their clients, in the order of their deadlines.

    All get the same time, so the one added last is due last.
    """

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._latest = math.inf
        self._connections: dict[Connection, None] = {}

    def __bool__(self) -> bool:
        return bool(self._connections)

    def add(self, connection: Connection) -> None:
        """Begin to wait for its client; one that waits already starts again."""
        connection.deadline = min(time.monotonic() + self._timeout_seconds, self._latest)
        self._connections.pop(connection, None)
        self._connections[connection] = None

    def remove(self, connection: Connection) -> None:
        """Wait for its client no longer. Harmless where it does not wait."""
        self._connections.pop(connection, None)

    def take_oldest(self) -> Connection | None:
        """Remove and return the connection with the earliest deadline, due or not."""
        for connection in self._connections:
            del self._connections[connection]
            return connection
        return None

    def take_due(self) -> list[Connection]:
        """Remove and return the connections whose time is up."""
        now = time.monotonic()
        due = list(takewhile(lambda connection: connection.deadline <= now, self._connections))
        for connection in due:
            del self._connections[connection]
        return due

    def seconds_to_next(self, *, at_most: float) -> float:
        """Seconds until the earliest deadline, at most `at_most`."""
        for connection in self._connections:
            return min(at_most, max(connection.deadline - time.monotonic(), 0.0))
        return at_most

    def cap(self, deadline: float) -> None:
        """Let no connection, present or future, wait beyond `deadline` (`time.monotonic`)."""
        self._latest = deadline
        for connection in self._connections:
            connection.deadline = min(connection.deadline, deadline)
