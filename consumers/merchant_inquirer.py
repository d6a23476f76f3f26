"""One merchant's inquirer: leases due inquiries, asks the merchant's gateway, and settles the results.

- Leases and settlements are short transactions. Questions are asked outside of any, in threads of the merchant's own,
  so a slow gateway delays no other merchant.
- A question is counted before it is sent. After a crash, or when the database becomes unavailable, the lease runs out
  and the gateway is asked again after the inquiry's backoff: never more often than allowed, and never forgotten.
- A process that was frozen until its lease had run out sends nothing: another may have asked meanwhile.
- Only an answer is a claim. No answer, and an order that the gateway does not have, are recorded with the question, and
  it is asked again: neither means that a payment failed.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from consumers.faults import describe_fault, frames_of
from consumers.gateway import MerchantGateway, NoAnswer
from consumers.retry import Retrier
from consumers.worker_pool import GRACE_SECONDS, WorkerPool, run_leased
from service.config.settings import InquirerSettings
from service.domain.claims import Claim
from service.ledger.errors import ClaimUnstorable
from service.ledger.inquiries import InquiryState
from service.ledger.inquiry_queue import InquiryQueue, Settlement
from service.ledger.questions import DueInquiry, QuestionOutcome, QuestionResult
from service.runtime.metrics.inquirer import InquirerMetrics
from service.runtime.metrics.merchants import ClaimMetrics
from service.runtime.traceparent import new_traceparent, trace_id_of

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Leased:
    """An inquiry, and the time at which its lease ends by our own clock."""

    inquiry: DueInquiry
    ends_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An inquiry whose question was asked, and the result."""

    inquiry: DueInquiry
    result: QuestionResult
    claim: Claim | None = None


_Pool = WorkerPool[_Leased, _Asked]


