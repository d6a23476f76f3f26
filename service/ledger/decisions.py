"""Decisions: what claims change about their order, before anything is written. No I/O, no clock."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo

from service.domain.claims import Claim, IdentityField, OrderKey, OrderStatus, Trust
from service.domain.events import EventType, PaymentEvent
from service.domain.masking import mask_personal
from service.domain.money import Money
from service.domain.order_state import (
    WHOLE_IDENTITY,
    OrderState,
    Transition,
    Verdict,
    decide,
    decide_announcement,
)
from service.ledger.claims import IncomingClaim
from service.ledger.inquiries import InquiryReason, InquiryRequest
from service.ledger.orders import OrderRecord

_UNKNOWN_ORDER = OrderState()


@dataclass(frozen=True, slots=True, kw_only=True)
class MerchantRules:
    """What one merchant requires of claims, and how long the gateway is asked about its orders."""

    #: Claims below it change nothing.
    required_trust: Trust
    #: Whether the gateway can be asked at all; without credentials no inquiry is opened.
    can_ask: bool
    #: How long an order may have no terminal status before the gateway is asked, unless its announcement says when.
    answer_due_seconds: float
    #: How long the gateway is asked about an order before its inquiry is parked.
    inquiry_horizon_seconds: float
    #: The field of callbacks and answers that has the amount; "" where the merchant's gateway states none.
    amount_field: str = ""
    #: In which fields two claims about one payment must not differ.
    identity: Collection[IdentityField] = WHOLE_IDENTITY
    #: The zone in which events write `paid_at`, whatever zone a claim or the database has it in.
    time_zone: tzinfo = UTC
    #: Above this amount, a second person has to confirm a resolution; None: it never takes a second person.
    second_person_above: Money | None = None

    def counts(self, claim: Claim) -> bool:
        """Whether the claim is readable and trusted enough to change its order."""
        trusted = claim.trust >= self.required_trust or claim.trust is Trust.RULE
        return claim.quarantine is None and claim.status is not None and trusted

    def need_second_person(self, status: OrderStatus, amount: Money | None, order: OrderRecord | None) -> bool:
        """Whether a second person has to confirm that `order`, which is None where it has no row, gets this status.

        That is so for `succeeded`, to change a final status, above the merchant's amount, and where the amount is
        unknown. What the resolution itself states as `amount` can only raise it: nobody gets round the rule by stating
        a small one.
        """
        if self.second_person_above is None:
            return False
        if order is not None and order.state.status.terminal and order.state.status is not status:
            return True
        amounts = [] if order is None else [*order.stated_amounts]
        if status is OrderStatus.SUCCEEDED or not amounts:
            return True
        if amount is not None:
            amounts.append(amount)
        return any(one.fen > self.second_person_above.fen for one in amounts)

    def request_inquiry(
        self, order: OrderKey, reason: InquiryReason, due: datetime, *, now: datetime, doubt: bool = False
    ) -> InquiryRequest:
        """A request to ask about an order. Its horizon counts from `due`, or from `now` where that is later.

        `doubt` means that the reason is a claim which anyone could have made.
        """
        return InquiryRequest(
            order=order,
            reasons=reason,
            due_at=None if doubt else due,
            doubt_due_at=due if doubt else None,
            horizon_at=max(due, now) + timedelta(seconds=self.inquiry_horizon_seconds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRules:
    """Which events one downstream endpoint receives."""

    name: str
    types: frozenset[EventType]
    #: None means every merchant.
    merchants: frozenset[str] | None = None

    def wants(self, event: PaymentEvent, *, ends_dispute_only: bool) -> bool:
        """Whether the endpoint receives `event`.

        `ends_dispute_only` marks a correction that only ends a conflict and changes neither status nor payment. An
        endpoint that receives no conflicts has no use for it.
        """
        if self.merchants is not None and event.merchant not in self.merchants:
            return False
        if ends_dispute_only and EventType.CONFLICTED not in self.types:
            return False
        return event.type in self.types


class Decision:
    """What claims change about one order; it grows with each claim that it takes."""

    __slots__ = (
        "_endpoints",
        "_now",
        "_rules",
        "closes_inquiry",
        "deliveries",
        "events",
        "inquiry",
        "order",
        "verdicts",
    )

    def __init__(
        self,
        order: OrderRecord | None,
        *,
        rules: MerchantRules | None,
        endpoints: Sequence[EndpointRules],
        now: datetime,
    ) -> None:
        """`rules` is None where the merchant is not configured.

        `order` is the order as it is. For claims that count it must be there, if only as a record about which no claim
        has been made.
        """
        self._rules = rules
        self._endpoints = endpoints
        self._now = now
        #: The order after the claims so far; None where no claim about it was ever believed.
        self.order = order
        #: By the claim's position in its batch.
        self.verdicts: dict[int, Verdict] = {}
        self.events: list[PaymentEvent] = []
        #: Each event with the name of an endpoint that receives it.
        self.deliveries: list[tuple[PaymentEvent, str]] = []
        self.inquiry: InquiryRequest | None = None
        #: Whether nothing is left to ask about the order.
        self.closes_inquiry = False

    def take(self, incoming: Iterable[IncomingClaim]) -> None:
        """Decide claims about the order, one after the other."""
        for one in incoming:
            if self._rules is None:
                self.verdicts[one.position] = Verdict.QUARANTINED
            else:
                self._take(one, self._rules)

    def take_repeated(self, incoming: Iterable[IncomingClaim]) -> None:
        """Consider claims that were recorded before. They change nothing, but may be a reason to ask.

        That is so where one states what the order has been corrected from since: the sender still means it.
        """
        for one in incoming:
            rules, order = self._rules, self.order
            if rules is None or order is None or not one.counted or order.state.conflicted:
                continue
            if self._decide(order.state, one.claim, rules).ask:
                self._ask(InquiryReason.DOUBTED, self._now, one.claim.order, rules, doubt=_is_forgeable(one.claim))

    def announce(
        self, before: OrderRecord, rules: MerchantRules, *, pay_type: str, amount: Money | None
    ) -> OrderRecord:
        """Decide the first announcement of the order `before`, which has everything of it that no claim can contradict.

        Returns the order afterwards.
        """
        transition = decide_announcement(
            before.state, pay_type=pay_type, amount=amount, announced_at=self._now, identity=rules.identity
        )
        self.order = after = _with_state(before, transition, now=self._now)
        if transition.event is not None:
            trust = after.state.trust or rules.required_trust
            self._add_event(before, after, transition.event, rules, trust=trust, observed_at=self._now)
        if transition.ask:
            self._ask(InquiryReason.CONFLICT, self._now, after.key, rules)
        if not after.state.status.terminal:
            due = after.answer_due_at or self._now + timedelta(seconds=rules.answer_due_seconds)
            self._ask(InquiryReason.OVERDUE, due, after.key, rules)
        return after

    @staticmethod
    def _decide(state: OrderState, claim: Claim, rules: MerchantRules) -> Transition:
        return decide(state, claim, required=rules.required_trust, identity=rules.identity)

    def _take(self, incoming: IncomingClaim, rules: MerchantRules) -> None:
        claim, order = incoming.claim, self.order
        state = _UNKNOWN_ORDER if order is None else order.state
        transition = self._decide(state, claim, rules)
        self.verdicts[incoming.position] = transition.verdict
        if incoming.counted and order is not None:
            self._apply(order, claim, transition, rules)
        # About an unknown order any claim is news, even "initial".
        if transition.ask or (order is None and not incoming.counted):
            self._ask(_reason_to_ask(claim, transition), self._now, claim.order, rules, doubt=_is_forgeable(claim))

    def _apply(self, before: OrderRecord, claim: Claim, transition: Transition, rules: MerchantRules) -> None:
        after = _after(before, claim, transition, now=self._now)
        self.order = after
        if transition.event is not None:
            self._add_event(
                before,
                after,
                transition.event,
                rules,
                trust=after.state.trust or claim.trust,
                observed_at=claim.stated_at,
                channel_response=mask_personal(claim.channel_response),
                traceparent=claim.traceparent,
                rule=claim.stated_by if claim.trust is Trust.RULE else "",
            )
        first = before.state.trust is None and after.state.trust is not None
        moved = first or before.state.status is not after.state.status
        # The status may stay the same, and yet inquiries stop at a conflict that only a person could settle.
        ends_dispute = before.state.conflicted and not after.state.conflicted
        if after.settled and (moved or not before.settled):
            # An answer that only repeats what was known closes nothing here: a doubt may be newer than its question.
            self.closes_inquiry = True
            self.inquiry = None
        elif (moved or ends_dispute) and not after.state.status.terminal:
            due = after.answer_due_at or self._now + timedelta(seconds=rules.answer_due_seconds)
            self._ask(InquiryReason.OVERDUE, due, after.key, rules)

    def _add_event(
        self,
        before: OrderRecord,
        after: OrderRecord,
        type_: EventType,
        rules: MerchantRules,
        *,
        trust: Trust,
        observed_at: datetime,
        channel_response: str = "",
        traceparent: str | None = None,
        rule: str = "",
    ) -> None:
        state = after.state
        event = PaymentEvent(
            type=type_,
            merchant=after.merchant,
            biz_order_no=after.biz_order_no,
            sequence=after.sequence,
            status=state.status,
            previous_status=before.state.status,
            pay_order_no=state.pay_order_no,
            order_type=state.order_type,
            pay_type=state.pay_type,
            paid_at=None if after.paid_at is None else _in_zone(after.paid_at, rules.time_zone),
            amount=after.amount,
            amount_unit=after.amount_unit,
            channel_response=channel_response,
            trust=trust,
            observed_at=observed_at,
            traceparent=traceparent,
            rule=rule,
            disputed=state.disputed_values,
        )
        same = (state.status, state.payment) == (before.state.status, before.state.payment)
        ends_dispute_only = type_ is EventType.CORRECTED and same
        self.events.append(event)
        self.deliveries += [
            (event, endpoint.name)
            for endpoint in self._endpoints
            if endpoint.wants(event, ends_dispute_only=ends_dispute_only)
        ]

    def _ask(
        self, reason: InquiryReason, due: datetime, order: OrderKey, rules: MerchantRules, *, doubt: bool = False
    ) -> None:
        if rules.can_ask:
            request = rules.request_inquiry(order, reason, due, now=self._now, doubt=doubt)
            self.inquiry = request if self.inquiry is None else self.inquiry.merged(request)


def _is_forgeable(claim: Claim) -> bool:
    return claim.trust is Trust.CHECKSUM


def _in_zone(time: datetime, zone: tzinfo) -> datetime:
    try:
        return time.astimezone(zone)
    except OverflowError:
        # A person may state the first or the last day of the calendar, which this zone does not have.
        return time


def _reason_to_ask(claim: Claim, transition: Transition) -> InquiryReason:
    if claim.quarantine is not None:
        return InquiryReason.UNREADABLE
    if transition.verdict is Verdict.UNTRUSTED:
        return InquiryReason.UNCONFIRMED
    return InquiryReason.CONFLICT if transition.after.conflicted else InquiryReason.DOUBTED


def _after(before: OrderRecord, claim: Claim, transition: Transition, *, now: datetime) -> OrderRecord:
    """The order with the claim's facts: all of them where the claim's status is taken, else only missing ones."""
    paid_at = before.paid_at
    match transition.verdict:
        case Verdict.APPLIED | Verdict.CORRECTED:
            same_status = transition.after.status is before.state.status
            paid_at = claim.paid_at or (paid_at if same_status else None)
        case Verdict.DUPLICATE:
            paid_at = paid_at or claim.paid_at
    if transition.event is None and (paid_at, transition.after) == (before.paid_at, before.state):
        return before
    return replace(_with_state(before, transition, now=now), paid_at=paid_at)


def _with_state(before: OrderRecord, transition: Transition, *, now: datetime) -> OrderRecord:
    return replace(
        before,
        state=transition.after,
        sequence=before.sequence + (transition.event is not None),
        disputed_fields=before.disputed_fields | {field for field, _ in transition.after.disputed},
        updated_at=now,
    )
