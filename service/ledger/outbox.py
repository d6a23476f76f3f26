"""The outbox: events on their way to each endpoint, recorded with the change that they tell of, claimed by lease and
settled by fencing number.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, bindparam, exists, func, select, update

from service.domain.claims import OrderKey, OrderStatus
from service.domain.event_schemas import write_event
from service.domain.events import EventType, PaymentEvent
from service.domain.masking import mask_personal
from service.ledger.clock import shared_time
from service.ledger.decisions import Decision
from service.ledger.delivery_keys import KEY, DeliveryKey, GivenRows
from service.ledger.delivery_order import free_followers, postpone_followers, take_followers_along
from service.ledger.errors import LeaseLost
from service.ledger.inserts import insert_new
from service.ledger.pauses import is_paused
from service.ledger.sanitizing import escaped
from service.ledger.tables import deliveries, events
from service.ledger.transactions import read, write

_LONGEST_ERROR = 500
_OF_ITS_EVENT = and_(
    events.c.merchant == deliveries.c.merchant,
    events.c.biz_order_no == deliveries.c.biz_order_no,
    events.c.sequence == deliveries.c.sequence,
)

_earlier = deliveries.alias("earlier")
_IS_HELD_BACK = exists().where(
    _earlier.c.merchant == deliveries.c.merchant,
    _earlier.c.biz_order_no == deliveries.c.biz_order_no,
    _earlier.c.endpoint == deliveries.c.endpoint,
    _earlier.c.sequence < deliveries.c.sequence,
    _earlier.c.state == "open",
)
_FIND_DUE = (
    select(*KEY, deliveries.c.due_at, deliveries.c.attempts, deliveries.c.fence)
    .add_columns(events.c.id, events.c.type, events.c.status, events.c.order_type)
    .add_columns(events.c.body, events.c.traceparent, events.c.observed_at)
    .join(events, _OF_ITS_EVENT)
    .where(deliveries.c.endpoint == bindparam("of_endpoint"), deliveries.c.state == "open")
    .where(deliveries.c.due_at <= bindparam("now"), ~_IS_HELD_BACK, ~is_paused(bindparam("of_endpoint")))
    .order_by(deliveries.c.due_at)
    .limit(bindparam("most"))
    .with_for_update(of=deliveries, skip_locked=True)
)


class _Statements:
    """What is executed about many deliveries at once."""

    def __init__(self, dialect: str) -> None:
        self.rows = GivenRows(dialect)
        fence, state, due_at, settled_at, error = range(len(KEY), len(KEY) + 5)
        taken = {"attempts": deliveries.c.attempts + 1, "fence": deliveries.c.fence + 1}
        self.lease = self.rows.update_own.values(due_at=bindparam("until"), **taken)
        is_held = and_(deliveries.c.fence == self.rows.number(fence), deliveries.c.state == "open")
        held = self.rows.update_own.where(is_held).returning(*KEY)
        self.settle = held.values(
            state=self.rows.text(state),
            due_at=func.coalesce(self.rows.time(due_at), deliveries.c.due_at),
            settled_at=self.rows.time(settled_at),
            last_error=self.rows.text(error),
        )
        # Should the commit not be confirmed, and this be repeated, no second try is taken off.
        given_back = {"attempts": deliveries.c.attempts - 1, "fence": deliveries.c.fence + 1}
        self.release = held.values(due_at=bindparam("now"), **given_back)


_statements = cache(_Statements)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery:
    """An event leased to us for sending to one endpoint."""

    endpoint: str
    event_id: str
    type: EventType
    merchant: str
    biz_order_no: str
    sequence: int
    order_type: str
    status: OrderStatus
    #: The CloudEvent in structured JSON: the same bytes on every attempt and to every endpoint.
    body: bytes
    traceparent: str | None
    #: 1, 2, 3 ...; a try that a crash cut short counts.
    attempt: int
    #: When the claim behind it was stated, aware; None for events that an earlier release made.
    observed_at: datetime | None
    #: Whoever claims the delivery next has a higher one.
    fence: int

    @property
    def order(self) -> OrderKey:
        """The order whose status changed."""
        return OrderKey(self.merchant, self.biz_order_no)

    @property
    def key(self) -> DeliveryKey:
        """What names the delivery among all."""
        return self.merchant, self.biz_order_no, self.endpoint, self.sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDelivery:
    """A try in vain, and what is to become of the delivery."""

    delivery: DueDelivery
    #: For people; kept short and without personal data.
    error: str
    #: Seconds until its next try; None: it is parked until a person replays it.
    wait_seconds: float | None


class Outbox:
    """Deliveries that are due. Safe to share between threads; any number of processes may claim at once.

    Every method raises LedgerUnavailable while the database cannot be used; calling again is safe.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to tell all processes the same time."""
        self._engine = engine
        self._clock = clock

    def claim_due(self, *, endpoint: str, limit: int, lease_seconds: float) -> Sequence[DueDelivery]:
        """Lease at most `limit` due deliveries of an endpoint, those that have waited longest first.

        Of one order only the lowest open sequence, so that its events arrive in order; parked ones let later ones pass.
        Until settled or `lease_seconds` have passed, nobody else gets them. None while the endpoint is paused.
        """
        lease = timedelta(seconds=lease_seconds)
        return write(
            self._engine, lambda connection: _claim(connection, endpoint, limit, self._clock(connection), lease)
        )

    def settle_delivered(self, sent: Sequence[DueDelivery]) -> Sequence[DueDelivery]:
        """Mark deliveries as done, in one transaction; the answer holds those whose lease was lost meanwhile.

        A lost one has been or will be sent again by another; downstream tells by the event's id.
        """
        return write(self._engine, lambda connection: _finish(connection, sent, self._clock(connection)))

    def settle_failed(self, failed: Sequence[FailedDelivery]) -> Sequence[DueDelivery]:
        """Give deliveries back to be tried again, or park them, in one transaction; the answer holds the lost ones.

        Later events of an order wait for one that is tried again, and pass one that is parked.
        """
        return write(self._engine, lambda connection: _give_up(connection, failed, self._clock(connection)))

    def retry_in(self, delivery: DueDelivery, wait_seconds: float, *, error: str) -> None:
        """Give one delivery back, to be tried again after `wait_seconds`. Raises LeaseLost."""
        self._settle_failed(FailedDelivery(delivery=delivery, error=error, wait_seconds=wait_seconds))

    def park(self, delivery: DueDelivery, *, error: str) -> None:
        """Give one delivery up until a person replays it; later ones of its order pass. Raises LeaseLost."""
        self._settle_failed(FailedDelivery(delivery=delivery, error=error, wait_seconds=None))

    def release(self, unsent: Sequence[DueDelivery]) -> None:
        """Give back deliveries that were not tried after all: due at once, and no try is counted."""
        write(self._engine, lambda connection: _release(connection, unsent, self._clock(connection)))

    def is_paused(self, endpoint: str) -> bool:
        """Whether an operator has paused the endpoint. What was claimed before stays its claimer's until given back."""
        paused = read(self._engine, lambda connection: connection.execute(select(is_paused(endpoint))).scalar_one())
        return bool(paused)

    def replay(self, event_ids: Sequence[str], *, endpoint: str) -> int:
        """Send events to an endpoint again, as new, whatever became of them; how many were found."""
        chosen = exists().where(_OF_ITS_EVENT, events.c.id.in_(event_ids))
        return self._reopen(and_(deliveries.c.endpoint == endpoint, chosen))

    def replay_parked(self, *, endpoint: str) -> int:
        """Send all that is parked for an endpoint again, as new; how many."""
        return self._reopen(and_(deliveries.c.endpoint == endpoint, deliveries.c.state == "parked"))

    def oldest_open_age(self, *, endpoint: str | None = None) -> timedelta | None:
        """How long the oldest undelivered event has waited, for one endpoint or for any; None where none does."""
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

    def count_parked(self, endpoints: Collection[str]) -> Mapping[str, int]:
        """How many events were given up for each of `endpoints` and wait for a person."""
        parked = deliveries.c.state == "parked"
        query = select(deliveries.c.endpoint, func.count()).where(parked).group_by(deliveries.c.endpoint)
        rows = read(self._engine, lambda connection: connection.execute(query).all())
        found: dict[str, int] = {row[0]: row[1] for row in rows}
        return {name: found.get(name, 0) for name in endpoints}

    def _settle_failed(self, failed: FailedDelivery) -> None:
        if self.settle_failed([failed]):
            raise LeaseLost(f"{failed.delivery.event_id} to {failed.delivery.endpoint}")

    def _reopen(self, chosen: Any) -> int:
        anew = {"state": "open", "attempts": 0, "fence": deliveries.c.fence + 1, "settled_at": None}
        statement = update(deliveries).where(chosen).values(anew).returning(deliveries.c.sequence)
        return write(
            self._engine,
            lambda connection: len(connection.execute(statement.values(due_at=self._clock(connection))).all()),
        )


