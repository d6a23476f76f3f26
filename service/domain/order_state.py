"""The state machine of an order: a pure function of an order and a claim. No I/O, no clock.

The reasons for its rules: `docs/decisions/0003-order-state-machine.md`.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from service.domain.claims import Claim, OrderStatus, Trust
from service.domain.events import EventType

_RANK = {
    OrderStatus.INITIAL: 0,
    OrderStatus.PROCESSING: 1,
    OrderStatus.SUCCEEDED: 2,
    OrderStatus.FAILED: 2,
}

_EVENT_TYPES = {
    OrderStatus.PROCESSING: EventType.PROCESSING,
    OrderStatus.SUCCEEDED: EventType.SUCCEEDED,
    OrderStatus.FAILED: EventType.FAILED,
}


class Verdict(StrEnum):
    """What a claim does to its order; kept with the claim's row."""

    #: The order moves on to the claimed status.
    APPLIED = "applied"
    #: A later query, an operator or a higher trust replaces the order's status or payment.
    CORRECTED = "corrected"
    #: It states what is known; it may raise the trust, or fill in a missing number.
    DUPLICATE = "duplicate"
    #: A lower status, or a less trusted or older claim, that comes too late to matter.
    STALE = "stale"
    #: It contradicts the order, and neither outranks the other.
    CONFLICT = "conflict"
    #: Below the trust that the merchant requires: recorded without effect.
    UNTRUSTED = "untrusted"
    #: Trusted, but its status, order type or pay type is unknown: recorded without effect, and a person has to look.
    QUARANTINED = "quarantined"

    @property
    def moves(self) -> bool:
        """Whether the order takes the claim's status."""
        return self in (Verdict.APPLIED, Verdict.CORRECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderState:
    """What is believed of an order. The default is an order about which there is no claim."""

    status: OrderStatus = OrderStatus.INITIAL
    #: The highest trust of the claims that state `status`; None while there is no claim.
    trust: Trust | None = None
    #: Sufficiently trusted claims contradict each other, and no later query has settled it.
    conflicted: bool = False
    pay_order_no: str | None = None
    #: When the latest claim that counts was stated, aware: only a query after that time can correct it.
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What a claim does to an order."""

    verdict: Verdict
    #: The order afterwards.
    after: OrderState
    #: The event to send downstream; None where nothing changed for it.
    event: EventType | None = None
    #: Whether the gateway is to be asked because of this claim.
    ask: bool = False


def decide(order: OrderState, claim: Claim, *, required: Trust) -> Transition:
    """What `claim` does to `order` where the merchant requires `required` trust.

    Claims that agree lead to the same state in every order of arrival. Terminal claims of equal trust that contradict
    each other lead to the same `conflicted` flag, and to the same status once a later query is answered. Deciding the
    same claim again changes nothing.
    """
    if claim.quarantine is not None or claim.status is None:
        # Only a trusted claim is quarantined for a person: anyone can invent unknown words.
        verdict = Verdict.UNTRUSTED if claim.trust < required else Verdict.QUARANTINED
        return Transition(verdict=verdict, after=order, ask=not order.status.terminal)
    if claim.trust < required:
        return Transition(verdict=Verdict.UNTRUSTED, after=order, ask=_would_be_news(order, claim, claim.status))
    if order.trust is None:
        return _settle(order, claim, claim.status)
    if claim.trust is Trust.OPERATOR:
        return _settle(order, claim, claim.status)
    if order.conflicted or _contradict(order, claim, claim.status):
        return _dispute(order, claim, claim.status, order.trust)
    return _agree(order, claim, claim.status, order.trust)


def _contradict(order: OrderState, claim: Claim, status: OrderStatus) -> bool:
    """Whether they state two terminal statuses of one payment, or two payments under one order number."""
    two_terminals = order.status.terminal and status.terminal and order.status is not status
    two_payments = bool(order.pay_order_no and claim.pay_order_no and order.pay_order_no != claim.pay_order_no)
    return two_terminals or two_payments


def _would_be_news(order: OrderState, claim: Claim, status: OrderStatus) -> bool:
    return order.conflicted or _contradict(order, claim, status) or _RANK[status] > _RANK[order.status]


def _agree(order: OrderState, claim: Claim, status: OrderStatus, trust: Trust) -> Transition:
    """The claim agrees with the order: it moves the order on, repeats its status, or comes late."""
    pay_order_no = order.pay_order_no or claim.pay_order_no
    if _RANK[status] > _RANK[order.status]:
        after = replace(order, status=status, trust=claim.trust, pay_order_no=pay_order_no, as_of=claim.stated_at)
        return Transition(verdict=Verdict.APPLIED, after=after, event=_EVENT_TYPES[status])
    if status is order.status:
        after = replace(
            order,
            trust=max(trust, claim.trust),
            pay_order_no=pay_order_no,
            as_of=_latest(order.as_of, claim.stated_at),
        )
        return Transition(verdict=Verdict.DUPLICATE, after=after)
    # If the gateway, asked about a paid order, knows nothing of the payment, the callback is doubtful: ask again.
    doubtful = order.status.terminal and claim.trust > trust and _asked_later(order, claim)
    return Transition(verdict=Verdict.STALE, after=replace(order, pay_order_no=pay_order_no), ask=doubtful)


def _dispute(order: OrderState, claim: Claim, status: OrderStatus, trust: Trust) -> Transition:
    """The claim contradicts the order, or an earlier contradiction is open."""
    agrees = not _contradict(order, claim, status)
    moves_on = status.terminal or not order.status.terminal
    if claim.trust is Trust.QUERIED and _asked_later(order, claim) and moves_on and (agrees or trust <= claim.trust):
        if order.conflicted and not status.terminal:
            return _unsettled(order, claim, status, trust)
        return _settle(order, claim, status)
    if not order.conflicted and trust < claim.trust < Trust.QUERIED and moves_on:
        return _settle(order, claim, status)
    if not agrees and _outranked(order, claim, trust):
        return Transition(verdict=Verdict.STALE, after=order, ask=True)
    return _unsettled(order, claim, status, trust)


def _outranked(order: OrderState, claim: Claim, trust: Trust) -> bool:
    """Whether the order's state outranks the claim, so that the claim is no reason for a conflict."""
    earlier = order.as_of is not None and claim.stated_at < order.as_of
    if claim.trust is trust:
        return trust >= Trust.QUERIED and earlier
    # Anyone can make a CHECKSUM claim at any time; it never disputes a more trusted state.
    return claim.trust < trust and (earlier or claim.trust is Trust.CHECKSUM)


def _unsettled(order: OrderState, claim: Claim, status: OrderStatus, trust: Trust) -> Transition:
    """The conflict is open: the status stays, and only a query after this claim can settle it."""
    if order.conflicted and not status.terminal:
        return Transition(verdict=Verdict.STALE, after=order, ask=trust < Trust.OPERATOR)
    same = order.conflicted and status is order.status and not _contradict(order, claim, status)
    return Transition(
        verdict=Verdict.DUPLICATE if same else Verdict.CONFLICT,
        after=replace(order, conflicted=True, as_of=_latest(order.as_of, claim.stated_at)),
        event=None if order.conflicted else EventType.CONFLICTED,
        # Only a person can change what a person has decided.
        ask=trust < Trust.OPERATOR,
    )


def _settle(order: OrderState, claim: Claim, status: OrderStatus) -> Transition:
    """The claim replaces the order's state and ends any conflict."""
    agrees = not _contradict(order, claim, status)
    after = OrderState(
        status=status,
        trust=max(order.trust or claim.trust, claim.trust) if agrees and status is order.status else claim.trust,
        conflicted=False,
        pay_order_no=claim.pay_order_no or order.pay_order_no,
        as_of=claim.stated_at,
    )
    if order.trust is None or (_RANK[status] > _RANK[order.status]):
        return Transition(verdict=Verdict.APPLIED, after=after, event=_EVENT_TYPES.get(status))
    if agrees and status is order.status and not order.conflicted:
        return Transition(verdict=Verdict.DUPLICATE, after=after)
    return Transition(verdict=Verdict.CORRECTED, after=after, event=EventType.CORRECTED)


def _asked_later(order: OrderState, claim: Claim) -> bool:
    return order.as_of is None or claim.stated_at > order.as_of


def _latest(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)
