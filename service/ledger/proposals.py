"""Proposals: resolutions that need a second person, who confirms or withdraws them.

A proposal names the order's sequence that its author saw. It lapses as soon as the order has another one: nobody has
to write that down, so the ledger role knows nothing of proposals. An order has one open proposal at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, literal, select, update

from service.domain.claims import Claim, OrderKey, OrderStatus
from service.domain.money import Money
from service.ledger.audit import Action, Author, record_decision
from service.ledger.bulk import insert_new
from service.ledger.claims import Resolution
from service.ledger.errors import LedgerContended, ProposalClosed, ProposalUnknown
from service.ledger.sanitizing import escaped
from service.ledger.tables import about_order, about_same_order, open_proposal, orders, proposals, to_record


class ProposalState(StrEnum):
    """What became of a proposal."""

    #: It waits for a second person.
    OPEN = "open"
    CONFIRMED = "confirmed"
    WITHDRAWN = "withdrawn"
    #: The order has changed since it was proposed.
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRecord:
    """A resolution that one person proposes, and what became of it. Times are aware."""

    id: int
    merchant: str
    biz_order_no: str
    #: The order's when it was proposed.
    sequence: int
    #: What the order is to become, and what is stated of the payment; see `Resolution`.
    status: OrderStatus
    pay_order_no: str | None
    pay_type: str
    #: An exact string in `amount_unit`; both None where none is stated.
    amount: str | None
    amount_unit: str | None
    paid_at: datetime | None
    #: The identity of who proposes, which is compared with that of who confirms, and the name that records show.
    proposer: str
    proposed_by: str
    reason: str
    proposed_at: datetime
    state: ProposalState
    #: Who confirmed or withdrew it; "" otherwise.
    decided_by: str
    #: Why it was withdrawn; "" otherwise.
    decision_reason: str
    decided_at: datetime | None

    def to_resolution(self, *, confirmed_by: str) -> Resolution:
        """The resolution, stated by both people."""
        return Resolution(
            order=OrderKey(self.merchant, self.biz_order_no),
            status=self.status,
            stated_by=f"{self.proposed_by}, confirmed by {confirmed_by}",
            reason=self.reason,
            pay_order_no=self.pay_order_no,
            pay_type=self.pay_type,
            amount=None if self.amount is None or self.amount_unit is None else Money(self.amount, self.amount_unit),
            paid_at=self.paid_at,
            seen_sequence=self.sequence,
        )


#: Whether a row of `proposals`, joined with its order, waits for a second person.
IS_OPEN = and_(
    proposals.c.state == literal(ProposalState.OPEN.value, literal_execute=True),
    proposals.c.sequence == func.coalesce(orders.c.sequence, 0),
)

_ACTIONS = {ProposalState.CONFIRMED: Action.CONFIRM, ProposalState.WITHDRAWN: Action.WITHDRAW}


def insert_proposal(
    connection: Connection, resolution: Claim, *, identity: str, sequence: int, now: datetime
) -> ProposalRecord:
    """Propose a resolution of the order, which has this sequence. An open proposal of an earlier one has lapsed.

    `resolution` is sanitized. Raises LedgerContended where somebody else has made a proposal at the same moment.
    """
    lapsed = and_(
        about_order(proposals, resolution.order),
        proposals.c.state == ProposalState.OPEN.value,
        proposals.c.sequence < sequence,
    )
    _settle(connection, lapsed, ProposalState.LAPSED, Author(name="", reason=""), now=now)
    amount = resolution.amount
    values = {
        "merchant": resolution.merchant,
        "biz_order_no": resolution.biz_order_no,
        "sequence": sequence,
        "status": None if resolution.status is None else resolution.status.value,
        "pay_order_no": resolution.pay_order_no,
        "pay_type": resolution.pay_type,
        "amount": None if amount is None else amount.text,
        "amount_unit": None if amount is None else amount.unit,
        "paid_at": resolution.paid_at,
        "proposer": escaped(identity),
        "proposed_by": resolution.stated_by,
        "reason": resolution.reason,
        "proposed_at": now,
        "state": ProposalState.OPEN.value,
        "decided_by": "",
        "decision_reason": "",
        "decided_at": None,
    }
    made = insert_new(connection, proposals, [values], unique=open_proposal, returning=[proposals.c.id])
    if not made:
        raise LedgerContended("somebody else has made a proposal about the order at the same moment")
    proposal = load_proposal(connection, resolution.order, made[0].id)
    author = Author(name=proposal.proposed_by, reason=proposal.reason)
    record_decision(connection, Action.PROPOSE, resolution.order, proposal.status, author, at=now)
    return proposal


def settle_proposal(
    connection: Connection, proposal: ProposalRecord, state: ProposalState, author: Author, *, now: datetime
) -> None:
    """Record who has confirmed or withdrawn the proposal. Raises ProposalClosed where it is not open (any more)."""
    if proposal.state is not ProposalState.OPEN:
        raise ProposalClosed(proposal.id, proposal.state)
    order = OrderKey(proposal.merchant, proposal.biz_order_no)
    is_open = and_(proposals.c.id == proposal.id, proposals.c.state == ProposalState.OPEN.value)
    if not _settle(connection, is_open, state, author, now=now):
        # Somebody else was first, and that transaction is committed: the update has waited for it.
        raise ProposalClosed(proposal.id, load_proposal(connection, order, proposal.id).state)
    record_decision(connection, _ACTIONS[state], order, proposal.status, author, at=now)


def load_open_proposal(connection: Connection, key: OrderKey) -> ProposalRecord | None:
    """The order's proposal that waits for a second person."""
    row = connection.execute(_proposals_of(key).where(IS_OPEN)).one_or_none()
    return None if row is None else to_record(ProposalRecord, row)


def load_proposal(connection: Connection, key: OrderKey, proposal: int) -> ProposalRecord:
    """The order's proposal with this id. Raises ProposalUnknown."""
    row = connection.execute(_proposals_of(key).where(proposals.c.id == proposal)).one_or_none()
    if row is None:
        raise ProposalUnknown(f"the order has no proposal {proposal}: look at the order again")
    return to_record(ProposalRecord, row)


def load_proposals(connection: Connection, key: OrderKey) -> Sequence[ProposalRecord]:
    """The order's proposals, oldest first."""
    return [to_record(ProposalRecord, row) for row in connection.execute(_proposals_of(key).order_by(proposals.c.id))]


def _proposals_of(key: OrderKey) -> Select[Any]:
    """The order's proposals, of which an open one has lapsed if the order has another sequence."""
    columns = [column for column in proposals.c if column is not proposals.c.state]
    lapsed = and_(proposals.c.state == ProposalState.OPEN.value, ~IS_OPEN)
    state = case((lapsed, ProposalState.LAPSED.value), else_=proposals.c.state).label("state")
    joined = proposals.outerjoin(orders, about_same_order(proposals))
    return select(*columns, state).select_from(joined).where(about_order(proposals, key))


def _settle(
    connection: Connection, which: ColumnElement[bool], state: ProposalState, author: Author, *, now: datetime
) -> int:
    values = {
        "state": state.value,
        "decided_by": escaped(author.name),
        "decision_reason": escaped(author.reason),
        "decided_at": now,
    }
    return connection.execute(update(proposals).where(which).values(values)).rowcount
