"""Announcements: orders that we are about to send, recorded before a callback about them can come."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from service.domain.claims import OrderKey
from service.domain.money import Money, read_money
from service.ledger import orders
from service.ledger.decisions import Decision, EndpointRules, MerchantRules
from service.ledger.errors import AnnouncementDiffers, ClaimUnstorable
from service.ledger.inquiries import open_inquiries
from service.ledger.orders import OrderRecord
from service.ledger.outbox import enqueue
from service.ledger.sanitizing import escaped, require_sanitized


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """An order before it is sent to the gateway."""

    merchant: str
    biz_order_no: str
    #: An exact string in `amount_unit` ("yuan" or "fen"); both None where unknown.
    amount: str | None = None
    amount_unit: str | None = None
    #: "" where unknown.
    pay_type: str = ""
    #: When to ask the gateway if no terminal status is known by then, aware; None for the merchant's default.
    answer_due_at: datetime | None = None

    @property
    def order(self) -> OrderKey:
        """The order that is announced."""
        return OrderKey(self.merchant, self.biz_order_no)


def record_announcement(
    connection: Connection,
    announcement: Announcement,
    *,
    merchant: MerchantRules,
    endpoints: Sequence[EndpointRules],
    now: datetime,
) -> OrderRecord:
    """Create the order or, where callbacks came before the announcement, fill in what they did not state.

    Where they contradict it, what they stated stands, and the order is in conflict from now on. Repeating an
    announcement changes nothing; other values raise AnnouncementDiffers.
    """
    require_sanitized(announcement.order)
    if any(escaped(text) != text for text in (announcement.amount or "", announcement.pay_type)):
        raise ClaimUnstorable("an announcement must hold no NUL and no lone surrogate")
    orders.insert_missing(connection, [OrderRecord.unknown(announcement.order, now=now)])
    known = orders.lock(connection, [announcement.order])[announcement.order]
    if known.announced_at is not None:
        _refuse_other_values(known, announcement)
        return known
    amount = _read_amount(announcement)
    due = announcement.answer_due_at or now + timedelta(seconds=merchant.answer_due_seconds)
    announced = replace(known, announced_amount=announcement.amount, announced_at=now, answer_due_at=due)
    decision = Decision(announced, rules=merchant, endpoints=endpoints, now=now)
    announced = decision.announce(announced, merchant, pay_type=announcement.pay_type, amount=amount)
    orders.save(connection, [announced])
    enqueue(connection, [decision], now=now)
    if decision.inquiry:
        open_inquiries(connection, [decision.inquiry], now=now)
    return announced


def _read_amount(announcement: Announcement) -> Money | None:
    if announcement.amount is None or announcement.amount_unit is None:
        return None
    if read_money(announcement.amount, announcement.amount_unit) is None:
        raise ClaimUnstorable("an announced amount must be a decimal number of whole fen")
    return Money(announcement.amount, announcement.amount_unit)


def _refuse_other_values(known: OrderRecord, announcement: Announcement) -> None:
    announced_pay_type = known.state.announced_pay_type
    pairs = {
        "amount": (known.announced_amount, announcement.amount),
        "amount_unit": (known.amount_unit if known.announced_amount else None, announcement.amount_unit),
        "pay_type": (announced_pay_type, announcement.pay_type or announced_pay_type),
        "answer_due_at": (known.answer_due_at, announcement.answer_due_at or known.answer_due_at),
    }
    if differing := [name for name, (before, after) in pairs.items() if before != after]:
        raise AnnouncementDiffers(differing)
