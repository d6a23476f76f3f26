"""Asked questions: what the gateway was asked and how it went, for people who ask how an order came to its state."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, delete, select, tuple_, update

from service.domain.claims import OrderKey
from service.domain.masking import mask_personal
from service.ledger.due_inquiries import DueInquiry
from service.ledger.inquiries import InquiryReason
from service.ledger.inserts import insert_new
from service.ledger.sanitizing import escaped
from service.ledger.tables import asked_questions

_LONGEST_DETAIL = 500


class QuestionOutcome(StrEnum):
    """What came of a question."""

    #: The gateway spoke of the order; what it said is a claim.
    ANSWERED = "answered"
    #: The gateway knows of no such order, which does not mean that it failed.
    NOT_FOUND = "not-found"
    #: Nothing that says anything of the order.
    NO_ANSWER = "no-answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuestion:
    """One question, as it was recorded."""

    asked_at: datetime
    reasons: InquiryReason
    #: None while it is being asked, and for good where the process that asked has died.
    outcome: QuestionOutcome | None
    #: What to name when asking the gateway's people; "" where none is known.
    request_id: str
    seconds: float | None
    #: Why there was no answer; "" otherwise.
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How a question went."""

    outcome: QuestionOutcome
    request_id: str
    #: From asking to the answer, or to giving up.
    seconds: float
    #: Why there was no answer, for people; "" otherwise.
    detail: str = ""


def record_asked(
    connection: Connection, asked: Collection[tuple[OrderKey, int, InquiryReason]], *, now: datetime
) -> None:
    """Record questions, before they are sent: each by its order, its fence and why it is asked."""
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


def record_reply(connection: Connection, asked: DueInquiry, reply: Reply) -> None:
    """Record how a question went; nothing where it has been removed since."""
    own = (
        (asked_questions.c.merchant == asked.order.merchant)
        & (asked_questions.c.biz_order_no == asked.order.biz_order_no)
        & (asked_questions.c.fence == asked.fence)
        & (asked_questions.c.asked_at == asked.asked_at)
    )
    connection.execute(
        update(asked_questions)
        .where(own)
        .values(
            outcome=reply.outcome.value,
            request_id=reply.request_id,
            seconds=round(reply.seconds, 3),
            detail=mask_personal(escaped(reply.detail))[:_LONGEST_DETAIL],
        )
    )


def load_asked(connection: Connection, order: OrderKey) -> Sequence[AskedQuestion]:
    """Every question about an order that is still kept, oldest first."""
    query = (
        select(asked_questions)
        .where(asked_questions.c.merchant == order.merchant, asked_questions.c.biz_order_no == order.biz_order_no)
        .order_by(asked_questions.c.fence)
    )
    return [
        AskedQuestion(
            asked_at=row.asked_at,
            reasons=InquiryReason(row.reasons),
            outcome=None if row.outcome is None else QuestionOutcome(row.outcome),
            request_id=row.request_id,
            seconds=row.seconds,
            detail=row.detail,
        )
        for row in connection.execute(query)
    ]


def prune_asked(connection: Connection, *, before: datetime, most: int) -> int:
    """Remove at most `most` questions that were asked before; how many. How often an order was asked is kept apart."""
    key = tuple(asked_questions.primary_key)
    old = select(*key).where(asked_questions.c.asked_at < before).limit(most)
    removed = delete(asked_questions).where(tuple_(*key).in_(old)).returning(asked_questions.c.fence)
    return len(connection.execute(removed).all())
