"""Replays: a window of events is sent to an endpoint again, so slowly that live events do not wait for it.

A replay is a row, and any dispatcher carries out its next part: each second at most `per_second` deliveries are due
again, and none while that many still wait at the endpoint. So it survives every process, and goes on where it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, exists, func, insert, select, update

from service.domain.claims import OrderStatus
from service.ledger.audit import Action, Author, record_change
from service.ledger.database import allow_longer, read, shared_time, write
from service.ledger.errors import ReplayCountDiffers
from service.ledger.outbox import reopen
from service.ledger.sanitizing import escaped
from service.ledger.tables import (
    FEED_PLACE,
    HAS_EVENT,
    comes_after,
    deliveries,
    events,
    paused_endpoints,
    replays,
    to_record,
)

#: How many events a second are due again unless told otherwise.
DEFAULT_PER_SECOND = 50

_STEP = timedelta(seconds=1)
# No index leads to a window of one endpoint's deliveries, so that recording pays for none.
_COUNTING_SECONDS = 600


class ReplayState(StrEnum):
    """How far a replay is."""

    RUNNING = "running"
    DONE = "done"
    #: By an operator, before it was done.
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayWindow:
    """The events that an endpoint is to get again: of those that were meant for it, all that fit."""

    endpoint: str
    #: Aware: made at this time or later.
    since: datetime
    #: Aware: made before this time.
    until: datetime
    status: OrderStatus | None = None
    order_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRecord:
    """A replay, and how far it is. Times are aware."""

    id: int
    window: ReplayWindow
    per_second: int
    requested_by: str
    reason: str
    requested_at: datetime
    state: ReplayState
    total: int
    #: How many of them were made due again, or were still open.
    done: int


class Replays:
    """Requests replays and carries them out. Safe to share between threads and processes.

    Every method raises LedgerUnavailable while the database cannot be used; calling again is safe unless it says so.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to give all processes the same time."""
        self._engine = engine
        self._clock = clock

    def count(self, window: ReplayWindow) -> int:
        """How many events the window has. May take minutes where there are many millions."""
        total: int = read(self._engine, lambda connection: _measure(connection, window)).total
        return total

    def request(
        self, window: ReplayWindow, *, expected: int, per_second: int = DEFAULT_PER_SECOND, author: Author
    ) -> ReplayRecord:
        """Have the window replayed by the dispatchers, from now on. Each call requests a replay of its own.

        Raises ReplayCountDiffers, and requests nothing, unless the window has `expected` events.
        """
        return write(
            self._engine,
            lambda connection: _request(connection, window, expected, per_second, author, now=self._clock(connection)),
        )

    def load(self, replay: int) -> ReplayRecord | None:
        """The replay with this id."""
        found = read(self._engine, lambda connection: connection.execute(_of_id(replay)).one_or_none())
        return None if found is None else _record(found)

    def list_last(self, endpoint: str, *, limit: int) -> Sequence[ReplayRecord]:
        """The replays of an endpoint, the last first; at most `limit`."""
        query = select(replays).where(replays.c.endpoint == endpoint).order_by(replays.c.id.desc()).limit(limit)
        return [_record(row) for row in read(self._engine, lambda connection: connection.execute(query).all())]

    def stop(self, replay: int, *, author: Author) -> ReplayRecord | None:
        """Make nothing more of a replay due; what is due already is delivered. Safe to repeat."""
        return write(self._engine, lambda connection: _stop(connection, replay, author, now=self._clock(connection)))

    def carry_on(self) -> bool:
        """Carry out the next part of one replay for which it is time; False where there is none."""
        return write(self._engine, lambda connection: _carry_on(connection, now=self._clock(connection)))


def _request(
    connection: Connection, window: ReplayWindow, expected: int, per_second: int, author: Author, *, now: datetime
) -> ReplayRecord:
    found = _measure(connection, window)
    if found.total != expected:
        raise ReplayCountDiffers(found.total)
    values = {
        "endpoint": window.endpoint,
        "since": window.since,
        "until": window.until,
        "status": window.status,
        "order_type": window.order_type,
        "requested_by": escaped(author.name),
        "reason": escaped(author.reason),
        "requested_at": now,
        "state": ReplayState.RUNNING if found.total else ReplayState.DONE,
        "per_second": per_second,
        "total": found.total,
        "done": 0,
        "due_at": now,
        "finished_at": None if found.total else now,
        # Before every event of the first transaction.
        "txid": found.first or 0,
        "merchant": "",
        "biz_order_no": "",
        "sequence": 0,
        "last_txid": found.last or 0,
    }
    made = _record(connection.execute(insert(replays).values(values).returning(*replays.c)).one())
    times = f"{window.since.isoformat()} to {window.until.isoformat()}"
    subject = f"{window.endpoint}: {found.total} events from {times}, replay {made.id}"
    record_change(connection, Action.REPLAY, subject, author, at=now)
    return made


def _measure(connection: Connection, window: ReplayWindow) -> Row[Any]:
    allow_longer(connection, seconds=_COUNTING_SECONDS)
    columns = (
        func.count().label("total"),
        func.min(events.c.txid).label("first"),
        func.max(events.c.txid).label("last"),
    )
    query = select(*columns).select_from(deliveries).join(events, HAS_EVENT).where(*_fits(window))
    return connection.execute(query).one()


def _fits(window: ReplayWindow) -> Sequence[ColumnElement[bool]]:
    conditions = [
        deliveries.c.endpoint == window.endpoint,
        events.c.created_at >= window.since,
        events.c.created_at < window.until,
    ]
    if window.status is not None:
        conditions.append(events.c.status == window.status)
    if window.order_type is not None:
        conditions.append(events.c.order_type == window.order_type)
    return conditions


def _carry_on(connection: Connection, *, now: datetime) -> bool:
    is_paused = exists().where(paused_endpoints.c.endpoint == replays.c.endpoint)
    waiting = and_(replays.c.state == ReplayState.RUNNING, replays.c.due_at <= now, ~is_paused)
    row = connection.execute(
        select(replays).where(waiting).order_by(replays.c.due_at).limit(1).with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return False
    changes: dict[str, Any] = {"due_at": now + _STEP}
    if _waits_at(connection, row.endpoint, now=now, most=row.per_second) < row.per_second:
        changes |= _reopen_next(connection, row, now=now)
    connection.execute(update(replays).where(replays.c.id == row.id).values(changes))
    return True


def _waits_at(connection: Connection, endpoint: str, *, now: datetime, most: int) -> int:
    """How many deliveries to the endpoint are due, counted up to `most`."""
    due = (deliveries.c.endpoint == endpoint) & (deliveries.c.state == "open") & (deliveries.c.due_at <= now)
    counted = select(deliveries.c.sequence).where(due).limit(most).subquery()
    return connection.execute(select(func.count()).select_from(counted)).scalar_one()


def _reopen_next(connection: Connection, row: Row[Any], *, now: datetime) -> dict[str, Any]:
    """Make the next part due again; what is to be stored of the replay."""
    allow_longer(connection, seconds=_COUNTING_SECONDS)
    reached = [row._mapping[column.name] for column in FEED_PLACE]
    query = (
        select(*FEED_PLACE, deliveries.c.endpoint, deliveries.c.state)
        .select_from(deliveries)
        .join(events, HAS_EVENT)
        .where(*_fits(to_record(ReplayWindow, row)), events.c.txid <= row.last_txid, comes_after(FEED_PLACE, reached))
        .order_by(*FEED_PLACE)
        .limit(row.per_second)
    )
    part = connection.execute(query).all()
    reopen(
        connection,
        [(one.merchant, one.biz_order_no, one.endpoint, one.sequence) for one in part if one.state != "open"],
        author=Author(name=row.requested_by, reason=row.reason),
        now=now,
    )
    changes: dict[str, Any] = {"done": row.done + len(part)}
    if part:
        changes |= {column.name: part[-1]._mapping[column.name] for column in FEED_PLACE}
    if len(part) < row.per_second:
        changes |= {"state": ReplayState.DONE, "finished_at": now}
    return changes


def _stop(connection: Connection, replay: int, author: Author, *, now: datetime) -> ReplayRecord | None:
    running = and_(replays.c.id == replay, replays.c.state == ReplayState.RUNNING)
    ended = {"state": ReplayState.STOPPED, "finished_at": now}
    if connection.execute(update(replays).where(running).values(ended)).rowcount:
        record_change(connection, Action.STOP_REPLAY, f"replay {replay}", author, at=now)
    found = connection.execute(_of_id(replay)).one_or_none()
    return None if found is None else _record(found)


def _of_id(replay: int) -> Any:
    return select(replays).where(replays.c.id == replay)


def _record(row: Row[Any]) -> ReplayRecord:
    return to_record(ReplayRecord, row, window=to_record(ReplayWindow, row))
