"""A server under gunicorn whose requests are answered on threads: the internal API, and the console."""

import math
import time
from abc import abstractmethod
from asyncio import Future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any, Protocol

from flask import Flask
from gunicorn.app.base import BaseApplication

from service.runtime.logs import Logger
from service.serving.gunicorn_settings import QuietLogger, common_settings, keep_signals_over_forks
from service.serving.health import Drain
from service.serving.http import HttpRequest, PendingResponse, WsgiResponse
from service.serving.worker import Connection, LoopWorker

_log = Logger(__name__)


class ServerSettings(Protocol):
    """The settings of such a server."""

    @property
    def bind(self) -> str:
        """host:port."""

    @property
    def workers(self) -> int:
        """The number of processes."""

    @property
    def threads(self) -> int:
        """The number of threads in each process."""

    @property
    def drain_seconds(self) -> float:
        """How long requests may still take after SIGTERM."""


class ThreadWorker(LoopWorker):
    """Reads requests on a loop, and uses a thread only for a request that has arrived whole.

    `self.app` is gunicorn's application object. A subclass says how a refusal looks.
    """

    request_timeout_seconds = 5.0
    #: How long a request may wait for a thread; callers wait longer.
    answer_within_seconds = 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._threads: ThreadPoolExecutor

    @abstractmethod
    def make_refusal(self, status: int) -> WsgiResponse:
        """A response that quotes nothing of the request."""

    async def begin(self) -> None:
        """Make the threads."""
        self._threads = ThreadPoolExecutor(self.cfg.threads, thread_name_prefix=self.cfg.proc_name)

    async def end(self) -> None:
        """Abandon the threads: a request that takes longer than the drain is cut off."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def respond(self, connection: Connection, request: HttpRequest) -> None:
        """Have a thread call the application."""
        answered = self.loop.run_in_executor(self._threads, self._answer, connection, request)
        answered.add_done_callback(partial(self._send_response, connection, request))

    def refusal(self, status: int) -> bytes:
        """The refusal of a request that the application does not see."""
        response = self.make_refusal(status)
        headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
        return f"HTTP/1.1 {response.status}\r\nConnection: close\r\n{headers}\r\n".encode() + response.body

    def report_cut(self, connection: Connection, reason: str, *, kind: str = "") -> None:
        """Log the error's type only: its text quotes the request, which may contain a token or a name."""
        _log.warning("request_cut", reason=reason, error=kind, client=connection.host)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """At SIGTERM, finish the requests under way, and answer `/readyz` with 503."""
        self.app.drain.begin()
        super().handle_exit(sig, frame)

    def _answer(self, connection: Connection, request: HttpRequest) -> WsgiResponse | PendingResponse:
        if time.monotonic() - request.arrived_at >= self.answer_within_seconds:
            self.report_cut(connection, "too-late")
            return self.make_refusal(503)
        return self.call_application(connection, request)

    def _send_response(
        self, connection: Connection, request: HttpRequest, answered: "Future[WsgiResponse | PendingResponse]"
    ) -> None:
        error = answered.exception()
        if error is None:
            self.send(connection, request, answered.result())
        else:
            _log.error("request_failed", client=connection.host, exc_info=error)
            connection.close()


def serve_on_threads(
    *, make_app: Callable[[Drain], Flask], settings: ServerSettings, worker: type[ThreadWorker], name: str
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then end the process (SystemExit, 0 on success).

    `make_app` is called once in every worker, after the fork; its argument says when that worker is about to end. The
    processes are called `name`.
    """
    keep_signals_over_forks()
    _Server(make_app=make_app, settings=settings, worker=worker, name=name).run()


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no type hints
    """gunicorn's view of the server."""

    def __init__(
        self, *, make_app: Callable[[Drain], Flask], settings: ServerSettings, worker: type[ThreadWorker], name: str
    ) -> None:
        #: Set by the worker when it is about to end.
        self.drain = Drain()
        self._make_app = make_app
        self._settings = settings
        self._worker = worker
        self._name = name
        super().__init__()

    def load_config(self) -> None:
        """Pass gunicorn every setting; it reads no file, environment or command line."""
        settings = self._settings
        own: dict[str, Any] = {
            "bind": settings.bind,
            "workers": settings.workers,
            "threads": settings.threads,
            "worker_class": self._worker,
            "graceful_timeout": max(math.ceil(settings.drain_seconds), 1),
            "logger_class": QuietLogger,
            "proc_name": self._name,
        }
        for name, value in {**common_settings(), **own}.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """The application of one worker, made in it."""
        return self._make_app(self.drain)
