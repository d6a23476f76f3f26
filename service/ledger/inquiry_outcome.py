"""The aftermath of a question: what becomes of its inquiry, with an answer and without one."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row

from service.domain.claims import Claim, Trust
from service.ledger.due_inquiries import DueInquiry
from service.ledger.inquiries import InquiryState, earliest
from service.ledger.inquiry_limits import MOST_NOT_FOUND
from service.ledger.orders import OrderRecord


def closed_by_answer(asked: DueInquiry, row: Row[Any], claim: Claim | None) -> bool:
    """Whether recording the answer has closed the inquiry."""
    return claim is not None and row.state == InquiryState.ANSWERED.value and row.fence == asked.fence + 1


def after_question(
    asked: DueInquiry, row: Row[Any], order: OrderRecord | None, *, raised_by_answer: bool, raised_meanwhile: bool
) -> dict[str, Any]:
    """What becomes of an inquiry whose question was settled, while the lease is held."""
    if order is not None and _nothing_left(order) and not raised_by_answer and not raised_meanwhile:
        return {"state": InquiryState.ANSWERED.value}
    due_at, doubt_due_at, horizon_at = row.due_at, row.doubt_due_at, row.horizon_at
    if raised_by_answer and not raised_meanwhile:
        # An answer that leaves the matter open is no reason to ask sooner than was planned for that, and none to ask
        # for longer: each would put off the end, and a gateway that says the same for ever would be asked for ever.
        if asked.due_at is not None:
            due_at, horizon_at = asked.due_at, asked.horizon_at
        doubt_due_at = asked.doubt_due_at
    next_due = earliest(due_at, doubt_due_at)
    is_over = next_due is None or next_due > horizon_at
    state = InquiryState.PARKED if is_over else InquiryState.OPEN
    return {"state": state.value, "due_at": due_at, "doubt_due_at": doubt_due_at, "horizon_at": horizon_at}


def only_strangers_ask(row: Row[Any], order: OrderRecord | None) -> bool:
    """Whether the order is owed nothing: no answer could change it, or it is neither announced nor named by anyone who
    is believed.

    Who changes that while we look waits for our lock, and then finds the inquiry as we leave it.
    """
    return row.due_at is None and (order is None or _nothing_left(order))


def after_not_found(
    row: Row[Any], order: OrderRecord | None, *, now: datetime, pause: timedelta, raised_meanwhile: bool
) -> dict[str, Any]:
    """What becomes of an inquiry that nobody is owed, whose order the gateway does not know; never a person's work.

    Else whoever invents order numbers, or knows some that the gateway has forgotten by now, could have them asked for
    to the horizon, and people woken at the end. `pause` is how long it is left alone before it is asked for again.
    """
    times = row.not_found + 1
    due_at = row.doubt_due_at if raised_meanwhile else max(row.doubt_due_at, now + pause)
    # What was said while we asked is asked about once more, whatever the time.
    is_over = not raised_meanwhile and (due_at > row.horizon_at or times >= MOST_NOT_FOUND)
    state = InquiryState.NOT_FOUND if is_over else InquiryState.OPEN
    unknown_since = now if is_over and order is None else None
    return {"state": state.value, "doubt_due_at": due_at, "not_found": times, "unknown_since": unknown_since}


def _nothing_left(order: OrderRecord) -> bool:
    """Whether no further question could change the order: what a person has decided, only a person can decide again."""
    return order.settled or (order.state.conflicted and order.state.trust is Trust.OPERATOR)
