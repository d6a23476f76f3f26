"""The endpoint behind notify_url: one callback in, one message queued and confirmed, one acknowledgement out."""

import time
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog
from flask import Blueprint, Response, g, request
from werkzeug.exceptions import RequestEntityTooLarge

from service.claims import Claim
from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.order_claims import claim_from_callback
from service.gateway.signature import verify_callback
from service.messaging.claim_codec import encode_claim
from service.messaging.contract import Publisher
from service.messaging.errors import ConfirmTimeout, NotConfirmed
from service.metrics.merchants import UNKNOWN_MERCHANT
from service.metrics.receiver import ReceiverMetrics
from service.traceparent import TRACEPARENT, new_traceparent, parse_traceparent, trace_id_of
from service.web.answers import failure
from service.web.dialect_watch import DialectWatch
from service.web.entrances import Entrance, Entrances, UnknownMerchant
from service.web.refusal_tally import RefusalTally

#: Where a server puts the time (`time.monotonic`) at which the whole request had arrived: it may have waited since.
ARRIVED_AT = "payment_callbacks.arrived_at"

_REFUSED = 400
_TOO_LARGE = 413
_UNCONFIRMED = 503

_log = structlog.get_logger(__name__)


class CallbackEndpoint:
    """Answers callbacks. Safe to use from many threads."""

    def __init__(
        self,
        *,
        entrances: Entrances,
        publisher: Publisher,
        metrics: ReceiverMetrics,
        refusals: RefusalTally,
        clock: Callable[[], datetime],
        confirm_timeout_seconds: float,
    ) -> None:
        """`clock` says the present time, aware. The confirm's time limit begins when the whole request has arrived."""
        self._entrances = entrances
        self._publisher = publisher
        self._metrics = metrics
        self._refusals = refusals
        self._clock = clock
        self._confirm_timeout_seconds = confirm_timeout_seconds
        self._dialects = DialectWatch(metrics=metrics)

    def blueprint(self) -> Blueprint:
        """The routes of this endpoint."""
        routes = Blueprint("callbacks", __name__)
        routes.before_request(_begin_trace)
        routes.teardown_request(_end_trace)
        routes.add_url_rule("/notify/<merchant>", "common", self.answer, methods=["POST"])
        routes.add_url_rule("/notify/<merchant>/<token>", "minted", self.answer, methods=["POST"])
        return routes

    def answer(self, merchant: str, token: str | None = None) -> Response:
        """Acknowledge the request's callback once it is queued; anything else is a plain failure.

        Every refusal looks the same, so that an answer tells nobody which merchants exist or which check failed.
        """
        deadline = request.environ.get(ARRIVED_AT, time.monotonic()) + self._confirm_timeout_seconds
        with self._metrics.in_flight.track_inprogress():
            try:
                entrance = self._entrances.find(merchant, token)
            except UnknownMerchant as refusal:
                return self._refuse(None, refusal.reason, refusal.detail)
            except CallbackRefused as refusal:
                return self._refuse(merchant, refusal.reason, refusal.detail)
            try:
                claim = self._read_claim(entrance)
            except RequestEntityTooLarge:
                return self._refuse(merchant, "too-large", "the body is longer than any callback", status=_TOO_LARGE)
            except CallbackRefused as refusal:
                return self._refuse(merchant, refusal.reason, refusal.detail)
            try:
                self._publish(claim, deadline)
            except NotConfirmed as error:
                return self._admit_failure(claim, error)
            return self._acknowledge(entrance, claim)

    def _read_claim(self, entrance: Entrance) -> Claim:
        merchant = entrance.merchant
        received_at = self._clock()
        verified = verify_callback(request.get_data(cache=False), request.content_type)
        self._dialects.saw(merchant=merchant.slug, kind=verified.kind, dialect=verified.dialect)
        claim = claim_from_callback(
            verified,
            merchant=merchant.slug,
            pay_types=merchant.pay_types,
            time_zone=ZoneInfo(merchant.time_zone),  # from its cache
            trust=entrance.trust,
            received_at=received_at,
            traceparent=g.traceparent,
        )
        if entrance.biz_order_no not in (None, claim.biz_order_no):
            raise CallbackRefused(
                Refusal.TOKEN_OF_ANOTHER_ORDER, "the body's biz_order_no is not the one that the address was minted for"
            )
        return claim

    def _publish(self, claim: Claim, deadline: float) -> None:
        message = encode_claim(claim)
        started = time.monotonic()
        if started >= deadline:
            raise ConfirmTimeout("all threads were waiting for confirms; its turn came too late")
        try:
            self._publisher.publish(message, timeout_seconds=deadline - started)
        finally:
            self._metrics.confirm_seconds.observe(time.monotonic() - started)

    def _acknowledge(self, entrance: Entrance, claim: Claim) -> Response:
        self._metrics.count_callback(claim.merchant, outcome="acknowledged", trust=claim.trust)
        _log.info(
            "callback_acknowledged",
            merchant=claim.merchant,
            biz_order_no=claim.biz_order_no,
            status=claim.status,
            trust=claim.trust.word,
            quarantine=claim.quarantine,
            client=request.remote_addr,
        )
        acknowledgement = entrance.merchant.acknowledgement
        return Response(acknowledgement.body, content_type=acknowledgement.content_type)

    def _refuse(self, merchant: str | None, reason: str, detail: str, *, status: int = _REFUSED) -> Response:
        named = UNKNOWN_MERCHANT if merchant is None else merchant
        self._metrics.count_callback(named, outcome="refused", reason=reason)
        self._refusals.count(merchant, reason)
        _log.warning("callback_refused", merchant=named, reason=reason, detail=detail, client=request.remote_addr)
        return failure(status)

    def _admit_failure(self, claim: Claim, error: NotConfirmed) -> Response:
        reason = type(error).__name__
        self._metrics.count_callback(claim.merchant, outcome="unconfirmed", reason=reason, trust=claim.trust)
        _log.error(
            "callback_unconfirmed",
            merchant=claim.merchant,
            biz_order_no=claim.biz_order_no,
            reason=reason,
            detail=str(error),
            client=request.remote_addr,
        )
        return failure(_UNCONFIRMED)


def _begin_trace() -> None:
    """Give the callback its trace, and every line that this thread logs until its answer the trace's id."""
    g.traceparent = parse_traceparent(request.headers.get(TRACEPARENT)) or new_traceparent()
    structlog.contextvars.bind_contextvars(trace_id=trace_id_of(g.traceparent))


def _end_trace(_error: BaseException | None) -> None:
    # The thread's next callback is another's.
    structlog.contextvars.unbind_contextvars("trace_id")
