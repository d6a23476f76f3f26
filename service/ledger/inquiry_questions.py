"""Questions to the gateway: which inquiries are due, and what was asked and answered.

Each search reads one index, however many inquiries are open.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, or_, select, tuple_, update

from service.domain.claims import OrderKey
from service.domain.masking import mask_personal
from service.ledger.bulk import insert_new
from service.ledger.inquiries import InquiryReason, InquiryState, earliest
from service.ledger.sanitizing import escaped
from service.ledger.tables import about_order, asked_questions, inquiries, to_record


@dataclass(frozen=True, slots=True, kw_only=True)
class DueInquiry:
    """An inquiry that is leased to us. Its question is counted already, to be asked once and then settled."""

    order: OrderKey
    reasons: InquiryReason
    #: Whether the order is owed an answer; otherwise there are only doubts.
    owed: bool
    #: 1, 2, 3 ... since it was opened; a question that a crash interrupted counts.
    attempt: int
    #: When it is due next if the answer settles nothing.
    due_at: datetime | None
    doubt_due_at: datetime | None
    #: When to give up.
    horizon_at: datetime
    #: How many reasons had been raised when it was leased.
    raised: int
    #: The fencing token: the next lease of this inquiry has a higher one.
    fence: int
    #: When it was leased, by the database's clock.
    asked_at: datetime
    #: From the last claim about the order, for log lines and the event of the answer; None without one.
    traceparent: str | None


def anything_due(connection: Connection, merchant: str, now: datetime) -> bool:
    """Whether there is anything to lease; takes no lock."""
    is_open = inquiries.c.state == InquiryState.OPEN.value
    for condition, since in (
        (is_open & (inquiries.c.due_at <= now), inquiries.c.due_at),
        (is_open & _is_doubt(repeated=False) & (inquiries.c.doubt_due_at <= now), inquiries.c.doubt_due_at),
        (is_open & _is_doubt(repeated=True) & (inquiries.c.doubt_due_at <= now), inquiries.c.doubt_due_at),
        (_expired(now), inquiries.c.lease_until),
    ):
        # One query each, in order: a planner that expects many rows would read the whole table to find none.
        of_merchant = select(inquiries.c.fence).where(inquiries.c.merchant == merchant, condition)
        found = of_merchant.order_by(since).limit(1)
        if connection.execute(found).first() is not None:
            return True
    return False


def reopen_expired(connection: Connection, merchant: str, now: datetime) -> None:
    """Open inquiries again whose lease has run out."""
    connection.execute(
        update(inquiries)
        .where(inquiries.c.merchant == merchant, _expired(now))
        .values(state=InquiryState.OPEN.value, lease_until=None)
    )


def lock_owed(connection: Connection, merchant: str, now: datetime, *, limit: int) -> Sequence[Row[Any]]:
    """Lock at most `limit` due inquiries whose orders are owed an answer, the longest due first."""
    return _lock(connection, merchant, inquiries.c.due_at <= now, inquiries.c.due_at, limit)


def lock_doubts(
    connection: Connection, merchant: str, now: datetime, *, limit: int, repeated: bool
) -> Sequence[Row[Any]]:
    """Lock at most `limit` due inquiries that only have doubts, the longest due first.

    Either those with a new claim or, where `repeated`, those without one since the gateway was last asked.
    """
    not_owed = or_(inquiries.c.due_at.is_(None), inquiries.c.due_at > now)
    is_due = _is_doubt(repeated=repeated) & (inquiries.c.doubt_due_at <= now) & not_owed
    return _lock(connection, merchant, is_due, inquiries.c.doubt_due_at, limit)


def oldest_owed_age(connection: Connection, merchant: str, now: datetime) -> timedelta:
    """How long the longest due inquiry of an order that is owed an answer has waited; zero where none is due."""
    return _age(connection.execute(select(func.min(inquiries.c.due_at)).where(_is_open(merchant))).scalar_one(), now)


def oldest_doubt_age(connection: Connection, merchant: str, now: datetime) -> timedelta:
    """How long the longest due doubt has waited; zero where none is due."""
    firsts = (
        select(func.min(inquiries.c.doubt_due_at)).where(_is_open(merchant), _is_doubt(repeated=repeated))
        for repeated in (False, True)
    )
    return _age(earliest(*(connection.execute(first).scalar_one() for first in firsts)), now)


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


_LONGEST_DETAIL = 500


class QuestionOutcome(StrEnum):
    """The outcome of a question."""

    #: The gateway knows the order; its answer is a claim.
    ANSWERED = "answered"
    #: The gateway has no such order, which does not mean that the payment failed.
    NOT_FOUND = "not-found"
    #: The gateway has an order whose number differs in its spelling alone. It counts as `NOT_FOUND`, but not for rules
    #: that end orders: the gateway may have changed the number that we sent.
    OTHER_SPELLING = "other-spelling"
    #: No answer that says anything about the order.
    NO_ANSWER = "no-answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuestion:
    """A question as it was recorded."""

    asked_at: datetime
    reasons: InquiryReason
    #: None while it is being asked, and for ever where the process died meanwhile.
    outcome: QuestionOutcome | None
    #: The request's id, for questions to the gateway's staff; "" where none is known.
    request_id: str
    seconds: float | None
    #: Why there was no answer; "" where there was one.
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionResult:
    """The result of one question."""

    outcome: QuestionOutcome
    request_id: str
    #: The time until the answer, or until it was given up.
    seconds: float
    #: Why there was no answer, for people; "" where there was one.
    detail: str = ""


def record_asked(
    connection: Connection, asked: Collection[tuple[OrderKey, int, InquiryReason]], *, now: datetime
) -> None:
    """Record questions before they are sent: each one's order, fencing token and reasons."""
    rows = [
        {
            "merchant": order.merchant,
            "biz_order_no": order.biz_order_no,
            "fence": fence,
            "asked_at": now,
            "reasons": int(reasons),
            "outcome": None,
            "request_id": "",
            "seconds": None,
            "detail": "",
        }
        for order, fence, reasons in asked
    ]
    insert_new(connection, asked_questions, rows)


