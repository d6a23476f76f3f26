"""The Flask application of the internal API."""

import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from service.api.bodies import MAX_BODY_BYTES, read_body, read_query
from service.api.callers import Callers, ScopeMissing, Unauthenticated
from service.api.failures import problem_of
from service.api.gauges import CONTENT_TYPE as GAUGES_CONTENT_TYPE
from service.api.gauges import Gauges
from service.api.health import Health
from service.api.openapi import describe_api
from service.api.paths import EncodedPart, OrderNumberPart, UndecodedPaths
from service.api.problems import CONTENT_TYPE as PROBLEM_CONTENT_TYPE
from service.api.problems import Problem, scope_missing
from service.api.routes import Route
from service.contracts.shipped import ASYNCAPI, PAYMENT_EVENT, read_shipped

#: What needs no token: it tells nothing of any order.
OPEN_ENDPOINTS = frozenset({"alive", "ready", "metrics", "openapi", "asyncapi", "payment_event"})

_PARAMETER = re.compile(r"{(\w+)}")
_CONVERTERS = {"merchant": "encoded", "biz_order_no": "order_number"}

_log = structlog.get_logger(__name__)


def create_api(*, routes: Sequence[Route], callers: Callers, gauges: Gauges, health: Health) -> Flask:
    """The API's WSGI application, for one worker process."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    app.url_map.converters.update(encoded=EncodedPart, order_number=OrderNumberPart)
    app.wsgi_app = UndecodedPaths(app.wsgi_app)  # type: ignore[method-assign]
    app.before_request(lambda: _authenticate(callers))
    for route in routes:
        app.add_url_rule(_rule(route.path), route.name, _make_view(route), methods=[route.method])
    _serve_document(app, "/openapi.json", "openapi", json.dumps(describe_api(routes), ensure_ascii=False))
    _serve_document(app, "/asyncapi.json", "asyncapi", read_shipped(ASYNCAPI))
    _serve_document(app, f"/schemas/{PAYMENT_EVENT}", "payment_event", read_shipped(PAYMENT_EVENT))
    app.add_url_rule("/metrics", "metrics", lambda: Response(gauges.scrape(), content_type=GAUGES_CONTENT_TYPE))
    app.add_url_rule("/healthz", "alive", health.alive)
    app.add_url_rule("/readyz", "ready", health.ready)
    app.register_error_handler(Unauthenticated, _answer_stranger)
    app.register_error_handler(ScopeMissing, _answer_scope_missing)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_problem)
    return app


def _serve_document(app: Flask, path: str, endpoint: str, document: str | bytes) -> None:
    app.add_url_rule(path, endpoint, lambda: Response(document, content_type="application/json"))


def _rule(path: str) -> str:
    return _PARAMETER.sub(lambda found: f"<{_CONVERTERS[found[1]]}:{found[1]}>", path)


def _authenticate(callers: Callers) -> None:
    # Also for addresses that do not exist: strangers learn nothing of which do.
    if request.endpoint not in OPEN_ENDPOINTS:
        g.caller = callers.identify(request.headers.get("Authorization"))


def _make_view(route: Route) -> Callable[..., Response]:
    def view(**arguments: Any) -> Response:
        started = time.monotonic()
        # Before anything is read: whoever may not do it need not know how it is done.
        g.caller.need(route.scope)
        if route.query is not None:
            arguments["query"] = read_query(request, route.query)
        if route.body is not None:
            arguments["body"] = read_body(request, route.body)
        reply = route.view(caller=g.caller.name, **arguments)
        _log.info(
            "api_answered",
            operation=route.name,
            caller=g.caller.name,
            status=reply.status,
            seconds=round(time.monotonic() - started, 3),
        )
        return _json(route.write(reply), reply.status, "application/json")

    return view


def _answer_stranger(_error: Unauthenticated) -> Response:
    _log.warning("api_caller_unknown", client=request.remote_addr)
    answer = _problem(Problem(status=401, kind="unauthenticated", title="Unauthenticated."))
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _answer_scope_missing(error: ScopeMissing) -> Response:
    _log.warning("api_scope_missing", operation=request.endpoint, caller=g.caller.name, scope=error.scope.value)
    answer = _problem(scope_missing(error.scope))
    answer.headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope.value}"'
    return answer


def _answer_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    answer = _problem(Problem(status=status, kind="http", title=error.name, detail=error.description or ""))
    if allowed := getattr(error, "valid_methods", None):
        answer.headers["Allow"] = ", ".join(sorted(allowed))
    return answer


def _answer_problem(error: Exception) -> Response:
    problem = problem_of(error)
    log = _log.bind(
        operation=request.endpoint,
        caller=g.caller.name if "caller" in g else None,
        status=problem.status,
        problem=problem.kind,
    )
    if problem.status == 500:
        log.error("api_failed", exc_info=error)
    else:
        # Neither titles nor faults: this names the kind, and the caller has the rest.
        log.warning("api_refused")
    return _problem(problem)


def _problem(problem: Problem) -> Response:
    answer = _json(problem.to_json(), problem.status, PROBLEM_CONTENT_TYPE)
    if problem.status == 503:
        answer.headers["Retry-After"] = "5"
    return answer


def _json(values: Any, status: int, content_type: str) -> Response:
    # A lone surrogate, which a caller may have sent in the place of a name, has no UTF-8; its escape is JSON.
    body = json.dumps(values, ensure_ascii=False).encode(errors="backslashreplace")
    answer = Response(body, status, content_type=content_type)
    # It holds what no proxy and no browser should keep.
    answer.headers["Cache-Control"] = "no-store"
    return answer
