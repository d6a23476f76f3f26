"""The receiver under gunicorn, in this process: a master that forks workers."""

import asyncio
import math
import os
import resource
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from service.config.settings import MerchantSettings, ReceiverSettings
from service.messaging.contract import AsyncPublisher
from service.runtime.metrics.exposition import expose_shared, forget_process, name_role, share_between_processes
from service.runtime.metrics.receiver import ReceiverMetrics
from service.serving.gunicorn_settings import (
    QuietLogger,
    common_settings,
    find_shared_memory,
    keep_signals_over_forks,
)
from service.web.app import create_app
from service.web.health import Health
from service.web.metrics_directory import MetricsDirectory

# Per worker.
_MAX_CONNECTIONS = 512
# Files of a worker that are no clients: queue, broker, counters, log.
_OTHER_FILES = 64


def serve(
    *,
    merchants: Mapping[str, MerchantSettings],
    make_publisher: Callable[[ReceiverMetrics, asyncio.AbstractEventLoop], AsyncPublisher],
    clock: Callable[[], datetime],
    settings: ReceiverSettings,
    log_metrics: Collector,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then end the process (SystemExit, 0 where all went well).

    `make_publisher` is called once in every worker, after fork, with the metrics that a spool reports its depth to and
    the loop that it publishes on. `log_metrics` are collected in the master, for all processes.
    """
    ReceiverServer(
        merchants=merchants, make_publisher=make_publisher, clock=clock, settings=settings, log_metrics=log_metrics
    ).run()


class ReceiverServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no type hints
    """gunicorn's view of the receiver: its settings, its hooks, and how a worker gets its application."""

    def __init__(
        self,
        *,
        merchants: Mapping[str, MerchantSettings],
        make_publisher: Callable[[ReceiverMetrics, asyncio.AbstractEventLoop], AsyncPublisher],
        clock: Callable[[], datetime],
        settings: ReceiverSettings,
        log_metrics: Collector,
    ) -> None:
        self.settings = settings
        #: The state of the worker that this object was forked into.
        self.health = Health()
        self._merchants = merchants
        self._make_publisher = make_publisher
        self._clock = clock
        self._log_metrics = log_metrics
        self._metrics_directory = MetricsDirectory(parent=find_shared_memory())
        share_between_processes(self._metrics_directory.path)
        registry = CollectorRegistry()
        name_role(registry, "receiver")
        self.metrics = ReceiverMetrics(registry=registry, merchants=merchants)
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn everything; it reads no file, environment or command line."""
        settings = self.settings
        own: dict[str, Any] = {
            "bind": settings.bind,
            "workers": settings.workers,
            "worker_class": "service.web.worker.ReceiverWorker",
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
        """Serve, and end the process."""
        master = os.getpid()
        keep_signals_over_forks()
        try:
            super().run()
        finally:
            # Workers are forks: each of them comes through here as well when it ends.
            if os.getpid() == master:
                self._metrics_directory.remove()

    def load(self) -> Flask:
        """The application of one worker, made in it."""
        return create_app(
            merchants=self._merchants,
            make_publisher=partial(self._make_publisher, self.metrics),
            metrics=self.metrics,
            clock=self._clock,
            settings=self.settings,
            health=self.health,
        )

    def _on_ready(self, _arbiter: Any) -> None:
        if self.settings.metrics_bind:
            expose_shared(self._metrics_directory.path, self._log_metrics, bind=self.settings.metrics_bind)

    def _on_child_exit(self, _arbiter: Any, worker: Any) -> None:
        forget_process(worker.pid, self._metrics_directory.path)


def _connections_within(open_files: int) -> int:
    """How many clients a worker takes at once: it must not run out of files because of them, and die of it."""
    if open_files == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(1, min(_MAX_CONNECTIONS, open_files - _OTHER_FILES))
