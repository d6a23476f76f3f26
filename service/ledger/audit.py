"""The audit: what operators have changed or requested, who did it, when and why. Rows are only ever added."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, insert, select

from service.ledger.database import read
from service.ledger.sanitizing import escaped
from service.ledger.tables import audit, to_record


class Action(StrEnum):
    """What was done."""

    REPLAY = "replay"
    STOP_REPLAY = "stop-replay"
    PAUSE = "pause"
    RESUME = "resume"
    TEST_ENDPOINT = "test-endpoint"
    INQUIRE = "inquire"
    REPLAY_DEAD_LETTERS = "replay-dead-letters"
    DROP_DEAD_LETTERS = "drop-dead-letters"


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


def record_change(connection: Connection, action: Action, subject: str, author: Author, *, at: datetime) -> None:
    """Record a change in the transaction that makes it."""
    values = {
        "changed_at": at,
        "changed_by": escaped(author.name),
        "action": action.value,
        "subject": escaped(subject),
        "reason": escaped(author.reason),
    }
    connection.execute(insert(audit).values(values))


def list_changes(engine: Engine, *, limit: int, before: int | None = None) -> Sequence[AuditRecord]:
    """At most `limit` changes, the latest first; only those before the id `before`. Raises LedgerUnavailable."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    rows = read(engine, lambda connection: connection.execute(query).all())
    return [to_record(AuditRecord, row) for row in rows]
