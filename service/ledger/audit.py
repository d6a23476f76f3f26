"""The audit: what people have changed, requested or decided, who did it, when and why. Rows are only ever added."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, insert, select

from service.domain.claims import OrderKey, OrderStatus
from service.ledger.database import read
from service.ledger.sanitizing import escaped
from service.ledger.tables import about_order, audit, to_record


class Action(StrEnum):
    """What was done."""

    REPLAY = "replay"
    STOP_REPLAY = "stop-replay"
    PAUSE = "pause"
    RESUME = "resume"
    ACKNOWLEDGE = "acknowledge"
    TEST_ENDPOINT = "test-endpoint"
    INQUIRE = "inquire"
    REPLAY_DEAD_LETTERS = "replay-dead-letters"
    DROP_DEAD_LETTERS = "drop-dead-letters"
    RESOLVE = "resolve"
    PROPOSE = "propose"
    CONFIRM = "confirm"
    WITHDRAW = "withdraw"


#: What people decide about an order. The subject names the order and the status.
DECISIONS = frozenset({Action.RESOLVE, Action.PROPOSE, Action.CONFIRM, Action.WITHDRAW})


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """The person behind a change."""

    #: The person, and the API token or command line that was used.
    name: str
    reason: str
    #: What tells this person from all others; "" where the caller is a system.
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One change."""

    id: int
    changed_at: datetime
    changed_by: str
    action: Action
    #: What it was done to, such as an endpoint or an order.
    subject: str
    reason: str
    #: The order that it concerns, if it concerns one.
    merchant: str | None
    biz_order_no: str | None


def record_change(
    connection: Connection,
    action: Action,
    subject: str,
    author: Author,
    *,
    at: datetime,
    order: OrderKey | None = None,
) -> None:
    """Record a change in the transaction that makes it. `order` is the one that it concerns, if it concerns one."""
    values = {
        "changed_at": at,
        "changed_by": escaped(author.name),
        "action": action.value,
        "subject": escaped(subject),
        "reason": escaped(author.reason),
        "merchant": order and order.merchant,
        "biz_order_no": order and order.biz_order_no,
    }
    connection.execute(insert(audit).values(values))


def record_decision(
    connection: Connection, action: Action, order: OrderKey, status: OrderStatus, author: Author, *, at: datetime
) -> None:
    """Record one of the `DECISIONS` in the transaction that makes it. `status` is what the order is to become."""
    subject = f"{order.merchant}/{order.biz_order_no}: {status.value}"
    record_change(connection, action, subject, author, at=at, order=order)


def load_changes(connection: Connection, order: OrderKey) -> Sequence[AuditRecord]:
    """The changes that concern one order, except decisions about it, the oldest first."""
    # An order's history has its decisions as claims and proposals, which say more. Here they would be told twice.
    others = audit.c.action.not_in([action.value for action in DECISIONS])
    query = select(audit).where(about_order(audit, order), others).order_by(audit.c.id)
    return [to_record(AuditRecord, row) for row in connection.execute(query)]


def list_changes(engine: Engine, *, limit: int, before: int | None = None) -> Sequence[AuditRecord]:
    """At most `limit` changes, the latest first; only those before the id `before`. Raises LedgerUnavailable."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    rows = read(engine, lambda connection: connection.execute(query).all())
    return [to_record(AuditRecord, row) for row in rows]
