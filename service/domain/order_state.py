"""The state machine of an order: a pure function of an order and a claim. No I/O, no clock.

The reasons for its rules: `docs/decisions/0003-order-state-machine.md`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.claims import Claim, IdentityField, OrderStatus, Trust
from service.domain.events import DisputedValues, EventType
from service.domain.money import Money

#: Every field of a payment's identity.
WHOLE_IDENTITY = frozenset(IdentityField)
#: The disputed field that is not part of the identity.
STATUS = "status"

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


# Of an order about which no claim was accepted: below every trust.
_NO_TRUST = 0


class Verdict(StrEnum):
    """What a claim does to its order; kept with the claim's row."""

    #: The order moves on to the claimed status.
    APPLIED = "applied"
    #: A later query, an operator or a higher trust replaces the order's status or payment, or ends a conflict.
    CORRECTED = "corrected"
    #: It states what is known; it may raise the trust, or fill in a missing number.
    DUPLICATE = "duplicate"
    #: A lower status, or a less trusted or older claim, that comes too late to matter.
    STALE = "stale"
    #: It contradicts the order, and neither outranks the other; or it contradicts what was asked for.
    CONFLICT = "conflict"
    #: Below the trust that the merchant requires: recorded without effect.
    UNTRUSTED = "untrusted"
    #: Trusted, but its status, order type or pay type is unknown: recorded without effect, and a person has to look.
    QUARANTINED = "quarantined"

    @property
    def moves(self) -> bool:
        """Whether the order takes the claim's status."""
        return self in (Verdict.APPLIED, Verdict.CORRECTED)


class Dispute(NamedTuple):
    """A field in which claims, or a claim and the announcement, contradict each other."""

    #: An `IdentityField`, or `STATUS`.
    field: str
    #: The value that contradicts the one that stands, as text; an amount in the unit of the order's amount.
    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderState:
    """What is believed of an order. The default is an order about which there is no claim."""

    status: OrderStatus = OrderStatus.INITIAL
    #: The highest trust of the claims that state `status`; None while no claim was accepted.
    trust: Trust | None = None
    #: Sufficiently trusted claims contradict each other or the announcement, and nothing has settled it.
    conflicted: bool = False
    #: The payment's identity, as it stands: as accepted claims state it or, before them, as announced.
    pay_order_no: str | None = None
    pay_type: str = ""
    order_type: str = ""
    amount: Money | None = None
    #: The pay type that was asked for; "" where none was announced.
    announced_pay_type: str = ""
    #: While it is conflicted: the fields in dispute, in the order in which they came up.
    disputed: tuple[Dispute, ...] = ()
    #: When the latest claim that counts was stated, aware: only a query after that time can correct it.
    as_of: datetime | None = None

    @property
    def payment(self) -> tuple[object, ...]:
        """The payment's identity, for comparison."""
        return self.pay_order_no, self.pay_type, self.order_type, self.amount

    @property
    def disputed_values(self) -> dict[str, DisputedValues]:
        """The fields in dispute with both values; amounts in the unit of the order's amount."""
        stands = {STATUS: self.status.value, IdentityField.AMOUNT: self.amount and self.amount.text}
        return {
            field: DisputedValues(stands=stands.get(field) or getattr(self, field), other=other)
            for field, other in self.disputed
        }


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


def decide(
    order: OrderState, claim: Claim, *, required: Trust, identity: Collection[IdentityField] = WHOLE_IDENTITY
) -> Transition:
    """What `claim` does to `order` where the merchant requires `required` trust and compares the fields of `identity`.

    Claims that agree lead to the same state in every order of arrival. Terminal callbacks of equal trust that
    contradict each other lead to the same `conflicted` flag, and to the same status once a later query is answered,
    unless their amounts differ. Deciding the same claim again changes nothing.
    """
    if claim.quarantine is not None or claim.status is None:
        # Only a trusted claim is quarantined for a person: anyone can invent unknown words.
        verdict = Verdict.UNTRUSTED if claim.trust < required else Verdict.QUARANTINED
        return Transition(verdict=verdict, after=order, ask=not order.status.terminal)
    if claim.trust is Trust.RULE:
        return _end_by_rule(order, claim, claim.status)
    if claim.trust is Trust.OPERATOR:
        identity = WHOLE_IDENTITY
    disputes = _find_disputes(order, claim, claim.status, identity)
    if claim.trust < required:
        return Transition(verdict=Verdict.UNTRUSTED, after=order, ask=_would_be_news(order, disputes, claim.status))
    if claim.trust is Trust.OPERATOR:
        return _settle(order, claim, claim.status, disputes)
    if order.conflicted or disputes:
        return _dispute(order, claim, claim.status, disputes, identity)
    if order.trust is None:
        return _settle(order, claim, claim.status, disputes)
    return _agree(order, claim, claim.status, order.trust)


