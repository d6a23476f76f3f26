"""Decisions: what a batch of claims does to its orders, before anything of it is written. No I/O, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo

from service.claims import Claim, OrderKey, Trust
from service.events import EventType, PaymentEvent
from service.ledger.claim_rows import Entry
from service.ledger.inquiries import InquiryReason, Question
from service.ledger.notices import Notice
from service.ledger.orders import OrderRecord
from service.ledger.rules import EndpointRules, MerchantRules
from service.ledger.states import OrderState, Transition, Verdict, decide
from service.masking import mask_personal


@dataclass(slots=True, kw_only=True)
class Decisions:
    """What is to be written for a batch; grows claim by claim."""

    merchants: Mapping[str, MerchantRules]
    endpoints: Sequence[EndpointRules]
    now: datetime
    #: Every order of the batch that exists, as it is after the claims so far.
    orders: dict[OrderKey, OrderRecord]
    #: By the position of the claim.
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    #: Orders that changed.
    changed: set[OrderKey] = field(default_factory=set)
    notices: list[Notice] = field(default_factory=list)
    questions: dict[OrderKey, Question] = field(default_factory=dict)
    #: Orders about which nothing asked before this batch needs an answer any more.
    answered: set[OrderKey] = field(default_factory=set)

    def take(self, entry: Entry) -> None:
        """Decide one claim, on top of those taken before."""
        claim = entry.claim
        merchant = self.merchants.get(claim.merchant)
        if merchant is None:
            self.verdicts[entry.position] = Verdict.QUARANTINED
            return
        order = self.orders.get(claim.order)
        state = OrderState() if order is None else order.state
        transition = decide(state, claim, required=merchant.required_trust)
        self.verdicts[entry.position] = transition.verdict
        if entry.counted and order is not None:
            self._follow(order, claim, transition, merchant)
        if transition.ask:
            reason = _reason_to_ask(claim, transition)
            self._ask(claim.order, reason, self.now, merchant, anyones=claim.trust is Trust.CHECKSUM)

    def take_repeated(self, entry: Entry) -> None:
        """A claim that was recorded before: it changes nothing, but may be a reason to ask.

        It is one where it says, later, what the order has been corrected from since: whoever repeats that means it.
        """
        claim = entry.claim
        merchant, order = self.merchants.get(claim.merchant), self.orders.get(claim.order)
        if merchant is None or order is None or not entry.counted or order.state.conflicted:
            return
        if decide(order.state, claim, required=merchant.required_trust).ask:
            self._ask(claim.order, InquiryReason.DOUBTED, self.now, merchant, anyones=claim.trust is Trust.CHECKSUM)

    def _follow(self, before: OrderRecord, claim: Claim, transition: Transition, merchant: MerchantRules) -> None:
        after = _after(before, claim, transition)
        if transition.event is not None:
            after = replace(after, sequence=before.sequence + 1)
            self._announce(before, after, claim, transition.event, merchant)
        if after != before:
            self.orders[after.key] = replace(after, updated_at=self.now)
            self.changed.add(after.key)
        moved = before.state.trust is None or before.state.status is not after.state.status
        # The status may stay, and yet a dispute that only a person could settle was asked about no more.
        ends_dispute = before.state.conflicted and not after.state.conflicted
        if after.settled and (moved or ends_dispute):
            # An answer that only says what was known closes nothing here: a doubt may have come after it was asked for.
            self.answered.add(after.key)
            self.questions.pop(after.key, None)
        elif (moved or ends_dispute) and not after.state.status.terminal:
            due = after.answer_due_at or self.now + timedelta(seconds=merchant.answer_due_seconds)
            self._ask(after.key, InquiryReason.OVERDUE, due, merchant)

    def _announce(
        self, before: OrderRecord, after: OrderRecord, claim: Claim, type_: EventType, merchant: MerchantRules
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
        wanted_by = tuple(
            endpoint.name for endpoint in self.endpoints if endpoint.wants(event, ends_dispute_only=ends_dispute_only)
        )
        self.notices.append(Notice(event=event, endpoints=wanted_by))

    def _ask(
        self, order: OrderKey, reason: InquiryReason, due: datetime, merchant: MerchantRules, *, anyones: bool = False
    ) -> None:
        if not merchant.can_ask:
            return
        asked = self.questions.get(order)
        fresh = question(order, reason, due, merchant, now=self.now, anyones=anyones)
        self.questions[order] = fresh if asked is None else asked.merged(fresh)


def decide_batch(
    entries: Sequence[Entry],
    *,
    orders: Mapping[OrderKey, OrderRecord],
    merchants: Mapping[str, MerchantRules],
    endpoints: Sequence[EndpointRules],
    now: datetime,
) -> Decisions:
    """Decide `entries` one after the other.

    `orders` holds those orders of the batch that exist. One that counted claims are about must be among them, if only
    as a row of which nobody has said anything.
    """
    decisions = Decisions(merchants=merchants, endpoints=endpoints, now=now, orders=dict(orders))
    for entry in entries:
        decisions.take(entry)
    return decisions


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


def _after(before: OrderRecord, claim: Claim, transition: Transition) -> OrderRecord:
    """The order with the claim's facts: all of them where its word now stands, else only what was missing."""
    match transition.verdict:
        case Verdict.APPLIED | Verdict.CORRECTED:
            same_status = transition.after.status is before.state.status
            return replace(
                before,
                state=transition.after,
                order_type=claim.order_type or before.order_type,
                pay_type=before.pay_type or claim.pay_type,
                paid_at=claim.paid_at or (before.paid_at if same_status else None),
            )
        case Verdict.DUPLICATE:
            return replace(
                before,
                state=transition.after,
                order_type=before.order_type or claim.order_type,
                pay_type=before.pay_type or claim.pay_type,
                paid_at=before.paid_at or claim.paid_at,
            )
        case _:
            return replace(before, state=transition.after)
