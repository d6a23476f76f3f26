"""One merchant's asker: claims the inquiries that are due, asks the merchant's gateway, and settles what came of it.

- Claiming and settling are short transactions; asking happens outside of any, on a pool of the merchant's own, so that
  a slow gateway delays no other merchant.
- A question is counted before it is sent. A crash, or a database that goes away after that, lets the lease run out, and
  the order is asked about again as its backoff has it: never more often than allowed, and never forgotten.
- Who was frozen until its lease had run out sends nothing: meanwhile another may have asked, and counted it.
- Only an answer is a claim. What is no answer, and an order that the gateway does not know, are kept with the question
  and asked again: neither means that a payment failed.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from consumers.faults import describe_fault, frames_of
from consumers.gateway import Gateway, NoAnswer
from consumers.retry import Patience, Stopping
from service.config.settings import InquirerSettings
from service.domain.claims import Claim
from service.ledger.errors import ClaimUnstorable
from service.ledger.inquiries import InquiryState
from service.ledger.inquiry_queue import InquiryQueue, Settlement
from service.ledger.questions import DueInquiry, QuestionOutcome, QuestionResult
from service.runtime.metrics.claims import ClaimMetrics
from service.runtime.metrics.inquirer import InquirerMetrics
from service.runtime.traceparent import new_traceparent, trace_id_of

_log = structlog.get_logger()

# While the database is away.
_FIRST_RETRY_SECONDS = 0.5
_MOST_RETRY_SECONDS = 15.0
# At shutdown, on top of the gateway's own time limit.
_GRACE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What came back on one question."""

    reply: QuestionResult
    claim: Claim | None = None


