"""The outbox: events for each endpoint, recorded with the change they report, leased, and settled by fencing token."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, bindparam, exists, func, select, update

from service.domain.claims import OrderKey, OrderStatus
from service.domain.events import EventType, PaymentEvent, SerializedEvent, write_event
from service.domain.masking import mask_personal
from service.ledger.audit import Action, Author, record_change
from service.ledger.bulk import GivenRows, insert_new
from service.ledger.database import read, shared_time, write
from service.ledger.decisions import Decision
from service.ledger.delivery_log import LoggedKind, add_failure, log_replay, write_step
from service.ledger.delivery_order import (
    IS_BLOCKED,
    KEY,
    DeliveryKey,
    is_open_by_key,
    postpone_behind,
    postpone_blocked,
    unblock,
    update_given,
)
from service.ledger.endpoints import is_paused
from service.ledger.sanitizing import escaped
from service.ledger.tables import HAS_EVENT, deliveries, events

_LONGEST_ERROR = 500

_FIND_DUE = (
    select(*KEY, deliveries.c.due_at, deliveries.c.attempts, deliveries.c.fence, deliveries.c.log)
    .add_columns(events.c.id, events.c.type, events.c.status, events.c.order_type)
    .add_columns(events.c.body, events.c.traceparent, events.c.observed_at)
    .join(events, HAS_EVENT)
    .where(deliveries.c.endpoint == bindparam("of_endpoint"), deliveries.c.state == "open")
    .where(deliveries.c.due_at <= bindparam("now"), ~IS_BLOCKED, ~is_paused(bindparam("of_endpoint")))
    .order_by(deliveries.c.due_at)
    .limit(bindparam("most"))
    .with_for_update(of=deliveries, skip_locked=True)
)

# On SQLite, which has one writer at a time; PostgreSQL numbers its transactions itself.
_NEXT_TXID = select(func.coalesce(func.max(events.c.txid), 0) + 1)


class _Statements:
    def __init__(self, dialect: str) -> None:
        self.rows = GivenRows(dialect)
        fence, state, due_at, settled_at, error, log = range(len(KEY), len(KEY) + 6)
        taken = {"attempts": deliveries.c.attempts + 1, "fence": deliveries.c.fence + 1}
        self.lease = update_given(self.rows).values(due_at=bindparam("until"), **taken)
        is_held = and_(deliveries.c.fence == self.rows.number(fence), is_open_by_key(deliveries))
        held = update_given(self.rows).where(is_held).returning(*KEY)
        self.settle = held.values(
            state=self.rows.text(state),
            due_at=func.coalesce(self.rows.time(due_at), deliveries.c.due_at),
            settled_at=self.rows.time(settled_at),
            last_error=self.rows.text(error),
            log=self.rows.text(log),
        )
        # The higher fencing token keeps a repeat (after an unconfirmed commit) from taking off a second try.
        given_back = {"attempts": deliveries.c.attempts - 1, "fence": deliveries.c.fence + 1}
        self.release = held.values(due_at=bindparam("now"), **given_back)
        anew = {"state": "open", "attempts": 0, "fence": deliveries.c.fence + 1, "settled_at": None}
        self.anew = {**anew, "due_at": bindparam("now"), "log": log_replay(dialect)}
        self.reopen = update_given(self.rows).values(**self.anew)


_statements = cache(_Statements)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery(SerializedEvent):
    """An event that is leased to us, to be sent to one endpoint."""

    endpoint: str
    type: EventType
    status: OrderStatus
    biz_order_no: str
    sequence: int
    #: 1, 2, 3 ...; a try that a crash interrupted counts.
    attempt: int
    #: When the claim behind it was stated, aware; the column may be NULL.
    observed_at: datetime | None
    #: The fencing token: the next lease of this delivery has a higher one.
    fence: int
    #: What happened before, as delivery_log.py writes it.
    log: str

    @property
    def order(self) -> OrderKey:
        """The order whose status changed."""
        return OrderKey(self.merchant, self.biz_order_no)

    @property
    def key(self) -> DeliveryKey:
        """What names the delivery."""
        return self.merchant, self.biz_order_no, self.endpoint, self.sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDelivery:
    """A failed try, and what is to become of the delivery."""

    delivery: DueDelivery
    #: For people; kept short and without personal data.
    error: str
    #: Seconds until its next try; None parks it until a person replays it.
    wait_seconds: float | None


class Outbox:
    """Deliveries that are due. Safe to share between threads; any number of processes may lease at once.

    Every method raises LedgerUnavailable while the database cannot be used; calling again is safe.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to give all processes the same time."""
        self._engine = engine
        self._clock = clock

    def lease_due(self, *, endpoint: str, limit: int, lease_seconds: float) -> Sequence[DueDelivery]:
        """Lease at most `limit` due deliveries of an endpoint, those that have waited longest first.

        Only the lowest open sequence of an order can be leased, so that its events arrive in order; a parked one blocks
        none. Nobody else gets them until they are settled or `lease_seconds` have passed. Returns none while the
        endpoint is paused.
        """
        lease = timedelta(seconds=lease_seconds)
        return write(
            self._engine, lambda connection: _lease(connection, endpoint, limit, self._clock(connection), lease)
        )

    def settle_delivered(self, sent: Sequence[DueDelivery]) -> Sequence[DueDelivery]:
        """Mark deliveries as done, in one transaction; returns those whose lease was lost meanwhile.

        Those were or will be sent again by another process; downstream recognises them by the event's id.
        """
        return write(self._engine, lambda connection: _finish(connection, sent, self._clock(connection)))

    def settle_failed(self, failed: Sequence[FailedDelivery]) -> Sequence[DueDelivery]:
        """Release deliveries to be tried again, or park them, in one transaction; returns those whose lease was lost.

        Later events of an order wait for a delivery that is tried again, but not for a parked one.
        """
        return write(self._engine, lambda connection: _give_up(connection, failed, self._clock(connection)))

    def release(self, unsent: Sequence[DueDelivery]) -> None:
        """Release deliveries that were not tried: they are due at once, and no try is counted."""
        write(self._engine, lambda connection: _release(connection, unsent, self._clock(connection)))

    def is_paused(self, endpoint: str) -> bool:
        """Whether an operator has paused the endpoint. What was leased before stays leased until it is released."""
        paused = read(self._engine, lambda connection: connection.execute(select(is_paused(endpoint))).scalar_one())
        return bool(paused)

    def replay(self, event_ids: Sequence[str], *, endpoint: str, author: Author) -> int:
        """Send events to an endpoint again, as new, whatever their state; how many were found."""
        chosen = exists().where(HAS_EVENT, events.c.id.in_(event_ids))
        return self._replay(chosen, endpoint, ", ".join(event_ids), author)

    def replay_parked(self, *, endpoint: str, author: Author) -> int:
        """Send all parked events of an endpoint again, as new; how many."""
        return self._replay(deliveries.c.state == "parked", endpoint, "all that were parked", author)

    def oldest_open_age(self, *, endpoint: str | None = None) -> timedelta | None:
        """How long the oldest undelivered event has waited, for one endpoint or for any; None where none waits."""
        query = select(func.min(deliveries.c.created_at)).where(deliveries.c.state == "open")
        if endpoint is not None:
            query = query.where(deliveries.c.endpoint == endpoint)

        def measure(connection: Connection) -> timedelta | None:
            oldest = connection.execute(query).scalar_one()
            return None if oldest is None else self._clock(connection) - oldest

        return read(self._engine, measure)

    def oldest_open_ages(self, endpoints: Collection[str]) -> Mapping[str, float]:
        """The same for each of `endpoints`, in seconds; 0 where nothing waits."""
        ages = {name: self.oldest_open_age(endpoint=name) for name in endpoints}
        return {name: 0.0 if age is None else max(age.total_seconds(), 0.0) for name, age in ages.items()}

    def _replay(self, chosen: ColumnElement[bool], endpoint: str, named: str, author: Author) -> int:
        found = update(deliveries).where(deliveries.c.endpoint == endpoint, chosen).returning(deliveries.c.sequence)

        def reopen_chosen(connection: Connection) -> int:
            now = self._clock(connection)
            statement = found.values(**_statements(connection.dialect.name).anew)
            number = len(connection.execute(statement, _replayed(author, now)).all())
            record_change(connection, Action.REPLAY, f"{endpoint}: {number} events ({named})", author, at=now)
            return number

        return write(self._engine, reopen_chosen)


def reopen(connection: Connection, chosen: Collection[DeliveryKey], *, author: Author, now: datetime) -> None:
    """Make deliveries due again, as new, whatever their state."""
    if chosen:
        statements = _statements(connection.dialect.name)
        connection.execute(statements.reopen, {**statements.rows.parameter(chosen), **_replayed(author, now)})


def _replayed(author: Author, now: datetime) -> Mapping[str, Any]:
    detail = f"{author.name}: {author.reason}"
    return {"now": now, "replay": write_step(LoggedKind.REPLAYED, detail, at=now)}


def enqueue(connection: Connection, decisions: Collection[Decision], *, now: datetime) -> None:
    """Record the events of the decisions, and their deliveries to every endpoint that receives them, due now."""
    made = [event for decision in decisions for event in decision.events]
    due = [delivery for decision in decisions for delivery in decision.deliveries]
    made_here: dict[str, Any] = {"created_at": now}
    if made and connection.dialect.name == "sqlite":
        made_here["txid"] = connection.execute(_NEXT_TXID).scalar_one()
    insert_new(connection, events, [_event_row(event) for event in made], constants=made_here)
    unsent = {
        "state": "open",
        "due_at": now,
        "attempts": 0,
        "fence": 0,
        "last_error": "",
        "created_at": now,
        "settled_at": None,
    }
    insert_new(connection, deliveries, [_delivery_row(event, name) for event, name in due], constants=unsent)


def _lease(
    connection: Connection, endpoint: str, limit: int, now: datetime, lease_time: timedelta
) -> Sequence[DueDelivery]:
    until = now + lease_time
    rows = connection.execute(_FIND_DUE, {"of_endpoint": endpoint, "now": now, "most": limit}).all()
    due = [_due(row) for row in rows]
    if due:
        statements = _statements(connection.dialect.name)
        keys = statements.rows.parameter(delivery.key for delivery in due)
        connection.execute(statements.lease, {**keys, "until": until})
    # Only as far as the search above went.
    searched_until = rows[-1].due_at if len(rows) == limit else now
    postpone_blocked(connection, endpoint, due_before=searched_until, waits_beyond=until)
    return due


def _finish(connection: Connection, sent: Sequence[DueDelivery], now: datetime) -> Sequence[DueDelivery]:
    rows = [(*one.key, one.fence, "delivered", None, now, "", one.log) for one in sent]
    done = _settle(connection, rows)
    unblock(connection, done)
    return [delivery for delivery in sent if delivery.key not in done]


def _give_up(connection: Connection, failed: Sequence[FailedDelivery], now: datetime) -> Sequence[DueDelivery]:
    rows: list[tuple[object, ...]] = []
    retried, parked = {}, set()
    for one in failed:
        key, held, error = one.delivery.key, (*one.delivery.key, one.delivery.fence), _kept(one.error)
        log = add_failure(one.delivery.log, at=now, error=error)
        if one.wait_seconds is None:
            parked.add(key)
            rows.append((*held, "parked", None, now, error, log))
        else:
            retried[key] = now + timedelta(seconds=one.wait_seconds)
            rows.append((*held, "open", retried[key], None, error, log))
    done = _settle(connection, rows)
    postpone_behind(connection, {key: at for key, at in retried.items() if key in done})
    unblock(connection, parked & done)
    return [one.delivery for one in failed if one.delivery.key not in done]


def _settle(connection: Connection, rows: Sequence[Sequence[object]]) -> set[DeliveryKey]:
    """Settle the rows' deliveries that are open and have the row's fencing token; the keys of those settled."""
    if not rows:
        return set()
    statements = _statements(connection.dialect.name)
    done = connection.execute(statements.settle, statements.rows.parameter(rows))
    return {(row.merchant, row.biz_order_no, row.endpoint, row.sequence) for row in done}


def _release(connection: Connection, unsent: Sequence[DueDelivery], now: datetime) -> None:
    if unsent:
        statements = _statements(connection.dialect.name)
        held = statements.rows.parameter((*delivery.key, delivery.fence) for delivery in unsent)
        connection.execute(statements.release, {**held, "now": now})


def _due(row: Row[Any]) -> DueDelivery:
    return DueDelivery(
        endpoint=row.endpoint,
        event_id=row.id,
        type=EventType(row.type),
        merchant=row.merchant,
        biz_order_no=row.biz_order_no,
        sequence=row.sequence,
        order_type=row.order_type,
        status=OrderStatus(row.status),
        body=row.body,
        traceparent=row.traceparent,
        attempt=row.attempts + 1,
        observed_at=row.observed_at,
        fence=row.fence + 1,
        log=row.log,
    )


def _kept(error: str) -> str:
    return mask_personal(escaped(error))[:_LONGEST_ERROR]


def _event_row(event: PaymentEvent) -> dict[str, Any]:
    return {
        "merchant": event.merchant,
        "biz_order_no": event.biz_order_no,
        "sequence": event.sequence,
        "id": event.id,
        "type": event.type,
        "status": event.status,
        "order_type": event.order_type,
        "body": write_event(event),
        "traceparent": event.traceparent,
        "observed_at": event.observed_at,
    }


def _delivery_row(event: PaymentEvent, endpoint: str) -> dict[str, Any]:
    return {
        "merchant": event.merchant,
        "biz_order_no": event.biz_order_no,
        "endpoint": endpoint,
        "sequence": event.sequence,
    }
