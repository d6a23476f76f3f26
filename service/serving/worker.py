"""A gunicorn worker on an asyncio loop, and its connections. Only whole requests reach the application.

gunicorn's own threaded worker reads each request on a thread of its pool, so as many slow clients as there are threads
stop it, and its `timeout` is a heartbeat, not a read deadline. Here the loop collects what clients send, waits for none
of them, cuts off those that are too slow, and passes whole requests on: a slow client costs only a buffer.
"""

import asyncio
import contextlib
import math
import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from functools import partial
from itertools import takewhile
from types import FrameType
from typing import Any

from gunicorn.workers.base import Worker

from service.runtime.logs import Logger
from service.serving.http import (
    HttpRequest,
    PendingResponse,
    RequestFraming,
    RequestRefused,
    WsgiResponse,
    call_application,
    make_environ,
    write_response,
)

#: Request line and headers together, in bytes. A token has up to 760 characters; proxies add headers of their own.
MAX_HEAD_BYTES = 16 * 1024

_HEARTBEAT_SECONDS = 1.0
#: How long requests are handled before the loop reads from its sockets again.
_TURN_SECONDS = 0.005
#: At shutdown, how often it checks whether all requests are answered.
_DRAIN_POLL_SECONDS = 0.01
#: At shutdown, how long an idle client may still send a request.
_LAST_WAIT_SECONDS = 2.0
#: Signals that are read at once.
_MAX_SIGNALS = 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RECEIVE_BYTES = 64 * 1024
# How much is read of further requests while one is answered: enough for one whole request.
_MAX_AHEAD_BYTES = 128 * 1024
# How much is still read after a refusal, so that the client can read the response instead of a reset.
_MAX_DISCARDED_BYTES = 1024 * 1024
_TIMEOUT = 408
_TOO_LATE = 503

_log = Logger(__name__)