class Asker:
    """Asks one merchant's gateway, in the calling thread; up to `settings.concurrency` questions are under way."""

    def __init__(
        self,
        *,
        merchant: str,
        agenda: InquiryQueue,
        gateway: Gateway,
        timeout_seconds: float,
        settings: InquirerSettings,
        metrics: InquirerMetrics,
        claim_metrics: ClaimMetrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeout_seconds` is the longest that the gateway may take to answer."""
        self._merchant = merchant
        self._agenda = agenda
        self._gateway = gateway
        self._timeout_seconds = timeout_seconds
        self._settings = settings
        self._metrics = metrics
        self._claim_metrics = claim_metrics
        self._monotonic = monotonic
        self._log = _log.bind(merchant=merchant)
        self._under_way: dict[Future[_Heard], DueInquiry] = {}

    def run(self, stop: threading.Event) -> None:
        """Ask until `stop` is set; then let the questions under way end, within their time limit, and settle them.

        May be called again after it has raised: what was under way comes back when its lease has run out.
        """
        patience = Patience(stop=stop, first_seconds=_FIRST_RETRY_SECONDS, most_seconds=_MOST_RETRY_SECONDS)
        self._under_way.clear()
        threads = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix=f"ask-{self._merchant}")
        try:
            with suppress(Stopping):
                while not stop.is_set():
                    self._claim(threads, patience)
                    self._settle(self._wait(stop), patience)
                self._settle(self._drain(), patience)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            if self._under_way:
                self._log.warning("questions_left_under_way", count=len(self._under_way))

    def _claim(self, threads: ThreadPoolExecutor, patience: Patience) -> None:
        """Fill what is free. The next look is due as soon as one is done, or after `poll_seconds`."""
        free = self._settings.concurrency - len(self._under_way)
        if not free:
            return
        lease_ends, claimed = patience.insist(lambda: self._lease(limit=free))
        for claim in claimed:
            # An order that was announced and never spoken of has no trace yet.
            inquiry = replace(claim, traceparent=claim.traceparent or new_traceparent())
            self._under_way[threads.submit(self._ask, inquiry, lease_ends)] = inquiry

    def _lease(self, *, limit: int) -> tuple[float, Sequence[DueInquiry]]:
        """What is due, and until when it is ours by our own clock: no later than by the database's."""
        lease_seconds = self._settings.lease_seconds
        lease_ends = self._monotonic() + lease_seconds
        return lease_ends, self._agenda.claim_due(self._merchant, limit=limit, lease_seconds=lease_seconds)

    def _ask(self, inquiry: DueInquiry, lease_ends: float) -> _Heard:
        began = self._monotonic()
        if began >= lease_ends:
            return _no_answer("not sent: the lease had run out before")
        try:
            answer = self._gateway.ask(inquiry.order.biz_order_no)
        except NoAnswer as error:
            outcome, request_id, detail, claim = QuestionOutcome.NO_ANSWER, error.request_id, str(error), None
        else:
            outcome = QuestionOutcome.NOT_FOUND if answer.claim is None else QuestionOutcome.ANSWERED
            request_id, detail = answer.request_id, answer.detail
            claim = None if answer.claim is None else replace(answer.claim, traceparent=inquiry.traceparent)
        seconds = self._monotonic() - began
        return _Heard(
            reply=QuestionResult(outcome=outcome, request_id=request_id, seconds=seconds, detail=detail), claim=claim
        )

    def _wait(self, stop: threading.Event) -> Collection[Future[_Heard]]:
        if not self._under_way:
            stop.wait(self._settings.poll_seconds)
            return ()
        return wait(self._under_way, timeout=self._settings.poll_seconds, return_when=FIRST_COMPLETED).done

    def _drain(self) -> Collection[Future[_Heard]]:
        return wait(self._under_way, timeout=self._timeout_seconds + _GRACE_SECONDS).done

    def _settle(self, done: Collection[Future[_Heard]], patience: Patience) -> None:
        for asked in done:
            inquiry = self._under_way[asked]
            heard = self._heard(asked, inquiry)
            settlement = self._record(inquiry, heard, patience)
            # Only now: what is not settled at the end is reported as left under way.
            del self._under_way[asked]
            self._tell(inquiry, heard, settlement)

    def _heard(self, asked: "Future[_Heard]", inquiry: DueInquiry) -> _Heard:
        error = asked.exception()
        if error is None:
            return asked.result()
        # A bug of ours, or of this order's: the other orders must not suffer from it.
        self._log.error("asking_fails", **_about(inquiry), reason=describe_fault(error), frames=frames_of(error))
        return _no_answer(describe_fault(error))

    def _record(self, inquiry: DueInquiry, heard: _Heard, patience: Patience) -> Settlement:
        try:
            return patience.insist(lambda: self._agenda.settle(inquiry, heard.reply, claim=heard.claim))
        except ClaimUnstorable as error:
            self._log.error("answer_unstorable", **_about(inquiry), reason=describe_fault(error))
            unheard = _no_answer(describe_fault(error), request_id=heard.reply.request_id)
            return patience.insist(lambda: self._agenda.settle(inquiry, unheard.reply))

    def _tell(self, inquiry: DueInquiry, heard: _Heard, settlement: Settlement) -> None:
        reply, claim, verdict = heard.reply, heard.claim, settlement.verdict
        reasons = [reason.name.lower().replace("_", "-") for reason in inquiry.reasons if reason.name is not None]
        self._metrics.count_question(
            self._merchant, outcome=reply.outcome.value, reasons=reasons, seconds=reply.seconds
        )
        fields = {
            **_about(inquiry),
            "request_id": reply.request_id,
            "attempt": inquiry.attempt,
            "reasons": [reason.name for reason in inquiry.reasons],
        }
        self._log.info(
            "gateway_asked",
            seconds=round(reply.seconds, 3),
            outcome=reply.outcome.value,
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


def _no_answer(detail: str, *, request_id: str = "") -> _Heard:
    return _Heard(
        reply=QuestionResult(outcome=QuestionOutcome.NO_ANSWER, request_id=request_id, seconds=0.0, detail=detail)
    )


def _about(inquiry: DueInquiry) -> dict[str, str | None]:
    """What every log line about an inquiry says of it."""
    return {"biz_order_no": inquiry.order.biz_order_no, "trace_id": trace_id_of(inquiry.traceparent)}