def record_result(connection: Connection, asked: DueInquiry, result: QuestionResult) -> None:
    """Record the result of a question; does nothing where the question has been removed since."""
    connection.execute(
        update(asked_questions)
        .where(about_order(asked_questions, asked.order))
        .where(asked_questions.c.fence == asked.fence, asked_questions.c.asked_at == asked.asked_at)
        .values(
            outcome=result.outcome.value,
            request_id=result.request_id,
            seconds=round(result.seconds, 3),
            detail=mask_personal(escaped(result.detail))[:_LONGEST_DETAIL],
        )
    )


def load_asked(connection: Connection, order: OrderKey) -> Sequence[AskedQuestion]:
    """The questions about an order that are still kept, oldest first."""
    query = select(asked_questions).where(about_order(asked_questions, order)).order_by(asked_questions.c.fence)
    return [to_record(AskedQuestion, row) for row in connection.execute(query)]


def is_in_other_spelling(connection: Connection, order: OrderKey) -> bool:
    """Whether the gateway ever answered with the order in another spelling, of the questions still kept."""
    query = select(asked_questions.c.fence).where(
        about_order(asked_questions, order),
        asked_questions.c.outcome == QuestionOutcome.OTHER_SPELLING.value,
    )
    return connection.execute(query.limit(1)).first() is not None


def not_found_times(connection: Connection, order: OrderKey) -> Sequence[datetime]:
    """When the gateway was asked about the order and answered that it does not have it, of the questions still kept."""
    query = select(asked_questions.c.asked_at).where(
        about_order(asked_questions, order),
        asked_questions.c.outcome == QuestionOutcome.NOT_FOUND.value,
    )
    return connection.execute(query).scalars().all()


def prune_asked(connection: Connection, *, before: datetime, most: int) -> int:
    """Remove at most `most` questions that were asked before; how many. The counts per order are kept elsewhere."""
    key = tuple(asked_questions.primary_key)
    old = select(*key).where(asked_questions.c.asked_at < before).limit(most)
    removed = delete(asked_questions).where(tuple_(*key).in_(old)).returning(asked_questions.c.fence)
    return len(connection.execute(removed).all())