class MerchantInquirer:
    """Asks one merchant's gateway, up to `settings.concurrency` questions at once."""

    def __init__(
        self,
        *,
        merchant: str,
        queue: InquiryQueue,
        gateway: MerchantGateway,
        settings: InquirerSettings,
        metrics: InquirerMetrics,
        claim_metrics: ClaimMetrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._merchant = merchant
        self._queue = queue
        self._gateway = gateway
        self._settings = settings
        self._metrics = metrics
        self._claim_metrics = claim_metrics
        self._monotonic = monotonic
        self._log = _log.bind(merchant=merchant)

    def run(self, stop: threading.Event) -> None:
        """Ask until `stop` is set; then let the questions under way end, within their time limit, and settle them.

        May be called again after it has raised.
        """

        def turn(pool: _Pool, retrier: Retrier) -> None:
            self._lease(pool, retrier)
            self._settle(self._collect(pool, stop), retrier)

        def finish(pool: _Pool, retrier: Retrier) -> None:
            self._settle(pool.collect(wait_seconds=self._gateway.timeout_seconds + GRACE_SECONDS), retrier)

        name = f"ask-{self._merchant}"
        run_leased(
            stop,
            WorkerPool(self._ask, threads=self._settings.concurrency, name=name),
            turn=turn,
            finish=finish,
            name=name,
        )

    def _lease(self, pool: _Pool, retrier: Retrier) -> None:
        """Lease as many inquiries as there are free threads."""
        if free := self._settings.concurrency - pool.unfinished:
            pool.add(retrier.call(lambda: self._lease_due(limit=free)))

    def _lease_due(self, *, limit: int) -> Sequence[_Leased]:
        lease_seconds = self._settings.lease_seconds
        # Read before the database does: by our clock the lease ends no later than by the database's.
        ends_at = self._monotonic() + lease_seconds
        due = self._queue.lease_due(self._merchant, limit=limit, lease_seconds=lease_seconds)
        # An order that was only announced has no trace yet.
        return [
            _Leased(replace(inquiry, traceparent=inquiry.traceparent or new_traceparent()), ends_at) for inquiry in due
        ]

    def _collect(self, pool: _Pool, stop: threading.Event) -> Sequence[_Asked]:
        """The questions that were asked since; waits for one, or until it is time to look for due inquiries."""
        if not pool.unfinished:
            stop.wait(self._settings.poll_seconds)
        return pool.collect(wanted=1, wait_seconds=self._settings.poll_seconds)

    def _ask(self, leased: _Leased) -> _Asked:
        """Ask one question, in a thread of the pool."""
        inquiry = leased.inquiry
        began = self._monotonic()
        if began >= leased.ends_at:
            return _unanswered(inquiry, "not sent: the lease had run out before")
        try:
            answer = self._gateway.ask(inquiry.order.biz_order_no)
        except NoAnswer as error:
            outcome, request_id, detail, claim = QuestionOutcome.NO_ANSWER, error.request_id, str(error), None
        except Exception as error:  # noqa: BLE001 -- a bug, perhaps with this order only: the other orders must not suffer
            self._log.error("inquiry_failed", **_about(inquiry), reason=describe_fault(error), frames=frames_of(error))
            return _unanswered(inquiry, describe_fault(error))
        else:
            outcome = QuestionOutcome.NOT_FOUND if answer.claim is None else QuestionOutcome.ANSWERED
            request_id, detail = answer.request_id, answer.detail
            claim = None if answer.claim is None else replace(answer.claim, traceparent=inquiry.traceparent)
        seconds = self._monotonic() - began
        result = QuestionResult(outcome=outcome, request_id=request_id, seconds=seconds, detail=detail)
        return _Asked(inquiry=inquiry, result=result, claim=claim)

    def _settle(self, done: Sequence[_Asked], retrier: Retrier) -> None:
        for asked in done:
            self._report(asked, self._record(asked, retrier))

    def _record(self, asked: _Asked, retrier: Retrier) -> Settlement:
        try:
            return retrier.call(lambda: self._queue.settle(asked.inquiry, asked.result, claim=asked.claim))
        except ClaimUnstorable as error:
            reason = describe_fault(error)
            self._log.error("answer_unstorable", **_about(asked.inquiry), reason=reason)
            unanswered = _unanswered(asked.inquiry, reason, request_id=asked.result.request_id)
            return retrier.call(lambda: self._queue.settle(asked.inquiry, unanswered.result))

    def _report(self, asked: _Asked, settlement: Settlement) -> None:
        inquiry, result, claim, verdict = asked.inquiry, asked.result, asked.claim, settlement.verdict
        reasons = [reason.name.lower().replace("_", "-") for reason in inquiry.reasons if reason.name is not None]
        self._metrics.count_question(
            self._merchant, outcome=result.outcome.value, reasons=reasons, seconds=result.seconds
        )
        fields = {
            **_about(inquiry),
            "request_id": result.request_id,
            "attempt": inquiry.attempt,
            "reasons": [reason.name for reason in inquiry.reasons],
        }
        self._log.info(
            "gateway_asked",
            seconds=round(result.seconds, 3),
            outcome=result.outcome.value,
            status=None if claim is None else claim.status,
            verdict=verdict,
            state=settlement.state.value,
            **fields,
        )
        if claim is not None and verdict is not None:
            moved_to = claim.status if verdict.moves else None
            self._claim_metrics.count_claims(claim.merchant, verdict=verdict, moved_to=moved_to)
        if settlement.state is InquiryState.PARKED:
            self._metrics.count_parked(self._merchant)
            self._log.error("inquiry_parked", **fields)


def _unanswered(inquiry: DueInquiry, detail: str, *, request_id: str = "") -> _Asked:
    result = QuestionResult(outcome=QuestionOutcome.NO_ANSWER, request_id=request_id, seconds=0.0, detail=detail)
    return _Asked(inquiry=inquiry, result=result)


def _about(inquiry: DueInquiry) -> dict[str, str | None]:
    """The fields of every log line about an inquiry."""
    return {"biz_order_no": inquiry.order.biz_order_no, "trace_id": trace_id_of(inquiry.traceparent)}