def enqueue(connection: Connection, decided: Collection[Decision], *, now: datetime) -> None:
    """Record the events of all that was decided, and a delivery of each to every endpoint that receives it, due now."""
    told = [event for decision in decided for event in decision.events]
    due = [delivery for decision in decided for delivery in decision.deliveries]
    insert_new(connection, events, [_event_row(event) for event in told], same={"created_at": now})
    unsent = {
        "state": "open",
        "due_at": now,
        "attempts": 0,
        "fence": 0,
        "last_error": "",
        "created_at": now,
        "settled_at": None,
    }
    insert_new(connection, deliveries, [_delivery_row(event, name) for event, name in due], same=unsent)


def _claim(connection: Connection, endpoint: str, limit: int, now: datetime, lease: timedelta) -> Sequence[DueDelivery]:
    until = now + lease
    rows = connection.execute(_FIND_DUE, {"of_endpoint": endpoint, "now": now, "most": limit}).all()
    due = [_due(row) for row in rows]
    if due:
        statements = _statements(connection.dialect.name)
        keys = statements.rows.parameter(delivery.key for delivery in due)
        connection.execute(statements.lease, {**keys, "until": until})
    # No further than the search above has gone.
    searched_until = rows[-1].due_at if len(rows) == limit else now
    postpone_followers(connection, endpoint, due_before=searched_until, waits_beyond=until)
    return due


