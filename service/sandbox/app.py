"""The sandbox's HTTP face: the gateway's one URL, and the admin pages."""

import contextlib
import socket

from flask import Flask, Response, jsonify, request

from service.sandbox.admin import make_admin
from service.sandbox.gateway import SandboxGateway
from service.sandbox.script import AnswerMode

_MAX_BODY_BYTES = 64 * 1024


def create_sandbox(sandbox: SandboxGateway) -> Flask:
    """The app of one sandbox gateway. `sandbox.start` and `close` are the caller's."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY_BYTES
    app.json.ensure_ascii = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.register_blueprint(make_admin(sandbox))

    @app.post("/gateway")
    def answer_request() -> Response | tuple[Response, int]:
        answer = sandbox.answer(request.get_data())
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
