"""The Flask application of the internal API."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from flask import Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask_smorest import Api
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from werkzeug.exceptions import HTTPException

from service.api.blueprint import ApiBlueprint
from service.api.fields import order_number
from service.api.paths import (
    DeadLetterConverter,
    EndpointConverter,
    OrderNumberConverter,
    RowNumberConverter,
    SegmentConverter,
    UndecodedPaths,
)
from service.api.problems import CONTENT_TYPE as PROBLEM_CONTENT_TYPE
from service.api.problems import Problem, ProblemSchema, problem_of
from service.api.request_schemas import MAX_BODY_BYTES
from service.contracts.shipped import ASYNCAPI, PAYMENT_EVENT, read_shipped
from service.identity.tokens import Authenticator, ScopeMissing, Unauthenticated
from service.runtime.logs import Logger
from service.runtime.traceparent import TRACEPARENT, trace_id_of
from service.runtime.tracing import NO_TRACING, Tracing
from service.serving.health import Health

#: The endpoints that need no token: none of them says anything about an order.
OPEN_ENDPOINTS = frozenset({"alive", "ready", "metrics", "api-docs.openapi_json", "asyncapi", "payment_event"})

_MERCHANT = {"type": "string", "description": "The merchant's slug.", "example": "acme"}
_ORDER_NUMBER = {
    "type": "string",
    "description": f"{order_number().metadata['description']} Percent-encoded, every slash and dot of it too.",
}

_log = Logger(__name__)


def create_api(
    *,
    blueprints: Sequence[ApiBlueprint],
    authenticator: Authenticator,
    registry: CollectorRegistry,
    health: Health,
    tracing: Tracing,
) -> Flask:
    """The API's WSGI application, for one worker process. `registry` holds the metrics that it serves.

    The server closes `extensions["tracing"]`, which is `tracing`.
    """
    app = Flask(__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, PROVIDE_AUTOMATIC_OPTIONS=False, OPENAPI_URL_PREFIX="/")
    app.json = _JsonProvider(app)
    app.url_map.merge_slashes = False
    app.url_map.converters.update(
        merchant=SegmentConverter,
        order_number=OrderNumberConverter,
        endpoint=EndpointConverter,
        dead_letter=DeadLetterConverter,
        row_number=RowNumberConverter,
    )
    app.wsgi_app = UndecodedPaths(app.wsgi_app)  # type: ignore[method-assign]
    app.extensions["tracing"] = tracing
    app.before_request(lambda: _begin_span(tracing))
    app.before_request(lambda: _authenticate(authenticator))
    app.after_request(_end_span)
    api = _describe_api(app)
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    _serve(app, "/asyncapi.json", "asyncapi", read_shipped(ASYNCAPI))
    _serve(app, f"/schemas/{PAYMENT_EVENT}", "payment_event", read_shipped(PAYMENT_EVENT))
    app.add_url_rule(
        "/metrics", "metrics", lambda: Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)
    )
    app.add_url_rule("/healthz", "alive", health.alive)
    app.add_url_rule("/readyz", "ready", health.ready)
    app.register_error_handler(Unauthenticated, _answer_unauthenticated)
    app.register_error_handler(ScopeMissing, _answer_scope_missing)
    app.register_error_handler(Exception, _answer_error)
    return app


class _ProblemApi(Api):  # type: ignore[misc]  # flask-smorest has no type hints
    """flask-smorest's extension, with problems as its errors."""

    ERROR_SCHEMA = ProblemSchema
    #: Every operation documents its own errors.
    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_pagination_header(self) -> None:
        # The document leaves out flask-smorest's own pagination: lists have cursors.
        pass

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Answer what Flask itself refuses."""
        problem = Problem(status=error.code or 500, kind="http", title=error.name, detail=error.description or "")
        response = _problem(problem)
        if allowed := getattr(error, "valid_methods", None):
            response.headers["Allow"] = ", ".join(sorted(allowed))
        return response


class _JsonProvider(DefaultJSONProvider):
    """Has flask-smorest write responses as `_write_json` does."""

    def response(self, *args: Any, **_: Any) -> Response:
        """An API response."""
        return _write_json(*args, content_type="application/json")


def _describe_api(app: Flask) -> Api:
    api = _ProblemApi(
        app,
        spec_kwargs={
            "title": "payment-callbacks, internal API",
            "version": version("payment-callbacks"),
            "openapi_version": "3.1.0",
            "info": {
                "description": "Announce orders, send withholds, and see what became of them. Every error is "
                f"{PROBLEM_CONTENT_TYPE} (RFC 9457). Times are RFC 3339 with a zone; amounts are exact strings. Each "
                "operation names the one scope that its caller's token must have."
            },
            "security": [{"token": []}],
        },
    )
    api.spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    api.register_converter(SegmentConverter, lambda _: dict(_MERCHANT))
    api.register_converter(EndpointConverter, lambda _: {"type": "string", "description": "The endpoint's name."})
    api.register_converter(DeadLetterConverter, lambda _: {"type": "string", "description": "The dead letter's id."})
    api.register_converter(
        RowNumberConverter, lambda _: {"type": "integer", "description": "The `id` in the response."}
    )
    api.register_converter(OrderNumberConverter, lambda _: dict(_ORDER_NUMBER))
    return api


def _serve(app: Flask, path: str, endpoint: str, document: bytes) -> None:
    app.add_url_rule(path, endpoint, lambda: Response(document, content_type="application/json"))


def _begin_span(tracing: Tracing) -> None:
    route = request.url_rule.rule if request.url_rule else ""
    # Probes and scrapes would be most of what a collector gets.
    its = NO_TRACING if request.endpoint in OPEN_ENDPOINTS else tracing
    g.span = its.serve(request.method, route, request.headers.get(TRACEPARENT))
    g.span.make_current()


def _end_span(response: Response) -> Response:
    g.span.end(status=response.status_code)
    return response


def _authenticate(authenticator: Authenticator) -> None:
    # Addresses that do not exist need a token too, so that nobody without one learns which exist.
    if request.endpoint not in OPEN_ENDPOINTS:
        g.caller = authenticator.authenticate(request.headers.get("Authorization"))


def _answer_unauthenticated(_error: Unauthenticated) -> Response:
    _log.warning("api_caller_unknown", client=request.remote_addr)
    response = _problem(Problem(status=401, kind="unauthenticated", title="Unauthenticated."))
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _answer_scope_missing(error: ScopeMissing) -> Response:
    scope = error.scope.value
    _log.warning("api_scope_missing", operation=g.operation, caller=g.caller.name, scope=scope)
    response = _problem(
        Problem(
            status=403,
            kind="scope-missing",
            title="The token does not allow this; nothing was done.",
            detail=f"It needs the scope `{scope}`, under [[api.tokens]] in the settings of this service.",
            members={"scope": scope},
        )
    )
    response.headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{scope}"'
    return response


def _answer_error(error: Exception) -> Response:
    problem = problem_of(error)
    log = _log.bind(
        operation=g.get("operation", request.endpoint),
        caller=g.caller.name if "caller" in g else None,
        trace_id=trace_id_of(g.span.traceparent),
        status=problem.status,
        problem=problem.kind,
    )
    if problem.status == 500:
        log.error("api_failed", exc_info=error)
    else:
        # The kind suffices here: the caller has the details.
        log.warning("api_refused")
    return _problem(problem)


def _problem(problem: Problem) -> Response:
    response = _write_json(problem.to_json(), content_type=PROBLEM_CONTENT_TYPE)
    response.status_code = problem.status
    if problem.status == 503:
        response.headers["Retry-After"] = "5"
    return response


def _write_json(value: Any, *, content_type: str) -> Response:
    # A lone surrogate, which a caller may send in a field's name, has no UTF-8. Its escape is valid JSON.
    body = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")
    response = Response(body, content_type=content_type)
    # Neither proxies nor browsers may keep it.
    response.headers["Cache-Control"] = "no-store"
    return response
