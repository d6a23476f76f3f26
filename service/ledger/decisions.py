"""Decisions: what claims do to their order, before anything of it is written. No I/O, no clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo

from service.domain.claims import Claim, OrderKey, Trust
from service.domain.events import EventType, PaymentEvent
from service.domain.masking import mask_personal
from service.domain.order_state import OrderState, Transition, Verdict, decide
from service.ledger.claim_rows import Entry
from service.ledger.inquiries import InquiryReason, Question
from service.ledger.orders import OrderRecord
from service.ledger.rules import EndpointRules, MerchantRules

_NOBODY_SPOKE = OrderState()


@dataclass(slots=True, kw_only=True)
class Decision:
    """What is to be written for one order; grows claim by claim."""

    #: As it is after the claims so far; None where no claim about it was ever believed.
    order: OrderRecord | None
    #: By the position of the claim.
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    events: list[PaymentEvent] = field(default_factory=list)
    #: Each event with the name of an endpoint that receives it.
    deliveries: list[tuple[PaymentEvent, str]] = field(default_factory=list)
    question: Question | None = None
    #: Whether nothing asked before needs an answer any more.
    answered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Decides claims about one merchant's orders at one time."""

    #: None where the merchant is not configured.
    merchant: MerchantRules | None
    endpoints: Sequence[EndpointRules]
    now: datetime

    def decide(
        self, order: OrderRecord | None, entries: Iterable[Entry], *, repeated: Iterable[Entry] = ()
    ) -> Decision:
        """Decide `entries`, which are about one order, one after the other; then `repeated`, recorded before.

        `order` is the order as it is. One that counted claims are about must be there, if only as a record of which
        nobody has said anything.
        """
        decision = Decision(order=order)
        for entry in entries:
            self._take(decision, entry)
        for entry in repeated:
            self._take_repeated(decision, entry)
        return decision

    def _take(self, decision: Decision, entry: Entry) -> None:
        if self.merchant is None:
            decision.verdicts[entry.position] = Verdict.QUARANTINED
            return
        claim, order = entry.claim, decision.order
        state = _NOBODY_SPOKE if order is None else order.state
        transition = decide(state, claim, required=self.merchant.required_trust)
        decision.verdicts[entry.position] = transition.verdict
        if entry.counted and order is not None:
            self._follow(decision, order, claim, transition, self.merchant)
        # Of an order that nobody knows, any word is news, "initial" too.
        if transition.ask or (order is None and not entry.counted):
            reason = _reason_to_ask(claim, transition)
            self._ask(decision, claim.order, reason, self.now, self.merchant, anyones=claim.trust is Trust.CHECKSUM)

    def _take_repeated(self, decision: Decision, entry: Entry) -> None:
        """A claim that was recorded before: it changes nothing, but may be a reason to ask.

        It is one where it says, later, what the order has been corrected from since: whoever repeats that means it.
        """
        claim, merchant, order = entry.claim, self.merchant, decision.order
        if merchant is None or order is None or not entry.counted or order.state.conflicted:
            return
        if decide(order.state, claim, required=merchant.required_trust).ask:
            anyones = claim.trust is Trust.CHECKSUM
            self._ask(decision, claim.order, InquiryReason.DOUBTED, self.now, merchant, anyones=anyones)

    def _follow(
        self, decision: Decision, before: OrderRecord, claim: Claim, transition: Transition, merchant: MerchantRules
    ) -> None:
        after = _after(before, claim, transition, now=self.now)
        decision.order = after
        if transition.event is not None:
            self._announce(decision, before, after, claim, transition.event, merchant)
        moved = before.state.trust is None or before.state.status is not after.state.status
        # The status may stay, and yet a dispute that only a person could settle was asked about no more.
        ends_dispute = before.state.conflicted and not after.state.conflicted
        if after.settled and (moved or ends_dispute):
            # An answer that only says what was known closes nothing here: a doubt may have come after it was asked for.
            decision.answered = True
            decision.question = None
        elif (moved or ends_dispute) and not after.state.status.terminal:
            due = after.answer_due_at or self.now + timedelta(seconds=merchant.answer_due_seconds)
            self._ask(decision, after.key, InquiryReason.OVERDUE, due, merchant)

    def _announce(
        self,
        decision: Decision,
        before: OrderRecord,
        after: OrderRecord,
        claim: Claim,
        type_: EventType,
        merchant: MerchantRules,
    ) -> None:
        event = PaymentEvent(
            type=type_,
            merchant=after.merchant,
            biz_order_no=after.biz_order_no,
            sequence=after.sequence,
            status=after.state.status,
            previous_status=before.state.status,
            pay_order_no=after.state.pay_order_no,
            order_type=after.order_type,
            pay_type=after.pay_type,
            paid_at=None if after.paid_at is None else _in_zone(after.paid_at, merchant.time_zone),
            amount=after.amount,
            amount_unit=after.amount_unit,
            channel_response=mask_personal(claim.channel_response),
            trust=after.state.trust or claim.trust,
            observed_at=claim.stated_at,
            traceparent=claim.traceparent,
        )
        known = (before.state.status, before.state.pay_order_no)
        ends_dispute_only = type_ is EventType.CORRECTED and (after.state.status, after.state.pay_order_no) == known
        decision.events.append(event)
        decision.deliveries += [
            (event, endpoint.name)
            for endpoint in self.endpoints
            if endpoint.wants(event, ends_dispute_only=ends_dispute_only)
        ]

    def _ask(
        self,
        decision: Decision,
        order: OrderKey,
        reason: InquiryReason,
        due: datetime,
        merchant: MerchantRules,
        *,
        anyones: bool = False,
    ) -> None:
        if not merchant.can_ask:
            return
        fresh = question(order, reason, due, merchant, now=self.now, anyones=anyones)
        decision.question = fresh if decision.question is None else decision.question.merged(fresh)


