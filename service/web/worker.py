"""The receiver's gunicorn worker: one thread, which never waits for the queue."""

import asyncio
import contextlib
from types import FrameType
from typing import Any

import structlog

from service.serving.worker import Connection, LoopWorker
from service.web.app import MAX_BODY_BYTES
from service.web.responses import bare_failure

_CLOSE_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class ReceiverWorker(LoopWorker):
    """Writes a response when the queue has confirmed its callback.

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
        """Publish the last refusals, then close the publisher."""
        if self._publishing_refusals is not None:
            self._publishing_refusals.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._publishing_refusals
        await self.wsgi.extensions["refusals"].close()
        await self.wsgi.extensions["publisher"].close(timeout_seconds=_CLOSE_SECONDS)

    def refusal(self, status: int) -> bytes:
        """The failure that every refused request gets."""
        return bare_failure(status)

    def report_cut(self, connection: Connection, reason: str, *, kind: str = "") -> None:
        """Count and log it. Only the kind of error is logged: its text quotes the request line and so the token."""
        self.app.metrics.count_cut(reason)
        _log.warning("request_cut", reason=reason, error=kind, client=connection.host)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: report that the worker is not ready, finish pending requests, and end."""
        self.app.health.drain()
        super().handle_exit(sig, frame)
