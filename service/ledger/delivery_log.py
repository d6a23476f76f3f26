"""The log of a delivery: its failed tries and its replays, in a column beside it, a line each.

A line has a time, what happened, and a detail. A first delivery that nobody replays adds none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Text, bindparam, case, cast, func, literal

from service.ledger.sanitizing import escaped
from service.ledger.tables import deliveries

# The first line, and the newest. An endpoint that is away for days would fill the ledger otherwise.
_KEPT = 10


class LoggedKind(StrEnum):
    """What happened to a delivery."""

    FAILED = "failed"
    #: And was replayed later: else the delivery itself says so.
    DELIVERED = "delivered"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedStep:
    """Something that happened to a delivery."""

    #: Aware.
    at: datetime
    kind: LoggedKind
    #: Why it failed, or who replayed it and why; else "".
    detail: str


def read_log(log: str) -> Sequence[LoggedStep]:
    """What the column has, the oldest first: the first line, and at most nine others."""
    steps = (line.split("\t", 2) for line in _shortened(log))
    return tuple(
        LoggedStep(at=datetime.fromisoformat(at).replace(tzinfo=UTC), kind=LoggedKind(kind), detail=detail)
        for at, kind, detail in steps
    )


def add_failure(log: str, *, at: datetime, error: str) -> str:
    """The log with another failed try."""
    return "".join(f"{line}\n" for line in _shortened(log)) + write_step(LoggedKind.FAILED, error, at=at)


def write_step(kind: LoggedKind, detail: str, *, at: datetime) -> str:
    """A line of the log, with its end."""
    time = at.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    return f"{time}\t{kind}\t{' '.join(escaped(detail).split())}\n"


def log_replay(dialect: str) -> ColumnElement[str]:
    """The log of a delivery that is replayed; `replay` is a parameter, the line of the replay."""
    settled_at: ColumnElement[str] = cast(deliveries.c.settled_at, Text)  # SQLite keeps it as it is written here
    if dialect != "sqlite":
        settled_at = func.to_char(func.timezone("UTC", deliveries.c.settled_at), "YYYY-MM-DD HH24:MI:SS.US")
    delivered = settled_at + literal(f"\t{LoggedKind.DELIVERED}\t\n")
    return (
        deliveries.c.log
        + case((deliveries.c.state == "delivered", delivered), else_="")
        + cast(bindparam("replay"), Text)
    )


def _shortened(log: str) -> Sequence[str]:
    lines = log.splitlines()
    return [*lines[:1], *lines[1:][-(_KEPT - 1) :]]
