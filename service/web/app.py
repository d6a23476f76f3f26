"""The Flask application of the receiver."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from http import HTTPStatus
from zoneinfo import ZoneInfo

import structlog
from flask import Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from service.config.settings import MerchantSettings, ReceiverSettings
from service.messaging.contract import AsyncPublisher
from service.runtime.metrics.receiver import ReceiverMetrics
from service.serving.wsgi import Answer, make_answer
from service.web.answers import failure
from service.web.callbacks import CallbackEndpoint
from service.web.health import Health
from service.web.notify_address import NotifyAddresses
from service.web.process_publisher import ProcessPublisher
from service.web.refusal_tally import RefusalTally

#: The longest callback, in bytes. Those of the document have under 2 KiB.
MAX_BODY_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)


def create_app(
    *,
    merchants: Mapping[str, MerchantSettings],
    make_publisher: Callable[[asyncio.AbstractEventLoop], AsyncPublisher],
    metrics: ReceiverMetrics,
    clock: Callable[[], datetime],
    settings: ReceiverSettings,
    health: Health | None = None,
) -> Flask:
    """The receiver's WSGI application, for one worker process.

    `make_publisher` is called once, with the loop on which `extensions["publisher"]` is opened or, failing that, with
    one of its own when it is first used. Whoever starts the process runs `extensions["refusals"]`; whoever ends it
    closes that, then the publisher. `clock` says the present time, aware.
    """
    app = Flask(__name__, static_folder=None)
    app.session_interface = _NoSessions()
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # The redirect that merges slashes would repeat the address, and the token in it, in its answer.
    app.url_map.merge_slashes = False
    publisher = ProcessPublisher(make_publisher)
    refusals = RefusalTally(
        publisher=publisher,
        time_zones={slug: ZoneInfo(merchant.time_zone) for slug, merchant in merchants.items()},
        clock=clock,
    )
    app.extensions.update(publisher=publisher, refusals=refusals)
    endpoint = CallbackEndpoint(
        entrances=NotifyAddresses(merchants=merchants),
        acknowledgements={slug: _acknowledgement(merchant) for slug, merchant in merchants.items()},
        publisher=publisher,
        metrics=metrics,
        refusals=refusals,
        clock=clock,
        confirm_timeout_seconds=settings.confirm_timeout_seconds,
    )
    app.register_blueprint(endpoint.blueprint())
    app.register_blueprint((health or Health()).blueprint())
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, partial(_answer_surprise, metrics))
    if settings.trusted_proxy_hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxy_hops, x_proto=0)  # type: ignore[method-assign]
    return app


class _NoSessions(SessionInterface):
    """Spares each request the session that Flask opens for it: a callback has none."""

    _session = NullSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:  # noqa: ARG002 - Flask's signature
        return self._session


def _acknowledgement(merchant: MerchantSettings) -> Answer:
    answer = merchant.acknowledgement
    return make_answer(HTTPStatus.OK, answer.body.encode(), content_type=answer.content_type)


def _answer_http_error(error: HTTPException) -> Response:
    answer = failure(error.code or 500)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        answer.headers["Allow"] = ", ".join(sorted(allowed))
    return answer


def _answer_surprise(metrics: ReceiverMetrics, error: Exception) -> Response:
    metrics.count_callback((request.view_args or {}).get("merchant", ""), outcome="failed", reason=type(error).__name__)
    # The route and not the path, which may hold a token.
    _log.error("request_failed", route=request.endpoint, client=request.remote_addr, exc_info=error)
    return failure(500)
