"""Endpoints: which are paused by an operator, the state of each one, and its deliveries."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    delete,
    exists,
    func,
    literal,
    select,
)

from service.domain.claims import OrderKey, OrderStatus
from service.domain.events import EventType
from service.ledger.audit import Action, Author, record_change
from service.ledger.bulk import insert_new
from service.ledger.database import read, write
from service.ledger.delivery_log import LoggedKind, read_log
from service.ledger.histories import DeliveryRecord, to_delivery
from service.ledger.sanitizing import escaped
from service.ledger.tables import HAS_EVENT, comes_after, deliveries, events, paused_endpoints, to_record


class DeliveryState(StrEnum):
    """How far the delivery of an event to an endpoint is."""

    OPEN = "open"
    DELIVERED = "delivered"
    #: Given up until a person replays it.
    PARKED = "parked"


_IS_OPEN = deliveries.c.state == DeliveryState.OPEN
_IS_PARKED = deliveries.c.state == DeliveryState.PARKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Why nothing is sent to an endpoint, for all processes and across restarts."""

    endpoint: str
    #: Aware.
    paused_at: datetime
    #: Who paused it, as they named themselves.
    paused_by: str
    reason: str


class Pauses:
    """Pauses endpoints and resumes them. Safe to share between threads.

    The deliveries of a paused endpoint cannot be leased. They keep their order, and no try is counted. Every method
    raises LedgerUnavailable while the database cannot be used; calling again is safe.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    def pause(self, endpoint: str, *, author: Author) -> Pause:
        """Pause an endpoint; the pause that holds now. Where it was paused already, that pause stays as it was."""
        now = self._clock()
        return write(self._engine, lambda connection: _pause(connection, endpoint, author, now=now))

    def resume(self, endpoint: str, *, author: Author) -> Pause | None:
        """End a pause; the pause that was ended, or None where there was none."""
        now = self._clock()
        return write(self._engine, lambda connection: _resume(connection, endpoint, author, now=now))

    def ages(self, endpoints: Collection[str]) -> Mapping[str, float]:
        """How long each of `endpoints` has been paused, in seconds; 0 where it is not."""
        now, pauses = self._clock(), read(self._engine, load_pauses)
        return {
            name: max((now - pauses[name].paused_at).total_seconds(), 0.0) if name in pauses else 0.0
            for name in endpoints
        }


def load_pauses(connection: Connection) -> Mapping[str, Pause]:
    """Every pause, by endpoint."""
    return {row.endpoint: to_record(Pause, row) for row in connection.execute(select(paused_endpoints))}


def is_paused(endpoint: str | BindParameter[str]) -> ColumnElement[bool]:
    """The condition that an endpoint is paused, for statements that must leave its deliveries alone."""
    return exists().where(paused_endpoints.c.endpoint == endpoint)


def _pause(connection: Connection, endpoint: str, author: Author, *, now: datetime) -> Pause:
    pause = Pause(endpoint=endpoint, paused_at=now, paused_by=escaped(author.name), reason=escaped(author.reason))
    if insert_new(connection, paused_endpoints, [asdict(pause)], returning=[paused_endpoints.c.endpoint]):
        record_change(connection, Action.PAUSE, endpoint, author, at=now)
    return load_pauses(connection)[endpoint]


def _resume(connection: Connection, endpoint: str, author: Author, *, now: datetime) -> Pause | None:
    ended = delete(paused_endpoints).where(paused_endpoints.c.endpoint == endpoint).returning(*paused_endpoints.c)
    row = connection.execute(ended).one_or_none()
    if row is None:
        return None
    record_change(connection, Action.RESUME, endpoint, author, at=now)
    return to_record(Pause, row)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointState:
    """One endpoint's pause and the numbers of its deliveries. Times are aware."""

    endpoint: str
    pause: Pause | None
    #: Neither delivered nor parked yet.
    open: int
    #: Given up until a person replays them.
    parked: int
    #: When the event of the oldest open delivery was made; None where nothing is open.
    oldest_open_at: datetime | None
    #: When it last accepted an event; None where it never has.
    last_delivered_at: datetime | None
    #: The last error of an undelivered event, of an open one first; "" where none has failed.
    last_error: str
    #: Since when the oldest open event that was tried has failed; None where none has.
    failing_since: datetime | None


def read_endpoint_states(engine: Engine, endpoints: Collection[str]) -> Sequence[EndpointState]:
    """The states of `endpoints`, and then of all others that are paused or have undelivered events.

    The others are no longer in the settings, and nothing is delivered to them. Raises LedgerUnavailable.
    """
    return read(engine, lambda connection: _read_states(connection, endpoints))


def _read_states(connection: Connection, endpoints: Collection[str]) -> Sequence[EndpointState]:
    pauses = load_pauses(connection)
    opened = _by_endpoint(connection, _counted(func.min(deliveries.c.created_at).label("oldest")).where(_IS_OPEN))
    parked = _by_endpoint(connection, _counted().where(_IS_PARKED))
    others = sorted({*pauses, *opened, *parked} - set(endpoints))
    return [
        EndpointState(
            endpoint=name,
            pause=pauses.get(name),
            open=opened[name].deliveries if name in opened else 0,
            parked=parked[name].deliveries if name in parked else 0,
            oldest_open_at=opened[name].oldest if name in opened else None,
            last_delivered_at=_last_delivered_at(connection, name),
            last_error=_last_error(connection, name),
            failing_since=_failing_since(connection, name) if name in opened else None,
        )
        for name in (*endpoints, *others)
    ]


