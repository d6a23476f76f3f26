"""Inquiries: what the gateway is to be asked. There is one per order, however many reasons there are to ask.

Anyone can send a callback with a valid sign, so anyone can give a reason to ask. A reason that anyone can give is
called a *doubt*. Doubts may use only a part of the limits (`inquiry_limits`), and are kept apart from reasons for which
the order is owed an answer: an inquiry has two due times.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntFlag, StrEnum
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Update, and_, case, select, update

from service.domain.claims import OrderKey
from service.ledger.bulk import PLANNED_ANEW, GivenRows, execute_insert, make_insert
from service.ledger.tables import about_order, inquiries

_KEY = (inquiries.c.merchant, inquiries.c.biz_order_no)


class InquiryReason(IntFlag):
    """Why the gateway is to be asked; several reasons make one question."""

    #: A claim below the required trust says something new.
    UNCONFIRMED = 1
    #: No terminal status by the time that one was due.
    OVERDUE = 2
    #: Trusted claims contradict each other.
    CONFLICT = 4
    #: A claim's status, order type or pay type is unknown.
    UNREADABLE = 8
    #: A more trusted or later claim makes the status doubtful without replacing it.
    DOUBTED = 16
    #: A withhold was sent and its outcome is unknown.
    UNKNOWN_OUTCOME = 32
    #: A person wants to know.
    OPERATOR = 64


class InquiryState(StrEnum):
    """The state of an order's inquiry."""

    #: To be asked when due.
    OPEN = "open"
    #: Leased to a process that is asking.
    ASKING = "asking"
    #: Nothing is left to ask; a new reason opens it again.
    ANSWERED = "answered"
    #: Asked without result until its horizon. A new reason opens it again; a doubt does so for one question only.
    PARKED = "parked"
    #: The gateway does not have the order (any more), and there are only doubts. A new reason opens it again.
    NOT_FOUND = "not-found"


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryRequest:
    """Reasons to ask about an order. At least one due time is set; the merchant's limits may postpone it."""

    order: OrderKey
    reasons: InquiryReason
    #: When the order is owed an answer; None where there are only doubts.
    due_at: datetime | None
    #: When doubts ask; None where there are none.
    doubt_due_at: datetime | None
    #: When to give up.
    horizon_at: datetime

    def merged(self, other: "InquiryRequest") -> "InquiryRequest":
        """One request for the reasons of both, due at the earlier times."""
        return InquiryRequest(
            order=self.order,
            reasons=self.reasons | other.reasons,
            due_at=earliest(self.due_at, other.due_at),
            doubt_due_at=earliest(self.doubt_due_at, other.doubt_due_at),
            horizon_at=max(self.horizon_at, other.horizon_at),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryRecord:
    """An order's inquiry."""

    state: InquiryState
    reasons: InquiryReason
    #: When it is asked next, while it is open.
    due_at: datetime
    horizon_at: datetime
    #: The number of questions since it was last opened.
    attempts: int
    last_asked_at: datetime | None
    opened_at: datetime
    #: The day of the last question (UTC, YYYY-MM-DD; "" where there was none), and how many there were on it.
    asked_day: str
    asked_today: int


# The columns that start with one value in every inquiry.
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
    """The earliest of the times that are not None; None where all are."""
    return min((time for time in times if time is not None), default=None)


def open_inquiries(connection: Connection, requests: Collection[InquiryRequest], *, now: datetime) -> None:
    """Open the orders' inquiries, or add the reasons to those already open; at most one request per order.

    An open inquiry keeps the earlier due times. One that is opened again starts a new series of attempts, but is not
    due before the minimum interval and the daily maximum allow. A reason that comes while the gateway is being asked is
    kept: `raised` shows that the answer came too early to settle it.
    """
    if not requests:
        return
    rows = [
        {
            "merchant": request.order.merchant,
            "biz_order_no": request.order.biz_order_no,
            "reasons": int(request.reasons),
            "due_at": request.due_at,
            "doubt_due_at": request.doubt_due_at,
            "horizon_at": request.horizon_at,
        }
        for request in sorted(requests, key=lambda request: request.order)
    ]
    statement = _open(connection.dialect.name, tuple(rows[0]), (*_NEVER_ASKED, "opened_at"))
    execute_insert(connection, statement, rows, constants={**_NEVER_ASKED, "opened_at": now})


@cache
def _open(dialect: str, names: Sequence[str], constants: Sequence[str]) -> Any:
    insert = make_insert(dialect, inquiries, names, constants)
    old, new = inquiries.c, insert.excluded
    is_asking = old.state == InquiryState.ASKING.value
    is_open = (old.state == InquiryState.OPEN.value) | is_asking
    doubt_floor = case((old.doubt_not_before > old.not_before, old.doubt_not_before), else_=old.not_before)
    is_parked = old.state == InquiryState.PARKED.value
    # A doubt never changes the horizon of an open inquiry. It has a parked one asked once more, which then waits for a
    # person again: otherwise forged callbacks would hide it from the parked ones for days.
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
    """Close the inquiries of orders about which nothing is left to ask, whatever state they are in.

    A process that is asking loses its lease, even when it was its own answer that settled the order.
    """
    if not orders:
        return
    given, statement = _close(connection.dialect.name)
    connection.execute(statement, given.parameter(orders))


@cache
def _close(dialect: str) -> tuple[GivenRows, Update]:
    given = GivenRows(dialect)
    # Rows are locked in the order of their keys, as when they are opened: two batches that wait for each other's rows
    # would be a deadlock. The state is no condition of the search: PostgreSQL would estimate that no row has it, and
    # read the whole table for each key.
    found = select(*_KEY, inquiries.c.state).where(given.have_key(_KEY)).order_by(*_KEY).with_for_update()
    locked = found.cte("locked")
    close = (
        update(inquiries)
        .where(*(column == locked.c[column.name] for column in _KEY), locked.c.state != InquiryState.ANSWERED.value)
        .values(
            state=InquiryState.ANSWERED.value,
            lease_until=None,
            fence=inquiries.c.fence + 1,
            missing_since=None,
            unknown_since=None,
        )
        .execution_options(**{PLANNED_ANEW: True})
    )
    return given, close


def load_inquiry(connection: Connection, order: OrderKey) -> InquiryRecord | None:
    """The order's inquiry; None where there never was a reason to ask."""
    query = select(inquiries).where(about_order(inquiries, order))
    row = connection.execute(query).one_or_none()
    return None if row is None else _record(row)


def list_inquiries(
    connection: Connection, *, merchant: str, state: InquiryState, after: str, limit: int
) -> Sequence[tuple[OrderKey, InquiryRecord]]:
    """At most `limit` inquiries of a merchant in one state, by order number; those after the order number `after`."""
    query = (
        select(inquiries)
        .where(inquiries.c.merchant == merchant, inquiries.c.state == state, inquiries.c.biz_order_no > after)
        .order_by(inquiries.c.biz_order_no)
        .limit(limit)
    )
    return [(OrderKey(row.merchant, row.biz_order_no), _record(row)) for row in connection.execute(query)]


def _record(row: Row[Any]) -> InquiryRecord:
    return InquiryRecord(
        state=InquiryState(row.state),
        reasons=InquiryReason(row.reasons),
        due_at=earliest(row.due_at, row.doubt_due_at) or row.horizon_at,
        horizon_at=row.horizon_at,
        attempts=row.attempts + row.doubt_attempts,
        last_asked_at=row.last_asked_at,
        opened_at=row.opened_at,
        asked_day=row.asked_day,
        asked_today=row.asked_today,
    )


def _sooner(is_open: ColumnElement[bool], old: Any, new: Any) -> Any:
    """The time that an open inquiry already has, where it is earlier; NULL is never."""
    keeps = is_open & old.is_not(None) & (new.is_(None) | (old < new))
    return case((keeps, old), else_=new)


def _not_before(time: Any, floor: Any) -> Any:
    """`time`, or `floor` where that is later; NULL where `time` is."""
    return case((time < floor, floor), else_=time)
