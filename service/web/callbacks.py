"""The endpoint behind notify_url: one callback in, one message queued and confirmed, one acknowledgement out."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog
from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from service.domain.claims import Claim
from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.order_claims import claim_from_callback
from service.gateway.signature import verify_callback
from service.messaging.codec import encode_claim
from service.messaging.errors import ConfirmTimeout
from service.runtime.metrics.merchants import UNKNOWN_MERCHANT
from service.runtime.metrics.receiver import ReceiverMetrics
from service.runtime.traceparent import TRACEPARENT, new_traceparent, parse_traceparent, trace_id_of
from service.serving.wsgi import ARRIVED_AT, WHOLE_BODY, Answer, PendingAnswer
from service.web.answers import UNCONFIRMED, PendingResponse, failure
from service.web.dialect_watch import DialectWatch
from service.web.notify_address import NotifyAddress, NotifyAddresses, UnknownMerchant
from service.web.process_publisher import ProcessPublisher
from service.web.refusal_tally import RefusalTally

_REFUSED = 400
_TOO_LARGE = 413
_UNAVAILABLE = 503

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Published:
    """A callback that is on its way into the queue, and what its answer is told of it."""

    claim: Claim
    client: str | None
    started: float


class CallbackEndpoint:
    """Answers callbacks. Safe to use from many threads."""

    def __init__(
        self,
        *,
        entrances: NotifyAddresses,
        acknowledgements: Mapping[str, Answer],
        publisher: ProcessPublisher,
        metrics: ReceiverMetrics,
        refusals: RefusalTally,
        clock: Callable[[], datetime],
        confirm_timeout_seconds: float,
    ) -> None:
        """`acknowledgements` by merchant. `clock` says the present time, aware.

        The confirm's time limit begins when the whole request has arrived.
        """
        self._entrances = entrances
        self._acknowledgements = acknowledgements
        self._publisher = publisher
        self._metrics = metrics
        self._refusals = refusals
        self._clock = clock
        self._confirm_timeout_seconds = confirm_timeout_seconds
        self._dialects = DialectWatch(metrics=metrics)

    def blueprint(self) -> Blueprint:
        """The routes of this endpoint."""
        routes = Blueprint("callbacks", __name__)
        routes.add_url_rule("/notify/<merchant>", "common", self.answer, methods=["POST"])
        routes.add_url_rule("/notify/<merchant>/<token>", "minted", self.answer, methods=["POST"])
        return routes

    def answer(self, merchant: str, token: str | None = None) -> Response:
        """Acknowledge the request's callback once it is queued; anything else is a plain failure.

        Every refusal looks the same, so that an answer tells nobody which merchants exist or which check failed.
        """
        deadline = request.environ.get(ARRIVED_AT, time.monotonic()) + self._confirm_timeout_seconds
        traceparent = parse_traceparent(request.headers.get(TRACEPARENT)) or new_traceparent()
        try:
            entrance = self._entrances.find(merchant, token)
            if time.monotonic() >= deadline:
                # Before the sign is verified: what comes too late costs nothing more.
                return self._fail_unread(merchant, traceparent)
            claim = self._read_claim(entrance, traceparent)
        except UnknownMerchant as refusal:
            return self._refuse(None, refusal.reason, refusal.detail, traceparent)
        except CallbackRefused as refusal:
            return self._refuse(merchant, refusal.reason, refusal.detail, traceparent)
        except RequestEntityTooLarge:
            detail = "the body is longer than any callback"
            return self._refuse(merchant, "too-large", detail, traceparent, status=_TOO_LARGE)
        return self._publish(claim, deadline)

    def _read_claim(self, entrance: NotifyAddress, traceparent: str) -> Claim:
        merchant = entrance.merchant
        received_at = self._clock()
        body = request.environ.get(WHOLE_BODY)
        verified = verify_callback(
            request.get_data(cache=False) if body is None else body, request.environ.get("CONTENT_TYPE")
        )
        self._dialects.saw(merchant=merchant.slug, kind=verified.kind, dialect=verified.dialect)
        claim = claim_from_callback(
            verified,
            merchant=merchant,
            trust=entrance.trust,
            received_at=received_at,
            traceparent=traceparent,
        )
        if entrance.biz_order_no not in (None, claim.biz_order_no):
            raise CallbackRefused(
                Refusal.TOKEN_OF_ANOTHER_ORDER, "the body's biz_order_no is not the one that the address was minted for"
            )
        return claim

    def _publish(self, claim: Claim, deadline: float) -> Response:
        """Hand the callback to the queue. What becomes of it is known, logged and counted when it is settled."""
        published = _Published(claim, request.remote_addr, started=time.monotonic())
        self._metrics.in_flight.inc()
        pending = PendingAnswer(partial(self._conclude, published), failure=UNCONFIRMED, deadline=deadline)
        if published.started >= deadline:
            pending.settle(ConfirmTimeout("its turn came after its time was up"))
        else:
            self._submit(claim, deadline, pending)
        return PendingResponse(pending)

    def _submit(self, claim: Claim, deadline: float, pending: PendingAnswer) -> None:
        try:
            self._publisher.submit(encode_claim(claim), deadline=deadline, on_settled=pending.settle)
        except Exception:
            self._metrics.in_flight.dec()  # the application answers for its own mistakes
            raise

    def _conclude(self, published: _Published, error: Exception | None) -> Answer:
        """What the gateway is told once the callback is queued, or is known not to be; called once."""
        claim = published.claim
        self._metrics.in_flight.dec()
        self._metrics.confirm_seconds.observe(time.monotonic() - published.started)
        if error is None:
            self._metrics.count_callback(claim.merchant, outcome="acknowledged", trust=claim.trust)
            _log.info(
                "callback_acknowledged",
                merchant=claim.merchant,
                biz_order_no=claim.biz_order_no,
                status=claim.status,
                trust=claim.trust.word,
                quarantine=claim.quarantine,
                client=published.client,
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
            client=published.client,
            trace_id=trace_id_of(claim.traceparent),
        )
        return UNCONFIRMED

    def _fail_unread(self, merchant: str, traceparent: str) -> Response:
        reason = ConfirmTimeout.__name__
        self._metrics.count_callback(merchant, outcome="unconfirmed", reason=reason)
        _log.error(
            "callback_unconfirmed",
            merchant=merchant,
            reason=reason,
            detail="its turn came after its time was up; its body was not read",
            client=request.remote_addr,
            trace_id=trace_id_of(traceparent),
        )
        return failure(_UNAVAILABLE)

    def _refuse(
        self, merchant: str | None, reason: str, detail: str, traceparent: str, *, status: int = _REFUSED
    ) -> Response:
        named = UNKNOWN_MERCHANT if merchant is None else merchant
        self._metrics.count_callback(named, outcome="refused", reason=reason)
        self._refusals.count(merchant, reason)
        _log.warning(
            "callback_refused",
            merchant=named,
            reason=reason,
            detail=detail,
            client=request.remote_addr,
            trace_id=trace_id_of(traceparent),
        )
        return failure(status)