class DeliveryPlace(NamedTuple):
    """A delivery's place in the list of deliveries."""

    created_at: datetime
    merchant: str
    biz_order_no: str
    sequence: int
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDelivery(DeliveryRecord):
    """A delivery, with what its event is about."""

    event_id: str
    merchant: str
    biz_order_no: str
    sequence: int
    type: EventType
    #: Of the order, as the event states it.
    status: OrderStatus
    #: When the event was made, aware.
    created_at: datetime

    @property
    def place(self) -> DeliveryPlace:
        """Its place in the list of deliveries."""
        return DeliveryPlace(self.created_at, self.merchant, self.biz_order_no, self.sequence, self.endpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries to list; None is no filter."""

    endpoint: str | None = None
    state: DeliveryState | None = None
    order: OrderKey | None = None
    event_id: str | None = None
    after: DeliveryPlace | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether an index finds them: all of one order or event, or those that wait. There are millions of others."""
        waits = self.state in (DeliveryState.OPEN, DeliveryState.PARKED)
        return waits or self.order is not None or self.event_id is not None


def list_deliveries(engine: Engine, chosen: DeliveryFilter, *, limit: int) -> Sequence[ListedDelivery]:
    """At most `limit` deliveries, those of the oldest events first. Raises LedgerUnavailable.

    `chosen` has to be narrow.
    """
    place = [deliveries.c[name] for name in DeliveryPlace._fields]
    query = _listed().order_by(*place).limit(limit)
    if chosen.endpoint is not None:
        query = query.where(deliveries.c.endpoint == chosen.endpoint)
    if chosen.state is not None:
        # Written out, for the indexes of one state each.
        query = query.where(deliveries.c.state == literal(chosen.state.value, literal_execute=True))
    if chosen.order is not None:
        query = query.where(
            deliveries.c.merchant == chosen.order.merchant, deliveries.c.biz_order_no == chosen.order.biz_order_no
        )
    if chosen.event_id is not None:
        query = query.where(events.c.id == chosen.event_id)
    if chosen.after is not None:
        query = query.where(comes_after(place, chosen.after))
    return _load_listed(engine, query)


def list_last_delivered(engine: Engine, endpoint: str, *, limit: int) -> Sequence[ListedDelivery]:
    """The last deliveries that an endpoint has taken, the last first; at most `limit`. Raises LedgerUnavailable."""
    delivered = deliveries.c.state == literal(DeliveryState.DELIVERED.value, literal_execute=True)
    query = _listed().where(deliveries.c.endpoint == endpoint, delivered, deliveries.c.settled_at.is_not(None))
    return _load_listed(engine, query.order_by(deliveries.c.settled_at.desc()).limit(limit))


def _listed() -> Select[Any]:
    return select(deliveries, events.c.id.label("event_id"), events.c.type, events.c.status).join(events, HAS_EVENT)


def _load_listed(engine: Engine, query: Select[Any]) -> Sequence[ListedDelivery]:
    rows = read(engine, lambda connection: connection.execute(query).all())
    return [to_delivery(ListedDelivery, row) for row in rows]


def _counted(*more: Any) -> Select[Any]:
    return select(deliveries.c.endpoint, func.count().label("deliveries"), *more).group_by(deliveries.c.endpoint)


def _by_endpoint(connection: Connection, query: Select[Any]) -> dict[str, Row[Any]]:
    return {row.endpoint: row for row in connection.execute(query)}


def _last_delivered_at(connection: Connection, endpoint: str) -> datetime | None:
    delivered = (deliveries.c.endpoint == endpoint) & (deliveries.c.state == DeliveryState.DELIVERED)
    last: datetime | None = connection.execute(select(func.max(deliveries.c.settled_at)).where(delivered)).scalar_one()
    return last


def _failing_since(connection: Connection, endpoint: str) -> datetime | None:
    tried = select(deliveries.c.log).where(deliveries.c.endpoint == endpoint, _IS_OPEN, deliveries.c.last_error != "")
    log = connection.execute(tried.order_by(deliveries.c.created_at).limit(1)).scalar_one_or_none()
    since = None
    for step in read_log(log or ""):
        # Before a replay it may have failed for other reasons.
        since = None if step.kind is not LoggedKind.FAILED else since or step.at
    return since


def _last_error(connection: Connection, endpoint: str) -> str:
    failed = select(deliveries.c.last_error).where(deliveries.c.endpoint == endpoint, deliveries.c.last_error != "")
    for query in (
        failed.where(_IS_OPEN).order_by(deliveries.c.due_at.desc()),
        failed.where(_IS_PARKED).order_by(deliveries.c.settled_at.desc()),
    ):
        found = connection.execute(query.limit(1)).scalar_one_or_none()
        if found is not None:
            return str(found)
    return ""