def question(
    order: OrderKey,
    reason: InquiryReason,
    due: datetime,
    merchant: MerchantRules,
    *,
    now: datetime,
    anyones: bool = False,
) -> Question:
    """A question about `order`, with the merchant's horizon; `anyones` where nobody knows who caused it."""
    horizon_seconds = merchant.inquiry_horizon_seconds
    return Question.about(order, reason, due, now=now, horizon_seconds=horizon_seconds, anyones=anyones)


def _in_zone(time: datetime, zone: tzinfo) -> datetime:
    try:
        return time.astimezone(zone)
    except OverflowError:
        # A person's word of the first or the last day of the calendar, which this zone has not.
        return time


def _reason_to_ask(claim: Claim, transition: Transition) -> InquiryReason:
    if claim.quarantine is not None:
        return InquiryReason.UNREADABLE
    if transition.verdict is Verdict.UNTRUSTED:
        return InquiryReason.UNCONFIRMED
    return InquiryReason.CONFLICT if transition.after.conflicted else InquiryReason.DOUBTED


def _after(before: OrderRecord, claim: Claim, transition: Transition, *, now: datetime) -> OrderRecord:
    """The order with the claim's facts: all of them where its word now stands, else only what was missing."""
    order_type, pay_type, paid_at = before.order_type, before.pay_type, before.paid_at
    match transition.verdict:
        case Verdict.APPLIED | Verdict.CORRECTED:
            same_status = transition.after.status is before.state.status
            order_type = claim.order_type or order_type
            pay_type = pay_type or claim.pay_type
            paid_at = claim.paid_at or (paid_at if same_status else None)
        case Verdict.DUPLICATE:
            order_type = order_type or claim.order_type
            pay_type = pay_type or claim.pay_type
            paid_at = paid_at or claim.paid_at
    known = (before.order_type, before.pay_type, before.paid_at, before.state)
    if transition.event is None and (order_type, pay_type, paid_at, transition.after) == known:
        return before
    return replace(
        before,
        state=transition.after,
        sequence=before.sequence + (transition.event is not None),
        order_type=order_type,
        pay_type=pay_type,
        paid_at=paid_at,
        updated_at=now,
    )
