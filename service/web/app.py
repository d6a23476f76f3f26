"""The receiver's Flask application, and the health of the worker process that serves it."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from http import HTTPStatus
from zoneinfo import ZoneInfo

import structlog
from flask import Blueprint, Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from service.config.settings import MerchantSettings, ReceiverSettings
from service.gateway.notify_addresses import NotifyAddresses
from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.contract import AsyncPublisher
from service.runtime.metrics.receiver import ReceiverMetrics
from service.serving.http import WsgiResponse, make_response
from service.web.callbacks import CallbackEndpoint
from service.web.refusal_counter import RefusalCounter
from service.web.responses import failure, plain

#: The longest callback, in bytes. Those in the gateway's document are under 2 KiB.
MAX_BODY_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)


class Health:
    """The state of one worker process, for `/healthz` and `/readyz`."""

    def __init__(self) -> None:
        self._draining = False

    def drain(self) -> None:
        """From now on, report that the worker is not ready. Safe to call from a signal handler, and twice."""
        self._draining = True

    def blueprint(self) -> Blueprint:
        """The two routes."""
        routes = Blueprint("health", __name__)
        routes.add_url_rule("/healthz", "alive", lambda: plain("alive"))
        routes.add_url_rule("/readyz", "ready", self._ready)
        return routes

    def _ready(self) -> Response:
        # Ready even while the broker is away: the worker can still say "not now" at once, and the gateway repeats. If
        # it were taken out of service, callers would wait for an answer that nobody gives.
        return plain("draining", HTTPStatus.SERVICE_UNAVAILABLE) if self._draining else plain("ready")


def create_app(
    *,
    merchants: Mapping[str, MerchantSettings],
    make_publisher: Callable[[asyncio.AbstractEventLoop], AsyncPublisher],
    metrics: ReceiverMetrics,
    clock: Callable[[], datetime],
    settings: ReceiverSettings,
    health: Health,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Flask:
    """The receiver's WSGI application, for one worker process.

    `make_publisher` makes `extensions["publisher"]`. With `loop`, the application must be called on the thread of that
    loop, and the publisher is made on it at once. Without it, as under another WSGI server than ours, the application
    may be called from many threads, and the publisher gets a loop and thread of its own with the first message.

    The server runs `extensions["refusals"]` and at the end closes it, then the publisher. `clock` returns the present
    time, aware.
    """
    app = Flask(__name__, static_folder=None)
    app.session_interface = _NoSessions()
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # The response of a redirect that merges slashes would repeat the address with its token.
    app.url_map.merge_slashes = False
    publisher = BlockingPublisher(make_publisher, name="publisher") if loop is None else make_publisher(loop)
    refusals = RefusalCounter(
        publisher=publisher,
        time_zones={slug: ZoneInfo(merchant.time_zone) for slug, merchant in merchants.items()},
        clock=clock,
    )
    app.extensions.update(publisher=publisher, refusals=refusals)
    endpoint = CallbackEndpoint(
        addresses=NotifyAddresses(merchants=merchants),
        acknowledgements={slug: _acknowledgement(merchant) for slug, merchant in merchants.items()},
        publisher=publisher,
        metrics=metrics,
        refusals=refusals,
        clock=clock,
        confirm_timeout_seconds=settings.confirm_timeout_seconds,
    )
    app.register_blueprint(endpoint.blueprint())
    app.register_blueprint(health.blueprint())
    app.register_error_handler(HTTPException, _http_error_response)
    app.register_error_handler(Exception, partial(_unexpected_error_response, metrics))
    if settings.trusted_proxy_hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxy_hops, x_proto=0)  # type: ignore[method-assign]
    return app


class _NoSessions(SessionInterface):
    """Saves the session that Flask opens for each request: callbacks have none."""

    _session = NullSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:  # noqa: ARG002 - Flask's signature
        return self._session


def _acknowledgement(merchant: MerchantSettings) -> WsgiResponse:
    expected = merchant.acknowledgement
    return make_response(HTTPStatus.OK, expected.body.encode(), content_type=expected.content_type)


def _http_error_response(error: HTTPException) -> Response:
    response = failure(error.code or 500)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _unexpected_error_response(metrics: ReceiverMetrics, error: Exception) -> Response:
    metrics.count_callback((request.view_args or {}).get("merchant", ""), outcome="failed", reason=type(error).__name__)
    # The route and not the path, which may contain a token.
    _log.error("request_failed", route=request.endpoint, client=request.remote_addr, exc_info=error)
    return failure(500)
