"""A gunicorn worker on an asyncio loop. Only whole requests reach the application; a slow client costs only a buffer.

gunicorn's own threaded worker reads each request on a thread of its pool, so as many slow clients as there are threads
stop it, and its `timeout` is a heartbeat, not a read deadline. Here the loop collects what clients send, waits for none
of them, cuts off those that are too slow, and passes whole requests on.
"""

import asyncio
import os
import signal
import time
from abc import ABC, abstractmethod
from collections import deque
from functools import partial
from types import FrameType
from typing import Any

import structlog
from gunicorn.workers.base import Worker

from service.serving.connection import Connection, WaitingConnections
from service.serving.framing import HttpRequest, RequestFraming, RequestRefused
from service.serving.wsgi import PendingResponse, WsgiResponse, call_application, make_environ, write_response

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
_MOST_SIGNALS = 1024
_TIMEOUT = 408
_TOO_LATE = 503

_log = structlog.get_logger(__name__)


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
    def report_cut(self, connection: Connection, reason: str, *, kind: str = "") -> None:
        """Log and count a request that the application does not see. `reason` is a constant, `kind` an error's name."""

    async def begin(self) -> None:
        """Start what the application needs on the loop, before the first connection."""

    async def end(self) -> None:
        """Stop what `begin` has started; no connection is left."""

    # For subclasses.

    def respond(self, connection: Connection, request: HttpRequest) -> None:
        """Call the application on the loop and send its response. An exception ends the connection."""
        self.send(connection, request, self.call_application(connection, request))

    def call_application(self, connection: Connection, request: HttpRequest) -> WsgiResponse | PendingResponse:
        """The WSGI application's response to a request. From any thread."""
        return call_application(self.wsgi, make_environ(request, client=connection.client, server=connection.server))

    def send(self, connection: Connection, request: HttpRequest, response: WsgiResponse | PendingResponse) -> None:
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
        for number in os.read(self.PIPE[0], _MOST_SIGNALS):
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
        connection = Connection(sock=sock, client=client, framing=framing, loop=self.loop, owner=self)
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

    def on_request(self, connection: Connection, request: HttpRequest) -> None:
        """Queue a whole request."""
        if not self._due:
            self.loop.call_soon(self._respond_to_due)
        self._due.append((connection, request))

    def on_refused(self, connection: Connection, refusal: RequestRefused) -> bytes:
        """The response to an invalid request."""
        self.report_cut(connection, refusal.reason, kind=refusal.kind)
        return self.refusal(refusal.status)

    def on_waiting(self, connection: Connection) -> None:
        """Begin to wait for the client, for its whole time."""
        self._waiting.add(connection)
        self._schedule_cut()

    def on_busy(self, connection: Connection) -> None:
        """Stop waiting for the client."""
        self._waiting.remove(connection)

    def on_closed(self, connection: Connection) -> None:
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

    def _respond_in_time(self, connection: Connection, request: HttpRequest, now: float) -> None:
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
