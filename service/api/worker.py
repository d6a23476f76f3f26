"""The API's gunicorn worker: a loop reads requests, threads answer them."""

import json
import time
from asyncio import Future
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from types import FrameType
from typing import Any

import structlog

from service.api.bodies import MAX_BODY_BYTES
from service.api.problems import CONTENT_TYPE, Problem
from service.serving.connection import Connection
from service.serving.framing import HttpRequest
from service.serving.worker import LoopWorker
from service.serving.wsgi import PendingResponse, WsgiResponse, make_response

_log = structlog.get_logger(__name__)


class ApiWorker(LoopWorker):
    """Takes a thread only for a request that has arrived whole. `self.app` is gunicorn's application object."""

    max_body_bytes = MAX_BODY_BYTES
    request_timeout_seconds = 5.0
    #: For a thread; callers wait for longer than that.
    answer_within_seconds = 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._threads: ThreadPoolExecutor

    async def begin(self) -> None:
        """Make the threads."""
        self._threads = ThreadPoolExecutor(self.cfg.threads, thread_name_prefix="api")

    async def end(self) -> None:
        """Leave the threads to themselves: what takes longer than the drain is cut off."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def respond(self, connection: Connection, request: HttpRequest) -> None:
        """Have a thread call the application."""
        answered = self.loop.run_in_executor(self._threads, self._answer, connection, request)
        answered.add_done_callback(partial(self._send_answered, connection, request))

    def refusal(self, status: int) -> bytes:
        """A problem document, and nothing of what was sent."""
        answer = _refusal(status)
        headers = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        return f"HTTP/1.1 {answer.status}\r\nConnection: close\r\n{headers}\r\n".encode() + answer.body

    def report_cut(self, connection: Connection, reason: str, *, kind: str = "") -> None:
        """Only the kind of error is logged: its text quotes the request, and a token or a name in it."""
        _log.warning("request_cut", reason=reason, error=kind, client=connection.host)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: what is under way ends, and who still comes is told to go elsewhere."""
        self.app.drain.begin()
        super().handle_exit(sig, frame)

    def _answer(self, connection: Connection, request: HttpRequest) -> WsgiResponse | PendingResponse:
        if time.monotonic() - request.arrived_at >= self.answer_within_seconds:
            self.report_cut(connection, "too-late")
            return _refusal(503)
        return self.call_application(connection, request)

    def _send_answered(
        self, connection: Connection, request: HttpRequest, answered: "Future[WsgiResponse | PendingResponse]"
    ) -> None:
        error = answered.exception()
        if error is None:
            self.send(connection, request, answered.result())
        else:
            _log.error("request_failed", client=connection.host, exc_info=error)
            connection.close()


def _refusal(status: int) -> WsgiResponse:
    problem = Problem(status=status, kind="http", title=HTTPStatus(status).phrase)
    return make_response(HTTPStatus(status), json.dumps(problem.to_json()).encode(), content_type=CONTENT_TYPE)
