"""The inquirer: asks the merchants' gateways, in a loop per merchant, so that none waits for another's gateway.

A loop leases due inquiries, asks the merchant's gateway, and settles the results.

- Leases and settlements are short transactions. Questions are asked outside of any, in threads of the merchant's own,
  so a slow gateway delays no other merchant.
- A question is counted before it is sent. After a crash, or when the database becomes unavailable, the lease runs out
  and the gateway is asked again after the inquiry's backoff: never more often than allowed, and never forgotten.
- A process that was frozen until its lease had run out sends nothing: another may have asked meanwhile.
- Only an answer is a claim. No answer, and an order that the gateway does not have, are recorded with the question, and
  it is asked again: neither means that a payment failed. The one exception is a merchant's rules for refused withholds.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from consumers.faults import describe_fault, frames_of
from consumers.outages import Retrier
from consumers.threads import GRACE_SECONDS, Leased, WorkerPool, lease_jobs, run_leased, supervise
from service.config.settings import InquirerSettings, MerchantSettings
from service.domain.claims import Claim
from service.gateway.client import GatewayClient
from service.gateway.errors import CallFailed
from service.gateway.order_claims import claim_from_query
from service.ledger.errors import ClaimUnstorable
from service.ledger.inquiries import InquiryState
from service.ledger.inquiry_questions import DueInquiry, QuestionOutcome, QuestionResult
from service.ledger.inquiry_queue import InquiryQueue, Settlement
from service.runtime.logs import Logger
from service.runtime.metrics.inquirer import InquirerMetrics
from service.runtime.metrics.merchants import ClaimMetrics
from service.runtime.traceparent import trace_id_of
from service.runtime.tracing import NO_TRACING, Tracing

_log = Logger(__name__)


class Inquirer:
    """Asks every merchant's gateway what is due. Any number of processes may do so at once.

    The queue's engine needs a connection per merchant, since all of them may lease or settle at the same moment.
    """

    def __init__(
        self,
        *,
        queue: InquiryQueue,
        merchants: Mapping[str, MerchantSettings],
        gateways: Mapping[str, GatewayClient],
        settings: InquirerSettings,
        metrics: InquirerMetrics,
        claim_metrics: ClaimMetrics,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """`gateways` by merchant, each of which is in `merchants`."""
        self._loops = {
            slug: MerchantInquirer(
                merchant=merchants[slug],
                queue=queue,
                gateway=gateway,
                settings=settings,
                metrics=metrics,
                claim_metrics=claim_metrics,
                tracing=tracing,
            ).run
            for slug, gateway in gateways.items()
        }

    def run(self, stop: threading.Event) -> None:
        """Ask until `stop` is set and all questions under way have ended, within the gateways' time limits."""
        if self._loops:
            supervise(self._loops, stop)
        else:
            _log.warning("no_gateways")
            stop.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An inquiry whose question was asked, and the result."""

    inquiry: DueInquiry
    result: QuestionResult
    claim: Claim | None = None


_Pool = WorkerPool[Leased[DueInquiry], _Asked]


class MerchantInquirer:
    """Asks one merchant's gateway, up to `settings.concurrency` questions at once."""

    def __init__(
        self,
        *,
        merchant: MerchantSettings,
        queue: InquiryQueue,
        gateway: GatewayClient,
        settings: InquirerSettings,
        metrics: InquirerMetrics,
        claim_metrics: ClaimMetrics,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._merchant = merchant
        self._queue = queue
        self._gateway = gateway
        self._settings = settings
        self._metrics = metrics
        self._claim_metrics = claim_metrics
        self._tracing = tracing
        self._log = _log.bind(merchant=merchant.slug)

    def run(self, stop: threading.Event) -> None:
        """Ask until `stop` is set; then let the questions under way end, within their time limit, and settle them.

        May be called again after it has raised.
        """

        def turn(pool: _Pool, retrier: Retrier) -> None:
            self._lease(pool, retrier)
            self._settle(self._collect(pool, stop), retrier)

        def finish(pool: _Pool, retrier: Retrier) -> None:
            self._settle(pool.collect(wait_seconds=self._gateway.timeout_seconds + GRACE_SECONDS), retrier)

        pool: _Pool = WorkerPool(self._ask, threads=self._settings.concurrency, name=f"ask-{self._merchant.slug}")
        run_leased(stop, pool, turn=turn, finish=finish)

    def _lease(self, pool: _Pool, retrier: Retrier) -> None:
        """Lease as many inquiries as there are free threads."""
        if free := self._settings.concurrency - pool.unfinished:
            pool.add(retrier.call(lambda: self._lease_due(limit=free)))

    def _lease_due(self, *, limit: int) -> Sequence[Leased[DueInquiry]]:
        lease = partial(self._queue.lease_due, self._merchant.slug, limit=limit)
        return lease_jobs(lease, lease_seconds=self._settings.lease_seconds)

    def _collect(self, pool: _Pool, stop: threading.Event) -> Sequence[_Asked]:
        """The questions that were asked since; waits for one, or until it is time to look for due inquiries."""
        if not pool.unfinished:
            stop.wait(self._settings.poll_seconds)
        return pool.collect(wanted=1, wait_seconds=self._settings.poll_seconds)

    def _ask(self, leased: Leased[DueInquiry]) -> _Asked:
        """Ask one question, in a thread of the pool and in a span of the order's trace."""
        with self._tracing.inquire(leased.job.traceparent) as span:
            asked = self._query(replace(leased.job, traceparent=span.traceparent), lease_ends_at=leased.ends_at)
            span.set("payment.merchant", self._merchant.slug)
            span.set("payment.outcome", asked.result.outcome.value)
        return asked

    def _query(self, inquiry: DueInquiry, *, lease_ends_at: float) -> _Asked:
        began = time.monotonic()
        if began >= lease_ends_at:
            return _unanswered(inquiry, "not sent: the lease had run out before")
        try:
            # One request for one question: questions are counted, so the client must not retry.
            answer = self._gateway.query(inquiry.order.biz_order_no, max_tries=1)
            claim = None
            if answer.order is not None:
                claim = claim_from_query(answer.order, merchant=self._merchant, asked_at=answer.asked_at)
                claim = replace(claim, traceparent=inquiry.traceparent)
        except CallFailed as error:
            outcome, request_id, detail, claim = QuestionOutcome.NO_ANSWER, error.request_id, str(error), None
        except Exception as error:  # noqa: BLE001 -- a bug, perhaps with this order only: the other orders must not suffer
            self._log.error("inquiry_failed", **_about(inquiry), reason=describe_fault(error), frames=frames_of(error))
            return _unanswered(inquiry, describe_fault(error))
        else:
            absent = QuestionOutcome.OTHER_SPELLING if answer.other_spelling else QuestionOutcome.NOT_FOUND
            outcome = absent if claim is None else QuestionOutcome.ANSWERED
            request_id, detail = answer.request_id, answer.message if claim is None else ""
        seconds = time.monotonic() - began
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
            self._log.error("answer_not_storable", **_about(asked.inquiry), reason=reason)
            unanswered = _unanswered(asked.inquiry, reason, request_id=asked.result.request_id)
            return retrier.call(lambda: self._queue.settle(asked.inquiry, unanswered.result))

    def _report(self, asked: _Asked, settlement: Settlement) -> None:
        inquiry, result, claim, verdict = asked.inquiry, asked.result, asked.claim, settlement.verdict
        reasons = [reason.name.lower().replace("_", "-") for reason in inquiry.reasons if reason.name is not None]
        self._metrics.count_question(
            self._merchant.slug, outcome=result.outcome.value, reasons=reasons, seconds=result.seconds
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
            self._claim_metrics.observe_final_status(claim, verdict)
        if settlement.ended_by is not None:
            self._log.warning("order_ended_by_rule", rule=settlement.ended_by.value, **fields)
        if settlement.state is InquiryState.PARKED:
            self._metrics.count_parked(self._merchant.slug)
            self._log.error("inquiry_parked", **fields)


def _unanswered(inquiry: DueInquiry, detail: str, *, request_id: str = "") -> _Asked:
    result = QuestionResult(outcome=QuestionOutcome.NO_ANSWER, request_id=request_id, seconds=0.0, detail=detail)
    return _Asked(inquiry=inquiry, result=result)


def _about(inquiry: DueInquiry) -> dict[str, str | None]:
    """The fields of every log line about an inquiry."""
    return {"biz_order_no": inquiry.order.biz_order_no, "trace_id": trace_id_of(inquiry.traceparent)}
