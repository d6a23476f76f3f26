"""The internal API under gunicorn, in this process: a master that forks workers."""

import math
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from service.api.health import Drain
from service.api.worker import ApiWorker
from service.config.settings import ApiSettings
from service.serving.gunicorn_settings import QuietLogger, common_settings, keep_signals_over_forks


def serve_api(*, make_app: Callable[[Drain], Flask], settings: ApiSettings) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then end the process (SystemExit, 0 where all went well).

    `make_app` is called once in every worker, after fork; what it is handed says when that worker is about to end.
    """
    keep_signals_over_forks()
    _ApiServer(make_app=make_app, settings=settings).run()


class _ApiServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no type hints
    """gunicorn's view of the API."""

    def __init__(self, *, make_app: Callable[[Drain], Flask], settings: ApiSettings) -> None:
        #: What the worker tells of its end.
        self.drain = Drain()
        self._make_app = make_app
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn everything; it reads no file, environment or command line."""
        settings = self._settings
        own: dict[str, Any] = {
            "bind": settings.bind,
            "workers": settings.workers,
            "threads": settings.threads,
            "worker_class": ApiWorker,
            "graceful_timeout": max(math.ceil(settings.drain_seconds), 1),
            "logger_class": QuietLogger,
            "proc_name": "payment-callbacks-api",
        }
        for name, value in {**common_settings(), **own}.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """The application of one worker, made in it."""
        return self._make_app(self.drain)
