"""Withholds: which orders were sent to the gateway, so that each is sent once, however often it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, select, update

from service.domain.claims import OrderKey
from service.ledger import orders
from service.ledger.errors import LedgerError, NotAnnounced
from service.ledger.inserts import insert_into
from service.ledger.sanitizing import escaped
from service.ledger.tables import withholds
from service.ledger.transactions import read, write


class WithholdOutcome(StrEnum):
    """What is known of a withhold that was to be sent."""

    #: On its way; where the process died meanwhile, as unknown as `UNKNOWN`.
    SENDING = "sending"
    #: The gateway took it, which says nothing of it being paid.
    ACCEPTED = "accepted"
    #: Surely not done; it may be sent again.
    NOT_DONE = "not-done"
    #: Nobody knows yet; the gateway is asked.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class WithholdRecord:
    """The one sending of an order."""

    outcome: WithholdOutcome
    #: Who wanted it: the name of an API token, or what the command line says of itself.
    sent_by: str
    sent_at: datetime
    #: When its outcome became known to us; None while it is being sent.
    settled_at: datetime | None
    #: What was answered or went wrong, for people; no personal data.
    detail: str
    #: What to name when asking the gateway's people; "" where no request was made or it was accepted.
    request_id: str


class SentBefore(LedgerError):
    """The order was sent before, and is not sent again: two withholds may move money twice."""

    def __init__(self, record: WithholdRecord) -> None:
        super().__init__(f"sent before, by {record.sent_by}; outcome: {record.outcome.value}")
        self.record = record


class SpokenOfBefore(LedgerError):
    """Something is known of the order already though it was not sent from here; sending it might charge it twice."""


class Withholds:
    """Keeps each order from being sent twice. Safe to share between threads and, by the database, between processes.

    Every method raises LedgerUnavailable while the database cannot be used.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    def begin(self, order: OrderKey, *, sent_by: str) -> None:
        """Take the right to send the order, which must be announced. Commits before it returns.

        Of any number of callers one gets it; the others, and every later one, get SentBefore, unless the sending ended
        as `NOT_DONE`. Raises SpokenOfBefore where the order has a status already, NotAnnounced where it is unknown.
        """
        now = self._clock()
        write(self._engine, lambda connection: _begin(connection, order, escaped(sent_by), now))

    def settle(self, order: OrderKey, outcome: WithholdOutcome, *, detail: str = "", request_id: str = "") -> None:
        """Record how the sending that `begin` allowed has ended."""
        values = {
            "outcome": outcome.value,
            "detail": escaped(detail),
            "request_id": request_id,
            "settled_at": self._clock(),
        }
        is_under_way = _is(order) & (withholds.c.outcome == WithholdOutcome.SENDING.value)
        write(self._engine, lambda connection: connection.execute(update(withholds).where(is_under_way).values(values)))

    def load(self, order: OrderKey) -> WithholdRecord | None:
        """What is known of the order's sending; None where it was not sent from here."""
        return read(self._engine, lambda connection: load_withhold(connection, order))


def load_withhold(connection: Connection, order: OrderKey) -> WithholdRecord | None:
    """The sending of an order; None where it was not sent from here."""
    row = connection.execute(select(withholds).where(_is(order))).one_or_none()
    return None if row is None else _from_row(row)


def _begin(connection: Connection, order: OrderKey, sent_by: str, now: datetime) -> None:
    known = orders.lock(connection, [order]).get(order)
    if known is None or known.announced_at is None:
        raise NotAnnounced("only an announced order is sent: else nobody would ask for it if its answer were lost")
    sent = load_withhold(connection, order)
    if sent is not None and sent.outcome is not WithholdOutcome.NOT_DONE:
        raise SentBefore(sent)
    if known.state.trust is not None:
        raise SpokenOfBefore(f"the order is {known.state.status.value} already")
    fresh = {
        "merchant": order.merchant,
        "biz_order_no": order.biz_order_no,
        "outcome": WithholdOutcome.SENDING.value,
        "sent_by": sent_by,
        "sent_at": now,
        "settled_at": None,
        "detail": "",
        "request_id": "",
    }
    # The lock on the order keeps others out.
    insert = insert_into(connection, withholds).values(fresh)
    connection.execute(
        insert.on_conflict_do_update(index_elements=[withholds.c.merchant, withholds.c.biz_order_no], set_=fresh)
    )


def _is(order: OrderKey) -> ColumnElement[bool]:
    return (withholds.c.merchant == order.merchant) & (withholds.c.biz_order_no == order.biz_order_no)


def _from_row(row: Row[Any]) -> WithholdRecord:
    return WithholdRecord(
        outcome=WithholdOutcome(row.outcome),
        sent_by=row.sent_by,
        sent_at=row.sent_at,
        settled_at=row.settled_at,
        detail=row.detail,
        request_id=row.request_id,
    )
