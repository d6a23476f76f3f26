"""Inquiries: questions due to the gateway. One per order, however many reasons there are to ask."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import IntFlag, StrEnum

from sqlalchemy import Connection, bindparam, case, select, update

from service.claims import OrderKey
from service.ledger.inserts import insert_into
from service.ledger.tables import inquiries


class InquiryReason(IntFlag):
    """Why the gateway ought to be asked; several reasons make one question."""

    #: A claim below the required trust says something new.
    UNCONFIRMED = 1
    #: No terminal status by the time that one was due.
    OVERDUE = 2
    #: Trusted claims contradict each other.
    CONFLICT = 4
    #: A claim's status, order type or pay type is unknown.
    UNREADABLE = 8
    #: A better or later word makes the status doubtful without replacing it.
    DOUBTED = 16
    #: A withhold was sent and its outcome is unknown.
    UNKNOWN_OUTCOME = 32
    #: A person wants to know.
    OPERATOR = 64


class InquiryState(StrEnum):
    """Where an order's inquiry stands."""

    #: To be asked when due.
    OPEN = "open"
    #: Leased by a process that is asking.
    ASKING = "asking"
    #: Nothing is left to ask, until a new reason opens it again.
    ANSWERED = "answered"
    #: Asked to its horizon in vain; only a new reason opens it again.
    PARKED = "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A reason to ask about an order."""

    order: OrderKey
    reasons: InquiryReason
    #: When to ask; limits of the merchant may put it off.
    due_at: datetime
    #: When to give up.
    horizon_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryRecord:
    """An order's inquiry as it stands."""

    state: InquiryState
    reasons: InquiryReason
    due_at: datetime
    horizon_at: datetime
    #: Questions asked since it was opened last.
    attempts: int
    last_asked_at: datetime | None
    opened_at: datetime


def open_inquiries(connection: Connection, questions: Collection[Question], *, now: datetime) -> None:
    """Open the orders' inquiries, or add the reasons to those already open; at most one question per order.

    An open one keeps the earlier due time. One that is opened again starts a new series of attempts, but never
    before the time that the least interval and the daily most allow. While one is being asked, a new reason is kept
    for after the answer: `raised` tells the asker that its answer comes too early to settle it.
    """
    if not questions:
        return
    insert = insert_into(connection, inquiries)
    old, new = inquiries.c, insert.excluded
    is_asking = old.state == InquiryState.ASKING.value
    is_open = (old.state == InquiryState.OPEN.value) | is_asking
    wanted = case((is_open & (old.due_at < new.due_at), old.due_at), else_=new.due_at)
    statement = insert.on_conflict_do_update(
        index_elements=[old.merchant, old.biz_order_no],
        set_={
            "state": case((is_asking, old.state), else_=new.state),
            "reasons": case((is_open, old.reasons.bitwise_or(new.reasons)), else_=new.reasons),
            "raised": old.raised + 1,
            "due_at": case((old.not_before > wanted, old.not_before), else_=wanted),
            "horizon_at": case((is_open, old.horizon_at), else_=new.horizon_at),
            "attempts": case((is_open, old.attempts), else_=0),
            "opened_at": case((is_open, old.opened_at), else_=new.opened_at),
        },
    ).returning(old.raised)
    rows = [
        {
            "merchant": question.order.merchant,
            "biz_order_no": question.order.biz_order_no,
            "state": InquiryState.OPEN.value,
            "reasons": int(question.reasons),
            "raised": 1,
            "due_at": question.due_at,
            "not_before": None,
            "horizon_at": question.horizon_at,
            "attempts": 0,
            "last_asked_at": None,
            "asked_day": "",
            "asked_today": 0,
            "lease_until": None,
            "fence": 0,
            "opened_at": now,
        }
        for question in sorted(questions, key=lambda question: question.order)
    ]
    connection.execute(statement, rows).all()


def close_inquiries(connection: Connection, orders: Collection[OrderKey]) -> None:
    """Close the inquiries, open or parked, of orders about which nothing is left to ask.

    Who is asking just now loses the lease, also when it is the answer to the question that settled the order.
    """
    if not orders:
        return
    statement = (
        update(inquiries)
        .where(
            inquiries.c.merchant == bindparam("of_merchant"),
            inquiries.c.biz_order_no == bindparam("of_biz_order_no"),
            inquiries.c.state != InquiryState.ANSWERED.value,
        )
        .values(state=InquiryState.ANSWERED.value, lease_until=None, fence=inquiries.c.fence + 1)
    )
    rows = [{"of_merchant": order.merchant, "of_biz_order_no": order.biz_order_no} for order in sorted(orders)]
    connection.execute(statement, rows)


def load_inquiry(connection: Connection, order: OrderKey) -> InquiryRecord | None:
    """The order's inquiry, or None where there never was a reason to ask."""
    query = select(inquiries).where(
        inquiries.c.merchant == order.merchant, inquiries.c.biz_order_no == order.biz_order_no
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return InquiryRecord(
        state=InquiryState(row.state),
        reasons=InquiryReason(row.reasons),
        due_at=row.due_at,
        horizon_at=row.horizon_at,
        attempts=row.attempts,
        last_asked_at=row.last_asked_at,
        opened_at=row.opened_at,
    )
