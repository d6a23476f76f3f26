"""The sandbox over HTTP: the gateway's one URL and the admin pages, served by werkzeug's threaded server."""

import contextlib
import socket
import threading
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from service.sandbox.admin import make_admin
from service.sandbox.gateway import SandboxGateway
from service.sandbox.requests import HttpRequest
from service.sandbox.script import AnswerMode
from service.sandbox.settings import SandboxSettings

_MAX_BODY_BYTES = 64 * 1024


class _QuietHandler(WSGIRequestHandler):
    """Logs no requests: the admin pages count them, and a lost answer is no error here."""

    def log(self, type: str, message: str, *args: object) -> None:
        pass


class SandboxServer:
    """A sandbox that listens from the moment it is made; `start` serves, `close` (safe to call twice) ends it.

    Raises OSError where the address is taken. Port 0 takes a free one; `url` says which.
    """

    def __init__(self, *, settings: SandboxSettings, clock: Callable[[], datetime]) -> None:
        self.sandbox = SandboxGateway(settings=settings, clock=clock)
        host, _, port = settings.bind.rpartition(":")
        # werkzeug ends the process where the address is taken; a socket of our own raises.
        with socket.create_server((host, int(port)), backlog=128) as listening:
            self._server = make_server(
                host,
                int(port),
                _create_app(self.sandbox),
                threaded=True,
                request_handler=_QuietHandler,
                fd=listening.fileno(),
            )
        self._thread = threading.Thread(target=self._serve, name="sandbox", daemon=True)

    @property
    def base_url(self) -> str:
        """Where the help page is; /admin/report and the others are below it."""
        return f"http://{self._server.host}:{self._server.port}"

    @property
    def url(self) -> str:
        """The gateway's one URL."""
        return f"{self.base_url}/gateway"

    def start(self) -> None:
        """Serve and call back, in threads of its own."""
        self.sandbox.start()
        self._thread.start()

    def close(self) -> None:
        """Stop both."""
        self.sandbox.close()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _serve(self) -> None:
        # How long `close` waits at most for it to notice.
        self._server.serve_forever(poll_interval=0.05)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _create_app(sandbox: SandboxGateway) -> Flask:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY_BYTES
    app.json.ensure_ascii = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.register_blueprint(make_admin(sandbox))

    # Other methods than POST are answered too: with words.
    @app.route("/gateway", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def answer_request() -> Response | tuple[Response, int]:
        answer = sandbox.answer(
            HttpRequest(
                method=request.method, content_type=request.headers.get("Content-Type", ""), body=request.get_data()
            )
        )
        match answer.mode:
            case AnswerMode.LOST:
                _hang_up()
            case AnswerMode.STALLED:
                sandbox.closed.wait(sandbox.stall_seconds)
            case AnswerMode.BROKEN:
                return Response("Internal Server Error", content_type="text/plain"), 500
        return jsonify(answer.fields)

    return app


def _hang_up() -> None:
    """Close the caller's connection, so that no answer can reach it."""
    connection: socket.socket = request.environ["werkzeug.socket"]
    with contextlib.suppress(OSError):  # the caller was faster
        connection.shutdown(socket.SHUT_RDWR)
