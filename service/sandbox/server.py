"""The sandbox over HTTP: the gateway's one URL, and pages for testers, served by werkzeug's threaded server."""

import contextlib
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from flask import Blueprint, Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from service.sandbox.document_rules import MEANINGS, DocumentRule
from service.sandbox.gateway import SandboxGateway
from service.sandbox.orders import SandboxOrder
from service.sandbox.requests import HttpRequest
from service.sandbox.script import VOCABULARY, AnswerMode, Rule, UnknownWord
from service.sandbox.settings import SandboxSettings

_MAX_BODY_BYTES = 64 * 1024


class _QuietHandler(WSGIRequestHandler):
    """Logs no requests: the admin pages count them, and a lost answer is intended."""

    def log(self, type: str, message: str, *args: object) -> None:
        pass


class SandboxServer:
    """A sandbox that listens as soon as it is made. `start` serves, `close` (safe to call twice) ends it.

    Raises OSError if the address is in use. Port 0 takes a free port; `url` shows it.
    """

    def __init__(self, *, settings: SandboxSettings, clock: Callable[[], datetime]) -> None:
        self.sandbox = SandboxGateway(settings=settings, clock=clock)
        host, _, port = settings.bind.rpartition(":")
        # werkzeug would end the process if the address is in use; our own socket raises an error.
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
        """Serve and send callbacks, in threads of its own."""
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
        # `close` waits at most this long.
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

    # Other methods than POST get an answer that explains the error.
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
    with contextlib.suppress(OSError):  # the caller has closed it already
        connection.shutdown(socket.SHUT_RDWR)


_HEAD = """\
payment-callbacks sandbox: a direct-debit gateway to test against. Nothing here moves money, all state is in memory.

POST /gateway         the gateway's one URL; methods: pre-tied-card, confirm-tied-card, single-withhold,
                      single-order-query
GET  /admin/report    counts: callbacks sent, acknowledged, refused, repeated, dropped, forged
GET  /admin/orders    every order with its true status
GET  /admin/bindings  the verification codes that were "sent to the card holder"
GET  /admin/forgeries what forgers have claimed
GET  /admin/lies      which of the gateway's own callbacks said the opposite of what a query answers
GET  /admin/breaches  where callers' requests broke the gateway's document, and how to mend them
GET  /admin/rules     rules in force; POST {"pattern": "T-*", "words": ["fail", "lost"]} puts one before the others

What happens to an order is said in words. The first of these that says something decides:
  1. a rule whose pattern (* and ?) matches the order number
  2. words in the order number: T-0001-fail-slow
  3. the last two digits of the amount: 12.51, or 1251 in fen
  4. the shares in the sandbox's settings, drawn from its seed

word      amount  the order
"""
_RULES_HEAD = """

Rules of the gateway's document. A request that breaks one is answered -1, and `message` says in words which it is. One
that is off under [strictness] in the settings is not enforced, and its breaches are listed all the same. A failure has
an empty `response`, in each of the shapes that gateways send in turn (empty_responses).

"""


def make_admin(sandbox: SandboxGateway) -> Blueprint:
    """The testers' pages. They need no password, so bind the sandbox to loopback."""
    pages = Blueprint("admin", __name__)

    @pages.get("/")
    def show_help() -> Response:
        return Response(help_text(sandbox.strictness), content_type="text/plain; charset=utf-8")

    @pages.get("/admin/report")
    def show_report() -> Response:
        return jsonify({**sandbox.counters.counts(), **sandbox.breach_log.counts(), **_progress(sandbox)})

    @pages.get("/admin/orders")
    def list_orders() -> Response:
        return jsonify([_truth(sandbox, order) for order in sandbox.book.all()])

    @pages.get("/admin/forgeries")
    def list_forgeries() -> Response:
        return jsonify([asdict(forgery) for forgery in sandbox.counters.forgeries()])

    @pages.get("/admin/lies")
    def list_lies() -> Response:
        return jsonify([asdict(lie) for lie in sandbox.counters.lies()])

    @pages.get("/admin/bindings")
    def list_bindings() -> Response:
        # What the card holder would receive, without the card number.
        return jsonify(
            [
                {"unique_code": binding.unique_code, "verification_code": binding.verification_code}
                for binding in sandbox.bindings.offered()
            ]
        )

    @pages.get("/admin/breaches")
    def list_breaches() -> Response:
        return jsonify([asdict(breach) for breach in sandbox.breach_log.breaches()])

    @pages.get("/admin/rules")
    def list_rules() -> Response:
        return jsonify([asdict(rule) for rule in sandbox.rules()])

    @pages.post("/admin/rules")
    def add_rule() -> tuple[Response, int]:
        document: Any = request.get_json(silent=True)
        if not _is_rule(document):
            return jsonify({"error": 'expected {"pattern": "T-*", "words": ["fail", "lost"]}'}), 400
        try:
            rule = Rule(document["pattern"], tuple(document["words"]))
        except UnknownWord as error:
            return jsonify({"error": str(error)}), 400
        sandbox.add_rule(rule)
        return jsonify(asdict(rule)), 201

    return pages


def _is_rule(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and set(document) == {"pattern", "words"}
        and isinstance(document["pattern"], str)
        and isinstance(document["words"], list)
        and all(isinstance(word, str) for word in document["words"])
    )


def _progress(sandbox: SandboxGateway) -> dict[str, int]:
    now = sandbox.now()
    orders = sandbox.book.all()
    return {
        "orders": len(orders),
        "orders_unsettled": sum(order.settles_at is not None and order.settles_at > now for order in orders),
        "callbacks_outstanding": sandbox.outstanding(),
    }


def _truth(sandbox: SandboxGateway, order: SandboxOrder) -> dict[str, Any]:
    return {
        "ua": order.ua,
        "biz_order_no": order.biz_order_no,
        "pay_order_no": order.pay_order_no,
        "amount": order.amount,
        "pay_type": order.pay_type,
        "pay_status": order.status_at(sandbox.now()),
        "has_notify_url": bool(order.notify_url),
        "script": asdict(order.script),
    }


def help_text(strictness: Collection[DocumentRule]) -> str:
    """The help page, in plain text, of a sandbox that enforces these rules."""
    words = [f"{word.text:<9} …{word.amount_ending:<6} {word.meaning}" for word in VOCABULARY]
    rules = [f"{rule:<19} {'on ' if rule in strictness else 'off'} {MEANINGS[rule]}" for rule in DocumentRule]
    return _HEAD + "\n".join(words) + _RULES_HEAD + "\n".join(rules) + "\n"
