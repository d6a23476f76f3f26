"""One client's connection on a worker's loop: requests come in, and are answered one at a time, in order."""

import asyncio
import contextlib
import socket
import time
from typing import Protocol

from service.serving.framing import HttpRequest, RequestFraming, RequestRefused
from service.serving.wsgi import PendingAnswer

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RECEIVE_BYTES = 64 * 1024
# What is read of a client's next requests while one is answered. Enough for one whole request; the rest waits.
_MAX_AHEAD_BYTES = 128 * 1024
# How much of what was refused is still read, so that the client gets to read its answer and not a reset.
_MAX_DISCARDED_BYTES = 1024 * 1024


class ConnectionOwner(Protocol):
    """What a connection tells its worker."""

    def on_request(self, connection: "Connection", request: HttpRequest) -> None:
        """A whole request has come; `answer` is to be called for it, once."""

    def on_refused(self, connection: "Connection", refusal: RequestRefused) -> bytes:
        """What has come is no request; says what to answer."""

    def on_waiting(self, connection: "Connection") -> None:
        """It waits for its client from now on, for a limited time."""

    def on_busy(self, connection: "Connection") -> None:
        """It waits for its client no longer."""

    def on_closed(self, connection: "Connection") -> None:
        """It is closed."""


class Connection:
    """A client's socket, what has arrived on it, and the request that is being answered.

    It belongs to the loop's thread. Closing it abandons a pending answer.
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
        #: The request that is being answered, and its answer where that is pending.
        self.request: HttpRequest | None = None
        self.pending: PendingAnswer | None = None
        #: When it is cut unless its client has done what it waits for (`time.monotonic`). Its worker's.
        self.deadline = 0.0
        self.closed = False
        #: Whether it takes no request after the one that is being answered. Its worker's.
        self.closes_after_answer = False
        self._reading = False
        # Whether the client sends no more.
        self._ended = False
        # Whether it ends after the answer that is being sent.
        self._closing = False
        # Whether it was turned away and only waits for the client to have read that.
        self._lingering = False
        self._discarded_bytes = 0
        self._unsent = b""

    def start(self) -> None:
        """Begin to read; most clients have sent their request by now."""
        self._owner.on_waiting(self)
        self._receive()

    @property
    def host(self) -> str:
        """The client's address, for logs: the nearest proxy's where there is one."""
        return self.client[0]

    @property
    def holds_part_of_a_request(self) -> bool:
        """Whether its client has begun a request, and not ended it."""
        return self._framing.buffered_bytes > 0 and not self._lingering and not self._unsent

    def answer(self, data: bytes, *, closes: bool) -> None:
        """Send the answer to `request`, then wait for the next one or end."""
        if self.closed:
            return
        self.request = self.pending = None
        self._closing = closes or self._ended
        self._send(data)

    def refuse(self, data: bytes) -> None:
        """Turn the client away: nothing that it sends is a request any more."""
        if self.closed:
            return
        with contextlib.suppress(OSError):  # without waiting: who has not read what came before goes without
            self._sock.send(data)
        self._linger()

    def close(self) -> None:
        """End it now. Safe to call twice."""
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
            self.close()  # reset by the client: nobody reads an answer
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
            self._owner.on_waiting(self)  # a request has its whole time from its first byte on
        self._framing.feed(data)
        if self.request is None and not self._unsent:
            self._take_request()
        elif self._framing.buffered_bytes > _MAX_AHEAD_BYTES:
            self._stop_reading()
        if not self.closed:
            self._read_on()

    def _take_request(self) -> None:
        """Hand a whole request on; go on waiting where there is none yet."""
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
        """The client sends no more. What it has asked is still answered."""
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
        """Read on for a while and forget it: closing with unread bytes would reset the answer away."""
        if self._ended:
            self.close()
            return
        self._lingering = True
        with contextlib.suppress(OSError):  # the client has gone, which the next receive finds out
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