def decide_announcement(
    order: OrderState,
    *,
    pay_type: str,
    amount: Money | None,
    announced_at: datetime,
    identity: Collection[IdentityField] = WHOLE_IDENTITY,
) -> Transition:
    """What the first announcement of an order does to it. It fills in what is missing, and overwrites nothing.

    `pay_type` is "" and `amount` None where the announcement does not state them. One that contradicts what trusted
    claims have stated opens a dispute, which only a query sent after `announced_at` (aware) or an operator can settle.
    """
    disputes = _compare(order, identity, pay_type=pay_type, amount=amount)
    stands = order.amount
    if amount is not None:
        stands = amount if stands is None or stands == amount else stands.to(amount.unit)
    known = replace(order, pay_type=order.pay_type or pay_type, announced_pay_type=pay_type, amount=stands)
    if not disputes:
        return Transition(verdict=Verdict.APPLIED, after=known)
    return _open_dispute(known, disputes, announced_at)


def _find_disputes(
    order: OrderState, claim: Claim, status: OrderStatus, identity: Collection[IdentityField]
) -> Sequence[Dispute]:
    """The fields in which the claim contradicts the order: two terminal statuses of one payment, or two payments."""
    disputes = _compare(
        order,
        identity,
        pay_order_no=claim.pay_order_no,
        pay_type=claim.pay_type,
        order_type=claim.order_type,
        amount=claim.amount,
    )
    if order.status.terminal and status.terminal and order.status is not status:
        disputes.insert(0, Dispute(STATUS, status.value))
    return disputes


def _compare(
    order: OrderState,
    identity: Collection[IdentityField],
    *,
    pay_order_no: str | None = None,
    pay_type: str = "",
    order_type: str = "",
    amount: Money | None = None,
) -> list[Dispute]:
    # Values contradict each other only where both are given.
    pairs = (
        (IdentityField.PAY_ORDER_NO, order.pay_order_no, pay_order_no),
        (IdentityField.PAY_TYPE, order.pay_type, pay_type),
        (IdentityField.ORDER_TYPE, order.order_type, order_type),
    )
    disputes = [
        Dispute(field.value, other)
        for field, stands, other in pairs
        if other and stands and stands != other and field in identity
    ]
    if amount and order.amount and amount != order.amount and IdentityField.AMOUNT in identity:
        disputes.append(Dispute(IdentityField.AMOUNT.value, amount.to(order.amount.unit).text))
    return disputes


def _would_be_news(order: OrderState, disputes: Sequence[Dispute], status: OrderStatus) -> bool:
    # No answer of the gateway settles an amount.
    answerable = any(dispute.field != IdentityField.AMOUNT for dispute in disputes)
    return order.conflicted or answerable or _RANK[status] > _RANK[order.status]


def _end_by_rule(order: OrderState, claim: Claim, status: OrderStatus) -> Transition:
    """A rule ends an order, whatever trust the merchant requires, but only while nobody trusted has spoken of it."""
    if order.trust is None and not order.conflicted:
        return _settle(order, claim, status, ())
    return Transition(verdict=Verdict.STALE, after=order)


def _agree(order: OrderState, claim: Claim, status: OrderStatus, trust: Trust) -> Transition:
    """The claim agrees with the order: it moves the order on, repeats its status, or comes late."""
    if _RANK[status] > _RANK[order.status]:
        after = replace(order, status=status, trust=claim.trust, as_of=claim.stated_at, **_stated(order, claim))
        return Transition(verdict=Verdict.APPLIED, after=after, event=_EVENT_TYPES[status])
    known = _filled_in(order, claim)
    if status is order.status:
        after = replace(known, trust=max(trust, claim.trust), as_of=_latest(order.as_of, claim.stated_at))
        return Transition(verdict=Verdict.DUPLICATE, after=after)
    # If the gateway, asked about a paid order, knows nothing of the payment, the callback is doubtful: ask again.
    doubtful = order.status.terminal and claim.trust > trust and _asked_later(order, claim)
    return Transition(verdict=Verdict.STALE, after=known, ask=doubtful)


def _dispute(
    order: OrderState,
    claim: Claim,
    status: OrderStatus,
    disputes: Sequence[Dispute],
    identity: Collection[IdentityField],
) -> Transition:
    """The claim contradicts the order, or an earlier contradiction is open."""
    trust = order.trust or _NO_TRUST
    moves_on = status.terminal or not order.status.terminal
    may_settle = moves_on and _settles_all(order, claim, disputes, identity)
    if claim.trust is Trust.QUERIED and _asked_later(order, claim) and may_settle:
        ends_conflict = status.terminal or not order.conflicted
        if ends_conflict and (not disputes or trust <= claim.trust):
            return _settle(order, claim, status, disputes)
    elif not order.conflicted and trust < claim.trust < Trust.QUERIED and may_settle:
        return _settle(order, claim, status, disputes)
    if disputes and claim.trust is Trust.CHECKSUM and trust > claim.trust:
        # Anyone can make one at any time; it never disputes a more trusted state.
        return Transition(verdict=Verdict.STALE, after=order, ask=True)
    known = _filled_in(order, claim)
    if disputes and _is_older(order, claim, trust) and not _denies_request(order, disputes):
        return Transition(verdict=Verdict.STALE, after=known, ask=True)
    if not order.conflicted or status.terminal or _merged(order.disputed, disputes) != order.disputed:
        transition = _open_dispute(known, disputes, claim.stated_at)
        is_repeat = order.conflicted and status is order.status and not disputes
        return replace(transition, verdict=Verdict.DUPLICATE) if is_repeat else transition
    return Transition(verdict=Verdict.STALE, after=known, ask=is_answerable(known))