def _finish(connection: Connection, sent: Sequence[DueDelivery], now: datetime) -> Sequence[DueDelivery]:
    done = _settle(connection, [(*delivery.key, delivery.fence, "delivered", None, now, "") for delivery in sent])
    free_followers(connection, done)
    return [delivery for delivery in sent if delivery.key not in done]


def _give_up(connection: Connection, failed: Sequence[FailedDelivery], now: datetime) -> Sequence[DueDelivery]:
    rows: list[tuple[object, ...]] = []
    retried, parked = {}, set()
    for one in failed:
        key, held, error = one.delivery.key, (*one.delivery.key, one.delivery.fence), _kept(one.error)
        if one.wait_seconds is None:
            parked.add(key)
            rows.append((*held, "parked", None, now, error))
        else:
            retried[key] = now + timedelta(seconds=one.wait_seconds)
            rows.append((*held, "open", retried[key], None, error))
    done = _settle(connection, rows)
    take_followers_along(connection, {key: at for key, at in retried.items() if key in done})
    free_followers(connection, parked & done)
    return [one.delivery for one in failed if one.delivery.key not in done]


def _settle(connection: Connection, rows: Sequence[Sequence[object]]) -> set[DeliveryKey]:
    """The keys of those that were settled: each row's delivery, where it is open and its fence is still the row's."""
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
