"""Withholds: which orders were sent to the gateway, so that each is sent once, however often that is requested."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from service.domain.claims import OrderKey
from service.ledger import orders
from service.ledger.bulk import insert_into
from service.ledger.database import read, write
from service.ledger.errors import LedgerError, NotAnnounced
from service.ledger.refused_withholds import RefusedWithholds
from service.ledger.sanitizing import escaped
from service.ledger.tables import about_order, to_record, withholds


class WithholdOutcome(StrEnum):
    """What is known of the outcome of a withhold."""

    #: Being sent. Where the process died meanwhile, the outcome is as unknown as with `UNKNOWN`.
    SENDING = "sending"
    #: The gateway accepted it, which does not mean that it is paid.
    ACCEPTED = "accepted"
    #: Certainly not done; it may be sent again.
    NOT_DONE = "not-done"
    #: Not known yet; the gateway is asked.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class WithholdRecord:
    """An order that was sent to the gateway."""

    outcome: WithholdOutcome
    #: Who requested it: the name of an API token, or the command line's own name.
    sent_by: str
    sent_at: datetime
    #: When the outcome became known; None while it is being sent.
    settled_at: datetime | None
    #: The answer, or what went wrong, for people; no personal data.
    detail: str
    #: The request's id, for questions to the gateway's staff; "" where no request was made or it was accepted.
    request_id: str
    #: When the gateway refused it with -1; None where it did not. The outcome is unknown all the same.
    refused_at: datetime | None
    #: When a rule has ended the order; None where none has.
    ended_at: datetime | None


class SentBefore(LedgerError):
    """The order was sent before, and is not sent again: two withholds could move money twice."""

    def __init__(self, record: WithholdRecord) -> None:
        super().__init__(f"sent before, by {record.sent_by}; outcome: {record.outcome.value}")
        self.record = record


class StatusKnown(LedgerError):
    """The order has a status although we did not send it; sending it could charge it twice."""


class Withholds:
    """Keeps each order from being sent twice. Safe to share between threads; any number of processes may have one each.

    Every method raises LedgerUnavailable while the database cannot be used.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[], datetime], refusals: RefusedWithholds) -> None:
        self._engine = engine
        self._clock = clock
        self._refusals = refusals

    def begin(self, order: OrderKey, *, sent_by: str) -> None:
        """Acquire the right to send the order, which must be announced. Commits before it returns.

        One caller gets it. All others, also later ones, get SentBefore, unless the outcome was `NOT_DONE`. Raises
        StatusKnown where the order has a status already, and NotAnnounced where it is unknown.
        """
        now = self._clock()
        write(self._engine, lambda connection: _begin(connection, order, escaped(sent_by), now))

    def settle(
        self,
        order: OrderKey,
        outcome: WithholdOutcome,
        *,
        detail: str = "",
        request_id: str = "",
        refusal_message: str | None = None,
    ) -> None:
        """Record the outcome of the sending that `begin` allowed.

        `refusal_message` is the unmasked message with which the gateway answered -1; None where it did not. If a rule
        names it, the order ends in the same transaction. The outcome stays what it is: unknown.
        """
        now = self._clock()
        values: dict[str, Any] = {
            "outcome": outcome.value,
            "detail": escaped(detail),
            "request_id": request_id,
            "settled_at": now,
        }
        if refusal_message is not None:
            values |= self._refusals.values_of_refusal(order.merchant, refusal_message, refused_at=now)
        is_under_way = about_order(withholds, order) & (withholds.c.outcome == WithholdOutcome.SENDING.value)

        def record(connection: Connection) -> None:
            if "rule" in values:
                # Orders are always locked before withholds.
                orders.lock(connection, [order])
            settled = connection.execute(update(withholds).where(is_under_way).values(values))
            if settled.rowcount and "rule" in values:
                self._refusals.end_if_due(connection, order, now=now)

        write(self._engine, record)

    def load(self, order: OrderKey) -> WithholdRecord | None:
        """What is known of the order's withhold; None where we did not send it."""
        return read(self._engine, lambda connection: load_withhold(connection, order))


def load_withhold(connection: Connection, order: OrderKey) -> WithholdRecord | None:
    """The withhold of an order; None where we did not send it."""
    row = connection.execute(select(withholds).where(about_order(withholds, order))).one_or_none()
    return None if row is None else to_record(WithholdRecord, row)


def _begin(connection: Connection, order: OrderKey, sent_by: str, now: datetime) -> None:
    known = orders.lock(connection, [order]).get(order)
    if known is None or known.announced_at is None:
        raise NotAnnounced("only an announced order is sent: else nobody would ask for it if its answer were lost")
    sent = load_withhold(connection, order)
    if sent is not None and sent.outcome is not WithholdOutcome.NOT_DONE:
        raise SentBefore(sent)
    if known.state.trust is not None:
        raise StatusKnown(f"the order is {known.state.status.value} already")
    if known.state.conflicted:
        raise StatusKnown("trusted claims speak of the order already, and contradict its announcement")
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
    # The lock on the order keeps other processes out.
    insert = insert_into(connection, withholds).values(fresh)
    connection.execute(
        insert.on_conflict_do_update(index_elements=[withholds.c.merchant, withholds.c.biz_order_no], set_=fresh)
    )