def _settles_all(
    order: OrderState, claim: Claim, disputes: Sequence[Dispute], identity: Collection[IdentityField]
) -> bool:
    """Whether the claim states a value of each field in dispute, and nobody but an operator is needed."""
    # A field that the merchant no longer compares is in dispute no more.
    earlier = [dispute.field for dispute in order.disputed if dispute.field in identity]
    new = [dispute for dispute in disputes if dispute.field not in earlier]
    if IdentityField.AMOUNT in earlier or _denies_request(order, new):
        return False
    return all(getattr(claim, field) for field in earlier)


def _denies_request(order: OrderState, disputes: Sequence[Dispute]) -> bool:
    """Whether the payment is not the one that was asked for: of another amount, or of another than the announced type.

    An order that was never announced has the amount that was claimed first.
    """
    as_announced = order.pay_type == order.announced_pay_type
    return any(
        dispute.field == IdentityField.AMOUNT or (dispute.field == IdentityField.PAY_TYPE and as_announced)
        for dispute in disputes
    )


def _is_older(order: OrderState, claim: Claim, trust: int) -> bool:
    """Whether the order was proven better, or as well by another answer, after the claim was stated."""
    outranks = trust >= Trust.QUERIED if claim.trust == trust else trust > claim.trust
    return outranks and order.as_of is not None and claim.stated_at < order.as_of


def _open_dispute(order: OrderState, disputes: Sequence[Dispute], stated_at: datetime) -> Transition:
    """Open the conflict, or add to it: the status stays, and only a query after `stated_at` can settle it."""
    after = replace(
        order,
        conflicted=True,
        disputed=_merged(order.disputed, disputes),
        as_of=_latest(order.as_of, stated_at),
    )
    return Transition(
        verdict=Verdict.CONFLICT,
        after=after,
        event=None if order.conflicted else EventType.CONFLICTED,
        ask=is_answerable(after),
    )


def is_answerable(order: OrderState) -> bool:
    """Whether a later answer can settle the conflict: only a person can change an amount, or a person's decision."""
    return order.trust is not Trust.OPERATOR and all(field != IdentityField.AMOUNT for field, _ in order.disputed)


def _merged(disputed: tuple[Dispute, ...], disputes: Sequence[Dispute]) -> tuple[Dispute, ...]:
    fields = {dispute.field for dispute in disputed}
    return (*disputed, *(dispute for dispute in disputes if dispute.field not in fields))


def _settle(order: OrderState, claim: Claim, status: OrderStatus, disputes: Sequence[Dispute]) -> Transition:
    """The claim replaces the order's state and ends any conflict."""
    agrees = not disputes
    after = replace(
        order,
        status=status,
        trust=max(order.trust or claim.trust, claim.trust) if agrees and status is order.status else claim.trust,
        conflicted=False,
        disputed=(),
        as_of=claim.stated_at,
        **_stated(order, claim),
    )
    if order.trust is None or (_RANK[status] > _RANK[order.status]):
        return Transition(verdict=Verdict.APPLIED, after=after, event=_EVENT_TYPES.get(status))
    if agrees and status is order.status and not order.conflicted:
        return Transition(verdict=Verdict.DUPLICATE, after=after)
    return Transition(verdict=Verdict.CORRECTED, after=after, event=EventType.CORRECTED)


def _stated(order: OrderState, claim: Claim) -> dict[str, Any]:
    """The payment's identity as the claim states it, and as it was where the claim states nothing."""
    amount = order.amount
    if claim.amount and claim.amount != amount:
        amount = claim.amount if amount is None else claim.amount.to(amount.unit)
    return {
        "pay_order_no": claim.pay_order_no or order.pay_order_no,
        "pay_type": claim.pay_type or order.pay_type,
        "order_type": claim.order_type or order.order_type,
        "amount": amount,
    }


def _filled_in(order: OrderState, claim: Claim) -> OrderState:
    """The order with those values of the claim that nobody has stated before."""
    return replace(
        order,
        pay_order_no=order.pay_order_no or claim.pay_order_no,
        pay_type=order.pay_type or claim.pay_type,
        order_type=order.order_type or claim.order_type,
        amount=order.amount or claim.amount,
    )


def _asked_later(order: OrderState, claim: Claim) -> bool:
    # Any answer is better than a rule, which ends an order because there is none.
    return order.as_of is None or order.trust is Trust.RULE or claim.stated_at > order.as_of


def _latest(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)
