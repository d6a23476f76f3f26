"""Inquiries: what is to be asked of the gateway. One per order, however many reasons there are to ask.

Anyone can send a callback with a fitting sign, so anyone can give a reason to ask. What such reasons may take of the
limits is bounded (`pace`), and what the order itself is owed is kept apart from it: an inquiry has two due times.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntFlag, StrEnum
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, and_, case, select, update

from service.domain.claims import OrderKey
from service.ledger.inserts import PLANNED_ANEW, execute_rows, given_keys, insert_rows, keys_given
from service.ledger.tables import inquiries

_KEY = (inquiries.c.merchant, inquiries.c.biz_order_no)


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
    #: Asked to its horizon in vain; only a new reason opens it again, and one that anyone can give for one question.
    PARKED = "parked"
    #: The gateway has no such order (any more), and only strangers want to know; only a new reason opens it again.
    NOT_FOUND = "not-found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Reasons to ask about an order. One due time at least is there; limits of the merchant may put it off."""

    order: OrderKey
    reasons: InquiryReason
    #: When the order is owed an answer; None where only anyone's reasons ask.
    due_at: datetime | None
    #: When anyone's reasons ask; None where there are none.
    doubt_due_at: datetime | None
    #: When to give up.
    horizon_at: datetime

    @classmethod
    def about(
        cls,
        order: OrderKey,
        reason: InquiryReason,
        due: datetime,
        *,
        now: datetime,
        horizon_seconds: float,
        anyones: bool = False,
    ) -> "Question":
        """A question for one reason, its horizon counted from when it is due, or from `now` where it has long been.

        `anyones`: the reason is a claim of which nothing proves who made it.
        """
        return cls(
            order=order,
            reasons=reason,
            due_at=None if anyones else due,
            doubt_due_at=due if anyones else None,
            horizon_at=max(due, now) + timedelta(seconds=horizon_seconds),
        )

    def merged(self, other: "Question") -> "Question":
        """One question for the reasons of both, due at the earlier times."""
        return Question(
            order=self.order,
            reasons=self.reasons | other.reasons,
            due_at=earliest(self.due_at, other.due_at),
            doubt_due_at=earliest(self.doubt_due_at, other.doubt_due_at),
            horizon_at=max(self.horizon_at, other.horizon_at),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryRecord:
    """An order's inquiry as it stands."""

    state: InquiryState
    reasons: InquiryReason
    #: When it is asked next, while it is open.
    due_at: datetime
    horizon_at: datetime
    #: Questions asked since it was opened last.
    attempts: int
    last_asked_at: datetime | None
    opened_at: datetime


# What is the same in every inquiry that is opened for the first time.
_NEVER_ASKED: Mapping[str, Any] = {
    "state": InquiryState.OPEN.value,
    "raised": 1,
    "not_before": None,
    "doubt_not_before": None,
    "attempts": 0,
    "doubt_attempts": 0,
    "doubt_repeats": False,
    "not_found": 0,
    "last_asked_at": None,
    "asked_day": "",
    "asked_today": 0,
    "doubts_today": 0,
    "lease_until": None,
    "fence": 0,
    "unknown_since": None,
}


def earliest(*times: datetime | None) -> datetime | None:
    """The earliest of those that are there; None where none is."""
    return min((time for time in times if time is not None), default=None)


def open_inquiries(connection: Connection, questions: Collection[Question], *, now: datetime) -> None:
    """Open the orders' inquiries, or add the reasons to those already open; at most one question per order.

    An open one keeps the earlier due times. One that is opened again starts a new series of attempts, but nothing is
    due before the least interval and the daily most allow. While one is being asked, a new reason is kept for after the
    answer: `raised` tells the asker that its answer comes too early to settle it.
    """
    if not questions:
        return
    rows = [
        {
            "merchant": question.order.merchant,
            "biz_order_no": question.order.biz_order_no,
            "reasons": int(question.reasons),
            "due_at": question.due_at,
            "doubt_due_at": question.doubt_due_at,
            "horizon_at": question.horizon_at,
        }
        for question in sorted(questions, key=lambda question: question.order)
    ]
    statement = _open(connection.dialect.name, tuple(rows[0]), (*_NEVER_ASKED, "opened_at"))
    execute_rows(connection, statement, rows, same={**_NEVER_ASKED, "opened_at": now})


@cache
def _open(dialect: str, names: Sequence[str], same: Sequence[str]) -> Any:
    insert = insert_rows(dialect, inquiries, names, same)
    old, new = inquiries.c, insert.excluded
    is_asking = old.state == InquiryState.ASKING.value
    is_open = (old.state == InquiryState.OPEN.value) | is_asking
    doubt_floor = case((old.doubt_not_before > old.not_before, old.doubt_not_before), else_=old.not_before)
    is_parked = old.state == InquiryState.PARKED.value
    # Nobody's forgeries put off the end, and none of them bring it nearer than the order's own. What is parked they
    # have asked about once more, and it waits for a person again: else they would take it out of sight for days.
    keeps_horizon = (is_open | is_parked) & new.due_at.is_(None) | is_open & (old.horizon_at > new.horizon_at)
    return insert.on_conflict_do_update(
        index_elements=[old.merchant, old.biz_order_no],
        set_={
            "state": case((is_asking, old.state), else_=new.state),
            "reasons": case((is_open, old.reasons.bitwise_or(new.reasons)), else_=new.reasons),
            "raised": old.raised + 1,
            "due_at": _sooner(is_open, old.due_at, _not_before(new.due_at, old.not_before)),
            "doubt_due_at": _sooner(is_open, old.doubt_due_at, _not_before(new.doubt_due_at, doubt_floor)),
            "horizon_at": case((keeps_horizon, old.horizon_at), else_=new.horizon_at),
            "attempts": case((is_open, old.attempts), else_=0),
            "doubt_attempts": case((is_open, old.doubt_attempts), else_=0),
            "doubt_repeats": and_(old.doubt_repeats, new.doubt_due_at.is_(None)),
            "not_found": case((is_open, old.not_found), else_=0),
            "opened_at": case((is_open, old.opened_at), else_=new.opened_at),
            "unknown_since": None,
        },
    )


def close_inquiries(connection: Connection, orders: Collection[OrderKey]) -> None:
    """Close the inquiries, in whatever state, of orders about which nothing is left to ask.

    Who is asking just now loses the lease, also when it is the answer to the question that settled the order.
    """
    if not orders:
        return
    connection.execute(_close(connection.dialect.name), given_keys(orders))


@cache
def _close(dialect: str) -> Update:
    # In the order of their keys, as they are opened: two batches that wait for each other's rows would be a deadlock.
    # PostgreSQL sees in advance how many rows a key finds, but not how many of those have a certain state: it would
    # take them for none, and read the whole table for each key.
    found = select(*_KEY, inquiries.c.state).where(keys_given(dialect, _KEY)).order_by(*_KEY).with_for_update()
    locked = found.cte("locked")
    return (
        update(inquiries)
        .where(*(column == locked.c[column.name] for column in _KEY), locked.c.state != InquiryState.ANSWERED.value)
        .values(state=InquiryState.ANSWERED.value, lease_until=None, fence=inquiries.c.fence + 1, unknown_since=None)
        .execution_options(**{PLANNED_ANEW: True})
    )


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
        due_at=earliest(row.due_at, row.doubt_due_at) or row.horizon_at,
        horizon_at=row.horizon_at,
        attempts=row.attempts + row.doubt_attempts,
        last_asked_at=row.last_asked_at,
        opened_at=row.opened_at,
    )


def _sooner(is_open: ColumnElement[bool], old: Any, new: Any) -> Any:
    """What an open inquiry has already, where that comes first; NULL is never."""
    keeps = is_open & old.is_not(None) & (new.is_(None) | (old < new))
    return case((keeps, old), else_=new)


def _not_before(time: Any, floor: Any) -> Any:
    """`time`, or `floor` where that is later; NULL where `time` is."""
    return case((time < floor, floor), else_=time)
