"""Pauses: endpoints to which an operator wants nothing sent for now, for every process and over every restart."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Engine, Row, delete, exists, select

from service.ledger.inserts import insert_into
from service.ledger.sanitizing import escaped
from service.ledger.tables import paused_endpoints
from service.ledger.transactions import read, write


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Why nothing is sent to an endpoint."""

    endpoint: str
    #: Aware.
    paused_at: datetime
    #: Who wanted it, as they said.
    paused_by: str
    reason: str


class Pauses:
    """Pauses endpoints and resumes them. Safe to share between threads.

    While one is paused none of its deliveries can be claimed; they stay as they are, in their order, and no try is
    counted. Every method raises LedgerUnavailable while the database cannot be used; calling again is safe.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    def pause(self, endpoint: str, *, by: str, reason: str) -> Pause:
        """Pause an endpoint, and say what holds now: where it was paused already, that stands as it was."""
        pause = Pause(endpoint=endpoint, paused_at=self._clock(), paused_by=escaped(by), reason=escaped(reason))
        return write(self._engine, lambda connection: _pause(connection, pause))

    def resume(self, endpoint: str) -> Pause | None:
        """End a pause, and say which; None where there was none."""
        return write(self._engine, lambda connection: _resume(connection, endpoint))

    def ages(self, endpoints: Collection[str]) -> Mapping[str, float]:
        """How long each of `endpoints` has been paused, in seconds; 0 where it is not."""
        now, pauses = self._clock(), read(self._engine, load_pauses)
        return {
            name: max((now - pauses[name].paused_at).total_seconds(), 0.0) if name in pauses else 0.0
            for name in endpoints
        }


def load_pauses(connection: Connection) -> Mapping[str, Pause]:
    """Every pause, by endpoint."""
    return {row.endpoint: _from_row(row) for row in connection.execute(select(paused_endpoints))}


def is_paused(endpoint: str | BindParameter[str]) -> ColumnElement[bool]:
    """The condition that an endpoint is paused, for statements that must not touch its deliveries."""
    return exists().where(paused_endpoints.c.endpoint == endpoint)


def _pause(connection: Connection, pause: Pause) -> Pause:
    values = {
        "endpoint": pause.endpoint,
        "paused_at": pause.paused_at,
        "paused_by": pause.paused_by,
        "reason": pause.reason,
    }
    insert = insert_into(connection, paused_endpoints).values(values)
    # Sets nothing new, and so hands out the row that is there.
    kept = insert.on_conflict_do_update(
        index_elements=[paused_endpoints.c.endpoint], set_={"endpoint": insert.excluded.endpoint}
    )
    return _from_row(connection.execute(kept.returning(*paused_endpoints.c)).one())


def _resume(connection: Connection, endpoint: str) -> Pause | None:
    ended = delete(paused_endpoints).where(paused_endpoints.c.endpoint == endpoint).returning(*paused_endpoints.c)
    row = connection.execute(ended).one_or_none()
    return None if row is None else _from_row(row)


def _from_row(row: Row[Any]) -> Pause:
    return Pause(endpoint=row.endpoint, paused_at=row.paused_at, paused_by=row.paused_by, reason=row.reason)
