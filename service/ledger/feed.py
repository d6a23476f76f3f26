"""The event feed: every event once, in an order that a consumer can read on from, however many processes write.

An event's place begins with `events.txid`, the number of the transaction that made it. PostgreSQL numbers transactions
in the order in which they first write, but they commit in any order. So the feed ends before the lowest number that is
still running (`pg_snapshot_xmin`): an event that commits later always comes after what was read. It has to wait for
every transaction that writes to the same PostgreSQL server, however long that takes. SQLite has one writer at a time,
and `outbox.enqueue` numbers its transactions.

Two transactions that change the same order may come in the other order: the order's sequence says which is newer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    update,
)

from service.domain.claims import OrderKey, OrderStatus
from service.domain.events import EventType
from service.ledger import orders
from service.ledger.database import read
from service.ledger.errors import CursorExpired, FeedBehind
from service.ledger.orders import OrderRecord
from service.ledger.tables import FEED_PLACE, about_order, comes_after, events

# How many events one query reads, and one page at most, to find those that a filter lets pass.
_READ_AT_ONCE = 1000
_MAX_READ = 10_000

_SNAPSHOT = func.pg_current_snapshot()


class FeedPlace(NamedTuple):
    """An event's place in the feed, or the beginning of the feed."""

    txid: int
    merchant: str
    biz_order_no: str
    sequence: int


#: Before the first event.
BEGINNING = FeedPlace(txid=0, merchant="", biz_order_no="", sequence=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFilter:
    """Which events to read; None is no filter."""

    merchant: str | None = None
    type: EventType | None = None
    status: OrderStatus | None = None
    order_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPage:
    """Some events of the feed."""

    #: The CloudEvents, as they are delivered.
    bodies: Sequence[bytes]
    #: Where to read on.
    next: FeedPlace
    #: Whether there are further events after `next`, though perhaps none that the filter lets pass.
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEvents:
    """An order and all of its events."""

    order: OrderRecord
    #: The CloudEvents as they are delivered, in sequence.
    bodies: Sequence[bytes]


class EventFeed:
    """Reads events, delivered or not. Safe to share between threads.

    Every method raises LedgerUnavailable while the database cannot be used; calling again is safe.
    """

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def read(self, after: FeedPlace, chosen: FeedFilter, *, limit: int) -> FeedPage:
        """At most `limit` events after a place. Holds no connection when it returns.

        Raises CursorExpired where the ledger does not have the event at that place, and FeedBehind.
        """
        return read(self._engine, lambda connection: _read(connection, after, chosen, limit))

    def latest(self) -> FeedPlace:
        """The place of the last event; reading on from there gives only events that come later. Raises FeedBehind."""
        return read(self._engine, _latest)

    def of_order(self, key: OrderKey) -> OrderEvents | None:
        """The order and its events; None where no trusted claim and no announcement made it known."""
        return read(self._engine, lambda connection: _of_order(connection, key))


def restart_if_behind(connection: Connection) -> None:
    """Where the server's transaction numbers are behind those of events, begin the feed anew: all old cursors expire.

    That is so after a dump was restored on another server.
    """
    if _is_behind(connection):
        connection.execute(update(events).values(txid=0))


def _read(connection: Connection, after: FeedPlace, chosen: FeedFilter, limit: int) -> FeedPage:
    _require_place(connection, after)
    _require_not_behind(connection)
    passes = _passes(chosen)
    at_once = limit if passes is None else _READ_AT_ONCE
    body = events.c.body if passes is None else case((passes, events.c.body))
    query = select(*FEED_PLACE, body.label("body")).where(_is_settled(connection)).order_by(*FEED_PLACE).limit(at_once)
    bodies: list[bytes] = []
    place = after
    for _ in range(_MAX_READ // at_once):
        rows = connection.execute(query.where(comes_after(FEED_PLACE, place))).all()
        for row in rows:
            if row.body is not None:
                bodies.append(row.body)
            place = FeedPlace(*row[:-1])
            if len(bodies) == limit:
                return FeedPage(bodies=bodies, next=place, more=True)
        if len(rows) < at_once:
            return FeedPage(bodies=bodies, next=place, more=False)
    return FeedPage(bodies=bodies, next=place, more=True)


def _latest(connection: Connection) -> FeedPlace:
    _require_not_behind(connection)
    backwards = [column.desc() for column in FEED_PLACE]
    row = connection.execute(
        select(*FEED_PLACE).where(_is_settled(connection)).order_by(*backwards).limit(1)
    ).one_or_none()
    return BEGINNING if row is None else FeedPlace(*row)


def _of_order(connection: Connection, key: OrderKey) -> OrderEvents | None:
    order = orders.load(connection, key)
    if order is None:
        return None
    of_order = about_order(events, key)
    bodies = connection.scalars(select(events.c.body).where(of_order).order_by(events.c.sequence)).all()
    return OrderEvents(order=order, bodies=bodies)


def _is_settled(connection: Connection) -> ColumnElement[bool]:
    """The condition that no running transaction can commit an event before this one."""
    if connection.dialect.name == "sqlite":
        return literal(True)
    # One statement sees one snapshot: what it finds and where it stops agree.
    return events.c.txid < _number(func.pg_snapshot_xmin(_SNAPSHOT))


def _require_place(connection: Connection, place: FeedPlace) -> None:
    """Raise CursorExpired unless the event at that place is there."""
    if place == BEGINNING:
        return
    is_there = (column == value for column, value in zip(FEED_PLACE, place, strict=True))
    there = connection.execute(select(literal(1)).where(*is_there))
    if there.one_or_none() is None:
        raise CursorExpired


def _require_not_behind(connection: Connection) -> None:
    if _is_behind(connection):
        raise FeedBehind("the database was restored from a dump, and its event feed has to begin anew")


def _is_behind(connection: Connection) -> bool:
    """Whether events have numbers that the server has not reached yet: new ones would come before those."""
    if connection.dialect.name == "sqlite":
        return False
    newest = select(func.max(events.c.txid)).scalar_subquery()
    return bool(connection.execute(select(newest >= _number(func.pg_snapshot_xmax(_SNAPSHOT)))).scalar_one())


def _passes(chosen: FeedFilter) -> ColumnElement[bool] | None:
    wanted = {
        events.c.merchant: chosen.merchant,
        events.c.type: chosen.type,
        events.c.status: chosen.status,
        events.c.order_type: chosen.order_type,
    }
    conditions = [column == value for column, value in wanted.items() if value is not None]
    return and_(*conditions) if conditions else None


def _number(xid: ColumnElement[Any]) -> ColumnElement[int]:
    # PostgreSQL casts xid8 to no number directly.
    return cast(cast(xid, Text), BigInteger)
