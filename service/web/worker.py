"""The gunicorn worker: a thread is taken only by a request that has arrived whole.

gunicorn's own threaded worker reads each request on a thread of its pool, so that as many slow clients as there are
threads stop it, and its `timeout` is a heartbeat, not a read deadline. Here the main loop collects what clients send,
without ever waiting for one of them, cuts those that are too slow, and hands on whole requests.
"""

import contextlib
import socket
import time
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ
from types import FrameType
from typing import Any

import structlog
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.workers.gthread import ThreadWorker

from service.web.answers import bare_failure
from service.web.app import MAX_BODY_BYTES
from service.web.connection import Connection
from service.web.exchange import make_answer
from service.web.framing import RequestFraming, RequestTooLarge
from service.web.waiting import WaitingConnections

#: Request line and headers together, in bytes. A token has up to 760 characters; proxies add headers of their own.
MAX_HEAD_BYTES = 16 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RECEIVE_BYTES = 64 * 1024
# How much of what was too large is still read, so that the client gets to read its answer and not a reset.
_MAX_DISCARDED_BYTES = 1024 * 1024

_log = structlog.get_logger(__name__)


class ReceiverWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no type hints
    """Answers whole requests on threads; connections that send none cost a buffer, and a few seconds at most.

    Of the base class it keeps the thread pool, the loop with its heartbeat, and the signals; `self.app` is the
    `ReceiverServer`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timeout_seconds: float = self.app.settings.request_timeout_seconds
        self._waiting = WaitingConnections(timeout_seconds=self._timeout_seconds)

    # What the base class calls, on the main loop.

    def accept(self, listener: Any) -> bool:
        """Take one connection from the backlog; says whether there was one."""
        try:
            sock, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        sock.setblocking(False)
        framing = RequestFraming(max_head_bytes=MAX_HEAD_BYTES, max_body_bytes=MAX_BODY_BYTES)
        connection = Connection(sock=sock, client=client, server=sock.getsockname(), framing=framing)
        self.nr_conns += 1
        self._waiting.add(connection)
        self._receive(connection, sock)
        if self.nr_conns >= self.worker_connections:
            self._make_room()
        return True

    def set_accept_enabled(self, enabled: bool) -> None:
        """Start or stop accepting; at shutdown for good, and what waits in the backlog is taken before."""
        ending = not enabled and not self.alive
        if ending:
            for listener in self.sockets:
                while self.nr_conns < self.worker_connections and self.accept(listener):
                    pass
        super().set_accept_enabled(enabled)
        if ending:
            # At once, so that nobody connects to a backlog from which no one takes any more.
            for listener in self.sockets:
                listener.close()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Dispatch what has happened, or return when the next connection is due to be cut."""
        super().wait_for_and_dispatch_events(self._waiting.seconds_to_next(at_most=timeout))

    def murder_pending(self) -> None:
        """Cut every connection whose time is up."""
        for connection in self._waiting.take_due():
            self._cut(connection)

    def finish_request(self, connection: Connection, answered: "Future[bool]") -> None:
        """Wait for the connection's next request, or end it."""
        error = answered.exception()
        if error is not None:
            _log.error("request_failed", client=connection.host, exc_info=error)
            self._drop(connection)
        elif answered.result():
            connection.request = None
            connection.kept_alive = True
            self._waiting.add(connection)
            self._take_request(connection)
        elif connection.request is not None and connection.request.broken:
            self._linger(connection)
        else:
            self._drop(connection)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: finish what is in hand and end."""
        self.app.health.drain()
        super().handle_exit(sig, frame)

    def is_parent_alive(self) -> bool:
        """Whether the master lives. Without it, end as at SIGTERM: the next one needs the port, and soon gives up."""
        alive: bool = super().is_parent_alive()
        if not alive:
            self.app.health.drain()
            self.alive = False
        return alive

    def _cap_keepalive(self, deadline: float) -> None:
        """At shutdown: nobody is waited for beyond `deadline`."""
        self._waiting.cap(deadline)

    # Connections, on the main loop.

    def _watch(self, connection: Connection) -> None:
        if not connection.watched:
            connection.watched = True
            self.poller.register(connection.sock, EVENT_READ, partial(self._receive, connection))

    def _stop_watching(self, connection: Connection) -> None:
        if connection.watched:
            connection.watched = False
            self.poller.unregister(connection.sock)

    def _receive(self, connection: Connection, sock: socket.socket) -> None:
        if connection.request is not None:
            # It has sent more, or left, while its request is being answered. That is rare, so the poller is not told
            # of every request's begin and end; each call to it is a chance to lose the interpreter to another thread.
            self._stop_watching(connection)
            return
        try:
            data = sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            self._watch(connection)
            return
        except OSError:
            data = b""  # reset by the client: gone as after an end
        if not data:
            self._drop(connection)
        elif connection.lingering:
            connection.discarded_bytes += len(data)
            if connection.discarded_bytes > _MAX_DISCARDED_BYTES:
                self._drop(connection)
        else:
            if connection.kept_alive and connection.framing.empty:
                self._waiting.add(connection)
            connection.framing.feed(data)
            self._take_request(connection)

    def _take_request(self, connection: Connection) -> None:
        """Hand a whole request to a thread; go on waiting where there is none yet."""
        try:
            connection.request = connection.framing.take_request()
        except RequestTooLarge as error:
            self._report_cut(connection, "too-large")
            self._send_now(connection, bare_failure(error.status))
            self._linger(connection)
            return
        if connection.request is None:
            if connection.framing.take_continue():
                self._send_now(connection, _CONTINUE)
            self._watch(connection)
            return
        self._waiting.remove(connection)
        connection.arrived_at = time.monotonic()
        self.enqueue_req(connection)

    def _cut(self, connection: Connection) -> None:
        if not connection.framing.empty and not connection.lingering:
            self._report_cut(connection, "too-slow")
            self._send_now(connection, bare_failure(408))
        self._drop(connection)

    def _linger(self, connection: Connection) -> None:
        """Read on for a while and forget it: closing with unread bytes would reset the answer away."""
        connection.lingering = True
        connection.request = None
        with contextlib.suppress(OSError):  # the client has gone, which the next receive finds out
            connection.sock.shutdown(socket.SHUT_WR)
        self._waiting.add(connection)
        self._watch(connection)

    def _drop(self, connection: Connection) -> None:
        self._waiting.remove(connection)
        self._stop_watching(connection)
        self.nr_conns -= 1
        connection.sock.close()

    def _send_now(self, connection: Connection, data: bytes) -> None:
        # Without waiting: so few bytes fit into an empty send buffer, and whoever keeps it full goes without.
        with contextlib.suppress(OSError):
            connection.sock.send(data)

    def _make_room(self) -> None:
        """Cut the connection that has kept us waiting longest: a flood of silent ones must not keep out a callback."""
        oldest = self._waiting.take_oldest()
        if oldest is not None:
            self._report_cut(oldest, "crowded-out")
            self._drop(oldest)

    def _report_cut(self, connection: Connection, reason: str) -> None:
        self.app.metrics.count_cut(reason)
        _log.warning("request_cut", reason=reason, client=connection.host)

    # On a thread of the pool.

    def handle(self, connection: Connection) -> bool:
        """Answer the connection's request; says whether the connection can take another one."""
        request = connection.request
        assert request is not None  # noqa: S101 - it was set before it was handed over
        try:
            answer = make_answer(request, connection, application=self.wsgi, cfg=self.cfg, last=not self.alive)
            connection.send(answer.data, timeout_seconds=self._timeout_seconds)
        except (ParseException, NoMoreData) as error:
            # Only the kind of error: its text quotes the request line, and the token in it.
            self.app.metrics.count_cut("malformed")
            _log.warning("request_cut", reason="malformed", error=type(error).__name__, client=connection.host)
            self._send_now(connection, bare_failure(400))
        except OSError as error:
            _log.warning("answer_unsent", error=type(error).__name__, client=connection.host)
        else:
            return answer.keeps_connection
        return False