class LoopWorker(ABC, Worker):  # type: ignore[misc]  # gunicorn has no type hints
    """Reads requests on a loop, with deadlines; its subclass decides how they are answered.

    `self.app` is gunicorn's application object, `self.wsgi` the WSGI application. Requests are answered in the order in
    which they arrive. A request that has waited for too long gets a failure before the application sees it.
    """

    #: How long a client may take to send one request, or to read one response.
    request_timeout_seconds: float
    #: How long a whole request may wait until it is answered.
    answer_within_seconds: float
    max_body_bytes: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loop: asyncio.AbstractEventLoop
        self._connections: set[Connection] = set()
        self._waiting: WaitingConnections
        self._cut_timer: asyncio.TimerHandle | None = None
        self._due: deque[tuple[Connection, HttpRequest]] = deque()
        self._accepting = False
        self._ending: asyncio.Event

    @abstractmethod
    def refusal(self, status: int) -> bytes:
        """A whole response to an invalid or late request; the connection ends after it."""

    @abstractmethod
    def report_cut(self, connection: "Connection", reason: str, *, kind: str = "") -> None:
        """Log and count a request that the application does not see. `reason` is a constant, `kind` an error's name."""

    async def begin(self) -> None:
        """Start what the application needs on the loop, before the first connection."""

    async def end(self) -> None:
        """Stop what `begin` has started; no connection is left."""

    # For subclasses.

    def respond(self, connection: "Connection", request: HttpRequest) -> None:
        """Call the application on the loop and send its response. An exception ends the connection."""
        self.send(connection, request, self.call_application(connection, request))

    def call_application(self, connection: "Connection", request: HttpRequest) -> WsgiResponse | PendingResponse:
        """The WSGI application's response to a request. From any thread."""
        return call_application(self.wsgi, make_environ(request, client=connection.client, server=connection.server))

    def send(self, connection: "Connection", request: HttpRequest, response: WsgiResponse | PendingResponse) -> None:
        """Send a response, now or as soon as it is known. On the loop."""
        if isinstance(response, PendingResponse):
            connection.pending = response
            response.when_concluded(partial(self.send, connection, request))
        else:
            closes = connection.closes_after_answer
            connection.answer(write_response(response, request, closes=closes), closes=closes)

    # What gunicorn calls.

    def init_signals(self) -> None:
        """Handle SIGTERM and SIGHUP on the loop, where a handler never interrupts another callback.

        If SIGHUP is ignored, as under `nohup`, it stays ignored. The loop's own signal handlers are not used: closing
        the loop closes their pipe while signals still come, and then lets the next signal kill the process.
        """
        self.loop = asyncio.new_event_loop()
        hangup = signal.getsignal(signal.SIGHUP)
        super().init_signals()
        signal.set_wakeup_fd(self.PIPE[1], warn_on_full_buffer=False)  # Python writes each signal's number to it
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.signal(signal.SIGHUP, hangup if hangup is signal.SIG_IGN else lambda _number, _frame: None)
        self.loop.add_reader(self.PIPE[0], self._read_signals)

    def _read_signals(self) -> None:
        for number in os.read(self.PIPE[0], _MAX_SIGNALS):
            if number in (signal.SIGTERM, signal.SIGHUP):
                self.handle_exit(number, None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGHUP: finish pending requests and end."""
        super().handle_exit(sig, frame)
        self._ending.set()

    def init_process(self) -> None:
        """Set up the process, then serve until the end."""
        self._ending = asyncio.Event()
        self._waiting = WaitingConnections(timeout_seconds=self.request_timeout_seconds)
        super().init_process()

    def run(self) -> None:
        """Serve until SIGTERM, or until the master is gone."""
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self.loop.close()

    async def _serve(self) -> None:
        await self.begin()
        self._set_accepting(True)
        while self.alive:
            self.notify()
            if self.ppid != os.getppid():
                # The master is gone: end as at SIGTERM, because the next master needs the port.
                self.handle_exit(signal.SIGTERM, None)
                break
            await self._wait_for_end(_HEARTBEAT_SECONDS)
        self._take_backlogs()
        self._waiting.cap(time.monotonic() + _LAST_WAIT_SECONDS)
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        self._cut_due()
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while self._connections and time.monotonic() < deadline:
            self.notify()
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        for connection in list(self._connections):
            connection.close()
        await self.end()

    async def _wait_for_end(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            pass

    # Accepting.

    def _set_accepting(self, accepting: bool) -> None:
        if accepting == self._accepting:
            return
        self._accepting = accepting
        for listener in self.sockets:
            if accepting:
                listener.setblocking(False)
                self.loop.add_reader(listener, self._accept, listener)
            else:
                self.loop.remove_reader(listener)

    def _accept(self, listener: Any) -> bool:
        """Take one connection from the backlog; says whether there was one."""
        try:
            sock, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:  # out of files or memory: other connections have to end first
            _log.error("accept_failed", reason=str(error))
            self._set_accepting(False)
            self.loop.call_later(_HEARTBEAT_SECONDS, self._accept_again)
            return False
        sock.setblocking(False)
        framing = RequestFraming(cfg=self.cfg, max_head_bytes=MAX_HEAD_BYTES, max_body_bytes=self.max_body_bytes)
        connection = Connection(sock=sock, client=client, framing=framing, worker=self)
        self._connections.add(connection)
        connection.start()
        if len(self._connections) >= self.cfg.worker_connections:
            self._make_room()
        self._set_accepting(len(self._connections) < self.cfg.worker_connections and self.alive)
        return True

    def _accept_again(self) -> None:
        if self.alive:
            self._set_accepting(True)

    def _take_backlogs(self) -> None:
        """Accept the connections that wait already, then close, so that nobody connects to a backlog in vain."""
        self._set_accepting(False)
        for listener in self.sockets:
            while len(self._connections) < self.cfg.worker_connections and self._accept(listener):
                pass
            listener.close()

    def _make_room(self) -> None:
        """Cut the connection that has waited longest, so that a flood of silent ones cannot keep out a callback."""
        oldest = self._waiting.take_oldest()
        if oldest is not None:
            self.report_cut(oldest, "crowded-out")
            oldest.close()

    # Called by connections.

    def on_request(self, connection: "Connection", request: HttpRequest) -> None:
        """Queue a whole request."""
        if not self._due:
            self.loop.call_soon(self._respond_to_due)
        self._due.append((connection, request))

    def on_refused(self, connection: "Connection", refusal: RequestRefused) -> bytes:
        """The response to an invalid request."""
        self.report_cut(connection, refusal.reason, kind=refusal.kind)
        return self.refusal(refusal.status)

    def on_waiting(self, connection: "Connection") -> None:
        """Begin to wait for the client, for its whole time."""
        self._waiting.add(connection)
        self._schedule_cut()

    def on_busy(self, connection: "Connection") -> None:
        """Stop waiting for the client."""
        self._waiting.remove(connection)

    def on_closed(self, connection: "Connection") -> None:
        """Forget the connection, and accept another one."""
        self._connections.discard(connection)
        self._accept_again()

    # Callbacks of the loop.

    def _respond_to_due(self) -> None:
        """Answer queued requests for a short time, then let the loop read what has arrived meanwhile."""
        turn_ends_at = time.monotonic() + _TURN_SECONDS
        while self._due:
            now = time.monotonic()
            if now >= turn_ends_at:
                self.loop.call_soon(self._respond_to_due)
                return
            connection, request = self._due[0]
            try:
                self._respond_in_time(connection, request, now)
            except Exception as error:  # noqa: BLE001 - one request must not end the others
                _log.error("request_failed", client=connection.host, exc_info=error)
                connection.close()
            finally:
                self._due.popleft()

    def _respond_in_time(self, connection: "Connection", request: HttpRequest, now: float) -> None:
        if connection.closed:
            return
        if now - request.arrived_at >= self.answer_within_seconds:
            self.report_cut(connection, "too-late")
            connection.answer(self.refusal(_TOO_LATE), closes=True)
        else:
            # Decided before the application is called: "ready" must not be the last response of a connection.
            connection.closes_after_answer = not self.alive or request.head.closes
            self.respond(connection, request)

    def _schedule_cut(self) -> None:
        if self._cut_timer is None:
            seconds = self._waiting.seconds_to_next(at_most=self.request_timeout_seconds)
            self._cut_timer = self.loop.call_later(seconds, self._cut_due)

    def _cut_due(self) -> None:
        """Cut the connections whose time is up."""
        self._cut_timer = None
        for connection in self._waiting.take_due():
            if connection.holds_part_of_a_request:
                self.report_cut(connection, "too-slow")
                connection.refuse(self.refusal(_TIMEOUT))
            connection.close()
        if self._waiting:
            self._schedule_cut()


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
        "_reading",
        "_sock",
        "_unsent",
        "_worker",
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
        worker: LoopWorker,
    ) -> None:
        """`sock` is connected and does not block."""
        self._sock = sock
        self._framing = framing
        self._worker = worker
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
        self._worker.on_waiting(self)
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
        self._worker.loop.remove_writer(self._sock)
        self._sock.close()
        self._worker.on_busy(self)
        self._worker.on_closed(self)
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
            self._worker.on_waiting(self)  # the time of a request begins with its first byte
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
            self.refuse(self._worker.on_refused(self, refusal))
            return
        if request is not None:
            self.request = request
            self._worker.on_busy(self)
            self._worker.on_request(self, request)
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
                self._worker.loop.add_writer(self._sock, self._send_on)
                self._worker.on_waiting(self)
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
            self._worker.loop.remove_writer(self._sock)
            self._sent()

    def _sent(self) -> None:
        if not self._closing:
            self._worker.on_waiting(self)
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
        self._worker.on_waiting(self)
        self._read_on()

    def _read_on(self) -> None:
        if not self._reading and not self.closed and not self._ended:
            self._reading = True
            self._worker.loop.add_reader(self._sock, self._receive)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._worker.loop.remove_reader(self._sock)


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
