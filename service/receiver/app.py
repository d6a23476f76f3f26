"""The receiver's Flask application: the endpoint behind notify_url, and the health of the process that serves it.

The endpoint verifies a callback, queues it, and acknowledges it once the queue confirms.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix

from service.config.settings import MerchantSettings, ReceiverSettings
from service.domain.claims import Claim
from service.gateway.bodies import BodyKind
from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.notify_addresses import NotifyAddress, NotifyAddresses, UnknownMerchant
from service.gateway.order_claims import claim_from_callback
from service.gateway.signature import verify_callback
from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.codec import encode_claim
from service.messaging.errors import ConfirmTimeout
from service.messaging.interface import AsyncPublisher
from service.messaging.rabbitmq.topology import CALLBACKS_EXCHANGE
from service.receiver.refusal_counter import RefusalCounter
from service.runtime.logs import Logger
from service.runtime.metrics.merchants import UNKNOWN_MERCHANT
from service.runtime.metrics.receiver import ReceiverMetrics
from service.runtime.traceparent import TRACEPARENT, trace_id_of
from service.runtime.tracing import NO_TRACING, Span, Tracing
from service.serving.http import ARRIVED_AT, WHOLE_BODY, PendingResponse, WsgiResponse, make_response

#: The longest callback, in bytes. Those in the gateway's document are under 2 KiB.
MAX_BODY_BYTES = 64 * 1024
#: The body of every failure, whatever its reason.
FAILURE_BODY = "fail"
#: The content type of every response but the acknowledgement.
PLAIN = "text/plain"
#: The queue did not confirm the callback.
_UNCONFIRMED = make_response(HTTPStatus.SERVICE_UNAVAILABLE, FAILURE_BODY.encode(), content_type=PLAIN)
#: The kinds of body that the gateway's document describes. Others are accepted with a warning.
_DOCUMENTED_KINDS = (BodyKind.JSON, BodyKind.FORM)
_COMMON_ROUTE, _MINTED_ROUTE = "/notify/<merchant>", "/notify/<merchant>/<token>"

_log = Logger(__name__)


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
        routes.add_url_rule("/healthz", "alive", lambda: _plain("alive"))
        routes.add_url_rule("/readyz", "ready", self._ready)
        return routes

    def _ready(self) -> Response:
        # Ready even while the broker is away: the worker can still say "not now" at once, and the gateway repeats. If
        # it were taken out of service, callers would wait for an answer that nobody gives.
        return _plain("draining", HTTPStatus.SERVICE_UNAVAILABLE) if self._draining else _plain("ready")


def create_app(
    *,
    merchants: Mapping[str, MerchantSettings],
    make_publisher: Callable[[asyncio.AbstractEventLoop], AsyncPublisher],
    metrics: ReceiverMetrics,
    clock: Callable[[], datetime],
    settings: ReceiverSettings,
    health: Health,
    loop: asyncio.AbstractEventLoop | None = None,
    tracing: Tracing = NO_TRACING,
) -> Flask:
    """The receiver's WSGI application, for one worker process.

    `make_publisher` makes `extensions["publisher"]`. With `loop`, the application must be called on the thread of that
    loop, and the publisher is made on it at once. Without it, as under another WSGI server than ours, the application
    may be called from many threads, and the publisher gets a loop and thread of its own with the first message.

    The server runs `extensions["refusals"]` and at the end closes it, then the publisher, then `extensions["tracing"]`,
    which is `tracing`. `clock` returns the present time, aware.
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
    app.extensions.update(publisher=publisher, refusals=refusals, tracing=tracing)
    endpoint = CallbackEndpoint(
        addresses=NotifyAddresses(merchants=merchants),
        acknowledgements={slug: _acknowledgement(merchant) for slug, merchant in merchants.items()},
        publisher=publisher,
        metrics=metrics,
        refusals=refusals,
        clock=clock,
        confirm_timeout_seconds=settings.confirm_timeout_seconds,
        tracing=tracing,
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
    response = _failure(error.code or 500)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _unexpected_error_response(metrics: ReceiverMetrics, error: Exception) -> Response:
    metrics.count_callback((request.view_args or {}).get("merchant", ""), outcome="failed", reason=type(error).__name__)
    # The route and not the path, which may contain a token.
    _log.error("request_failed", route=request.endpoint, client=request.remote_addr, exc_info=error)
    return _failure(500)


class CallbackEndpoint:
    """Answers callbacks. Safe to use from many threads."""

    def __init__(
        self,
        *,
        addresses: NotifyAddresses,
        acknowledgements: Mapping[str, WsgiResponse],
        publisher: AsyncPublisher | BlockingPublisher,
        metrics: ReceiverMetrics,
        refusals: RefusalCounter,
        clock: Callable[[], datetime],
        confirm_timeout_seconds: float,
        tracing: Tracing,
    ) -> None:
        """`acknowledgements` by merchant. `clock` returns the present time, aware.

        `confirm_timeout_seconds` begins when the whole request has arrived.
        """
        self._addresses = addresses
        self._acknowledgements = acknowledgements
        self._publisher = publisher
        self._metrics = metrics
        self._refusals = refusals
        self._clock = clock
        self._confirm_timeout_seconds = confirm_timeout_seconds
        self._tracing = tracing
        # The dialects of each merchant's signs so far, by the kind of body: JSON and forms differ and may alternate.
        self._dialects: dict[tuple[str, BodyKind], tuple[str, ...]] = {}

    def blueprint(self) -> Blueprint:
        """The routes of this endpoint."""
        routes = Blueprint("callbacks", __name__)
        routes.add_url_rule(_COMMON_ROUTE, "common", self.answer, methods=["POST"])
        routes.add_url_rule(_MINTED_ROUTE, "minted", self.answer, methods=["POST"])
        return routes

    def answer(self, merchant: str, token: str | None = None) -> Response:
        """Acknowledge the callback of the request once it is queued; anything else is a plain failure.

        All refusals look the same, so that a response does not reveal which merchants exist or which check failed.
        """
        deadline = request.environ.get(ARRIVED_AT, time.monotonic()) + self._confirm_timeout_seconds
        route = _COMMON_ROUTE if token is None else _MINTED_ROUTE
        span = self._tracing.serve("POST", route, request.headers.get(TRACEPARENT))
        try:
            address = self._addresses.find(merchant, token)
            span.set("payment.merchant", merchant)
            if time.monotonic() >= deadline:
                # Before the sign is verified: a callback that is too late costs nothing more.
                return self._fail_unread(merchant, span)
            return self._publish(self._read_claim(address, span.traceparent), deadline, span)
        except UnknownMerchant as refusal:
            return self._refuse(None, refusal.reason, refusal.detail, span)
        except CallbackRefused as refusal:
            return self._refuse(merchant, refusal.reason, refusal.detail, span)
        except RequestEntityTooLarge:
            detail = "the body is longer than any callback"
            return self._refuse(merchant, "too-large", detail, span, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except Exception as error:
            span.end(error=error)
            raise  # the application's error handler responds

    def _read_claim(self, address: NotifyAddress, traceparent: str | None) -> Claim:
        merchant = address.merchant
        received_at = self._clock()
        body = request.environ.get(WHOLE_BODY)
        verified = verify_callback(
            request.get_data(cache=False) if body is None else body, request.environ.get("CONTENT_TYPE")
        )
        self._record_dialect(merchant.slug, verified.kind, verified.dialect)
        claim = claim_from_callback(
            verified,
            merchant=merchant,
            trust=address.trust,
            received_at=received_at,
            traceparent=traceparent,
        )
        if address.biz_order_no not in (None, claim.biz_order_no):
            raise CallbackRefused(
                Refusal.TOKEN_OF_ANOTHER_ORDER, "the body's biz_order_no is not the one that the address was minted for"
            )
        return claim

    def _record_dialect(self, merchant: str, kind: BodyKind, dialect: str) -> None:
        """Count the dialect, and warn when the gateway begins to sign or to encode differently without notice.

        It warns once for each dialect and each unusual kind: a gateway whose servers differ must not fill the log.
        """
        self._metrics.count_dialect(merchant, dialect)
        before = self._dialects.get((merchant, kind), ())
        if dialect in before:
            return
        self._dialects[merchant, kind] = (*before, dialect)
        if not before and kind not in _DOCUMENTED_KINDS:
            _log.warning("callback_body_unusual", merchant=merchant, kind=kind.value)
        if before:
            _log.warning("sign_dialect_changed", merchant=merchant, kind=kind, before=before[-1], now=dialect)

    def _publish(self, claim: Claim, deadline: float, span: Span) -> Response:
        """Hand the callback to the queue. The outcome is logged and counted when it is settled."""
        started = time.monotonic()
        self._metrics.in_flight.inc()
        publishing = self._tracing.publish(CALLBACKS_EXCHANGE, claim.traceparent)
        if self._tracing.on:
            claim = replace(claim, traceparent=publishing.traceparent)
        conclude = partial(self._conclude, claim, request.remote_addr, started, span, publishing)
        pending = PendingResponse(conclude, failure=_UNCONFIRMED, deadline=deadline)
        if started >= deadline:
            pending.settle(ConfirmTimeout("its deadline passed before it was processed"))
            return _PendingFlaskResponse(pending)
        try:
            self._publisher.submit(encode_claim(claim), deadline=deadline, on_settled=pending.settle)
        except Exception as error:
            self._metrics.in_flight.dec()
            publishing.end(error=error)
            raise
        return _PendingFlaskResponse(pending)

    def _conclude(
        self,
        claim: Claim,
        client: str | None,
        started: float,
        span: Span,
        publishing: Span,
        error: Exception | None,
    ) -> WsgiResponse:
        """The response once the callback is queued, or is known not to be; called once."""
        publishing.end(error=error)
        span.end(status=HTTPStatus.OK if error is None else HTTPStatus.SERVICE_UNAVAILABLE)
        self._metrics.in_flight.dec()
        self._metrics.confirm_seconds.observe(time.monotonic() - started)
        if error is None:
            self._metrics.count_callback(claim.merchant, outcome="acknowledged", trust=claim.trust)
            _log.info(
                "callback_acknowledged",
                merchant=claim.merchant,
                biz_order_no=claim.biz_order_no,
                status=claim.status,
                trust=claim.trust.word,
                quarantine=claim.quarantine,
                client=client,
                trace_id=trace_id_of(claim.traceparent),
            )
            return self._acknowledgements[claim.merchant]
        reason = type(error).__name__
        self._metrics.count_callback(claim.merchant, outcome="unconfirmed", reason=reason, trust=claim.trust)
        _log.error(
            "callback_unconfirmed",
            merchant=claim.merchant,
            biz_order_no=claim.biz_order_no,
            reason=reason,
            detail=str(error),
            client=client,
            trace_id=trace_id_of(claim.traceparent),
        )
        return _UNCONFIRMED

    def _fail_unread(self, merchant: str, span: Span) -> Response:
        span.end(status=HTTPStatus.SERVICE_UNAVAILABLE)
        reason = ConfirmTimeout.__name__
        self._metrics.count_callback(merchant, outcome="unconfirmed", reason=reason)
        _log.error(
            "callback_unconfirmed",
            merchant=merchant,
            reason=reason,
            detail="its deadline passed before it was processed; its body was not read",
            client=request.remote_addr,
            trace_id=trace_id_of(span.traceparent),
        )
        return _failure(HTTPStatus.SERVICE_UNAVAILABLE)

    def _refuse(
        self,
        merchant: str | None,
        reason: str,
        detail: str,
        span: Span,
        *,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
    ) -> Response:
        span.set("payment.refusal", reason)
        span.end(status=status)
        named = UNKNOWN_MERCHANT if merchant is None else merchant
        self._metrics.count_callback(named, outcome="refused", reason=reason)
        self._refusals.count(merchant, reason)
        _log.warning(
            "callback_refused",
            merchant=named,
            reason=reason,
            detail=detail,
            client=request.remote_addr,
            trace_id=trace_id_of(span.traceparent),
        )
        return _failure(status)


class _PendingFlaskResponse(Response):
    """A response that the server writes when `pending` is settled."""

    def __init__(self, pending: PendingResponse) -> None:
        super().__init__()
        self._pending = pending

    def __call__(self, _environ: object, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Do not start the response yet: its status is not known."""
        return self._pending.begin(start_response)


def _failure(status: int) -> Response:
    """A failure, which the gateway does not mistake for its acknowledgement. It gives no reason."""
    return _plain(FAILURE_BODY, status)


def _plain(body: str, status: int = 200) -> Response:
    """A short text for machines."""
    return Response(body, status, content_type=PLAIN)
