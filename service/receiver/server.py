"""The receiver under gunicorn, in this process: a master that forks workers, which never wait for the queue."""

import asyncio
import contextlib
import fcntl
import math
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from service.config.settings import MerchantSettings, ReceiverSettings
from service.messaging.interface import AsyncPublisher
from service.receiver.app import FAILURE_BODY, MAX_BODY_BYTES, PLAIN, Health, create_app
from service.runtime.logs import Logger
from service.runtime.metrics.exposition import expose_shared, forget_process, name_role, share_between_processes
from service.runtime.metrics.receiver import ReceiverMetrics
from service.runtime.tracing import Tracing
from service.serving.gunicorn_settings import (
    QuietLogger,
    common_settings,
    find_shared_memory,
    keep_signals_over_forks,
)
from service.serving.worker import Connection, LoopWorker

#: Connections of one worker.
_MAX_CONNECTIONS = 512
#: Files of a worker that are not connections of clients: queue, broker, counters, log.
_OTHER_FILES = 64

_METRICS_PREFIX = "payment-callbacks-metrics-"
_METRICS_LOCK = "in-use"

#: How long a worker that ends waits until the publisher has settled what is pending.
_CLOSE_SECONDS = 2.0

_log = Logger(__name__)


class ReceiverServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no type hints
    """gunicorn's application object for the receiver: settings, hooks, and how a worker gets its WSGI application."""

    def __init__(
        self,
        *,
        merchants: Mapping[str, MerchantSettings],
        make_publisher: Callable[[ReceiverMetrics, asyncio.AbstractEventLoop], AsyncPublisher],
        clock: Callable[[], datetime],
        settings: ReceiverSettings,
        log_metrics: Collector,
        make_tracing: Callable[[], Tracing],
    ) -> None:
        """`make_publisher` and `make_tracing` are called once in every worker, after the fork.

        The first gets the metrics to which a spool reports its depth, and the loop to publish on. `log_metrics` are
        collected in the master, for all processes.
        """
        self.settings = settings
        #: The health and the loop of the worker process that this object was forked into.
        self.health = Health()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._merchants = merchants
        self._make_publisher = make_publisher
        self._clock = clock
        self._log_metrics = log_metrics
        self._make_tracing = make_tracing
        self._metrics_directory = MetricsDirectory(parent=find_shared_memory())
        share_between_processes(self._metrics_directory.path)
        registry = CollectorRegistry()
        name_role(registry, "receiver")
        self.metrics = ReceiverMetrics(registry=registry, merchants=merchants)
        super().__init__()

    def load_config(self) -> None:
        """Set all of gunicorn's settings; it reads no file, environment or command line."""
        settings = self.settings
        own: dict[str, Any] = {
            "bind": settings.bind,
            "workers": settings.workers,
            "worker_class": ReceiverWorker,
            "worker_connections": _connections_within(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            "graceful_timeout": max(math.ceil(settings.drain_seconds), 1),
            "logger_class": QuietLogger,
            "proc_name": "payment-callbacks-receiver",
            "when_ready": self._on_ready,
            "child_exit": self._on_child_exit,
        }
        for name, value in {**common_settings(), **own}.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP, then end the process (SystemExit, 0 where all went well)."""
        master = os.getpid()
        keep_signals_over_forks()
        try:
            super().run()
        finally:
            # A worker is a fork, and also gets here when it ends.
            if os.getpid() == master:
                self._metrics_directory.remove()

    def load(self) -> Flask:
        """Make the application of one worker, in that worker."""
        return create_app(
            merchants=self._merchants,
            make_publisher=partial(self._make_publisher, self.metrics),
            metrics=self.metrics,
            clock=self._clock,
            settings=self.settings,
            health=self.health,
            loop=self.loop,
            tracing=self._make_tracing(),
        )

    def _on_ready(self, _arbiter: Any) -> None:
        if self.settings.metrics_bind:
            expose_shared(self._metrics_directory.path, self._log_metrics, bind=self.settings.metrics_bind)

    def _on_child_exit(self, _arbiter: Any, worker: Any) -> None:
        forget_process(worker.pid, self._metrics_directory.path)


class ReceiverWorker(LoopWorker):
    """One thread on a loop. A response is written when the queue has confirmed its callback.

    `self.app` is the `ReceiverServer`.
    """

    max_body_bytes = MAX_BODY_BYTES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request_timeout_seconds = self.app.settings.request_timeout_seconds
        self.answer_within_seconds = self.app.settings.confirm_timeout_seconds
        self._publishing_refusals: asyncio.Task[None] | None = None

    def load_wsgi(self) -> None:
        """Make the application, whose publisher publishes on this loop."""
        self.app.loop = self.loop
        super().load_wsgi()

    async def begin(self) -> None:
        """Begin to publish the counts of refusals."""
        self._publishing_refusals = self.loop.create_task(self.wsgi.extensions["refusals"].run())

    async def end(self) -> None:
        """Publish the last refusals, close the publisher, and send the last spans."""
        if self._publishing_refusals is not None:
            self._publishing_refusals.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._publishing_refusals
        await self.wsgi.extensions["refusals"].close()
        await self.wsgi.extensions["publisher"].close(timeout_seconds=_CLOSE_SECONDS)
        self.wsgi.extensions["tracing"].close()

    def refusal(self, status: int) -> bytes:
        """The failure that every refused request gets, as bytes of HTTP. The connection ends after it."""
        return (
            f"HTTP/1.1 {status} \r\nConnection: close\r\nContent-Type: {PLAIN}\r\n"
            f"Content-Length: {len(FAILURE_BODY)}\r\n\r\n{FAILURE_BODY}"
        ).encode("ascii")

    def report_cut(self, connection: Connection, reason: str, *, kind: str = "") -> None:
        """Count and log it. Only the kind of error is logged: its text quotes the request line and so the token."""
        self.app.metrics.count_cut(reason)
        _log.warning("request_cut", reason=reason, error=kind, client=connection.host)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: report that the worker is not ready, finish pending requests, and end."""
        self.app.health.drain()
        super().handle_exit(sig, frame)


def _connections_within(open_files: int) -> int:
    """How many connections a worker may hold: so many that they do not use up its files."""
    if open_files == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(1, min(_MAX_CONNECTIONS, open_files - _OTHER_FILES))


class MetricsDirectory:
    """A new, empty folder below `parent`, in which the processes of one receiver keep their counters.

    Folders that a killed receiver left there are removed first. A folder is in use while its creator or a fork of it
    lives: the kernel holds the lock that long, also across containers, where process ids mean nothing.
    """

    def __init__(self, *, parent: Path) -> None:
        _remove_left_behind(parent)
        self.path = Path(tempfile.mkdtemp(prefix=f"{_METRICS_PREFIX}{os.getpid()}-", dir=parent))
        self._lock = os.open(self.path / _METRICS_LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Delete it. Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_left_behind(parent: Path) -> None:
    for lock_file in parent.glob(f"{_METRICS_PREFIX}*/{_METRICS_LOCK}"):
        try:
            lock = os.open(lock_file, os.O_RDWR)
        except OSError:
            continue  # another user's, or gone already
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # in use
        else:
            shutil.rmtree(lock_file.parent, ignore_errors=True)
        finally:
            os.close(lock)
