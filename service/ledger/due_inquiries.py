"""Due inquiries: what is owed an answer, and what is a doubt. A look reads one index, however many are open."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, or_, select, update

from service.domain.claims import OrderKey
from service.ledger.inquiries import InquiryReason, InquiryState, earliest
from service.ledger.tables import inquiries


@dataclass(frozen=True, slots=True, kw_only=True)
class DueInquiry:
    """An inquiry leased to us, its question counted: to be asked once, and settled."""

    order: OrderKey
    reasons: InquiryReason
    #: Whether the order is owed an answer; else only anyone's reasons ask.
    owed: bool
    #: 1, 2, 3 ... since it was opened; a question that a crash cut short counts.
    attempt: int
    #: What comes next if the answer settles nothing.
    due_at: datetime | None
    doubt_due_at: datetime | None
    #: When to give up.
    horizon_at: datetime
    #: How many reasons had been raised when it was claimed.
    raised: int
    #: Whoever claims the inquiry next has a higher one.
    fence: int
    #: When it was leased, by the database's clock.
    asked_at: datetime
    #: That of the last claim about the order, to which the answer's log lines and event belong; None without one.
    traceparent: str | None


def anything_due(connection: Connection, merchant: str, now: datetime) -> bool:
    """Whether there is anything to claim; takes no lock."""
    is_open = inquiries.c.state == InquiryState.OPEN.value
    for condition, since in (
        (is_open & (inquiries.c.due_at <= now), inquiries.c.due_at),
        (is_open & _is_doubt(repeated=False) & (inquiries.c.doubt_due_at <= now), inquiries.c.doubt_due_at),
        (is_open & _is_doubt(repeated=True) & (inquiries.c.doubt_due_at <= now), inquiries.c.doubt_due_at),
        (_expired(now), inquiries.c.lease_until),
    ):
        # One after the other and in order: without, a planner that expects many reads the whole table to find none.
        of_merchant = select(inquiries.c.fence).where(inquiries.c.merchant == merchant, condition)
        found = of_merchant.order_by(since).limit(1)
        if connection.execute(found).first() is not None:
            return True
    return False


def reopen_expired(connection: Connection, merchant: str, now: datetime) -> None:
    """Open again what is being asked by nobody any more."""
    connection.execute(
        update(inquiries)
        .where(inquiries.c.merchant == merchant, _expired(now))
        .values(state=InquiryState.OPEN.value, lease_until=None)
    )


def lock_owed(connection: Connection, merchant: str, now: datetime, *, limit: int) -> Sequence[Row[Any]]:
    """At most `limit` whose orders are owed an answer, the longest due first, locked."""
    return _lock(connection, merchant, inquiries.c.due_at <= now, inquiries.c.due_at, limit)


def lock_doubts(
    connection: Connection, merchant: str, now: datetime, *, limit: int, repeated: bool
) -> Sequence[Row[Any]]:
    """At most `limit` for which only anyone's reasons ask, the longest due first, locked.

    Those with news, or (`repeated`) those about which nobody has said anything new since they were asked for.
    """
    not_owed = or_(inquiries.c.due_at.is_(None), inquiries.c.due_at > now)
    is_due = _is_doubt(repeated=repeated) & (inquiries.c.doubt_due_at <= now) & not_owed
    return _lock(connection, merchant, is_due, inquiries.c.doubt_due_at, limit)


def oldest_owed_age(connection: Connection, merchant: str, now: datetime) -> timedelta:
    """How long the order that is owed an answer longest has waited to be asked about; zero where none is due."""
    return _age(connection.execute(select(func.min(inquiries.c.due_at)).where(_is_open(merchant))).scalar_one(), now)


def oldest_doubt_age(connection: Connection, merchant: str, now: datetime) -> timedelta:
    """How long the question that is due longest for anyone's reasons has waited; zero where none is due."""
    firsts = (
        select(func.min(inquiries.c.doubt_due_at)).where(_is_open(merchant), _is_doubt(repeated=repeated))
        for repeated in (False, True)
    )
    return _age(earliest(*(connection.execute(first).scalar_one() for first in firsts)), now)


def count_parked(connection: Connection, merchant: str) -> int:
    """How many of the merchant's orders were asked about to their horizon in vain and wait for a person."""
    is_parked = (inquiries.c.merchant == merchant) & (inquiries.c.state == InquiryState.PARKED.value)
    return connection.execute(select(func.count()).select_from(inquiries).where(is_parked)).scalar_one()


def _age(since: datetime | None, now: datetime) -> timedelta:
    return timedelta() if since is None else max(timedelta(), now - since)


def _is_open(merchant: str) -> ColumnElement[bool]:
    return (inquiries.c.merchant == merchant) & (inquiries.c.state == InquiryState.OPEN.value)


def _is_doubt(*, repeated: bool) -> ColumnElement[bool]:
    return inquiries.c.doubt_repeats == repeated


def _expired(now: datetime) -> ColumnElement[bool]:
    return (inquiries.c.state == InquiryState.ASKING.value) & (inquiries.c.lease_until <= now)


def _lock(
    connection: Connection, merchant: str, is_due: ColumnElement[bool], due: ColumnElement[Any], limit: int
) -> Sequence[Row[Any]]:
    query = (
        select(inquiries)
        .where(inquiries.c.merchant == merchant, inquiries.c.state == InquiryState.OPEN.value, is_due)
        .order_by(due)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(query).all() if limit else []
