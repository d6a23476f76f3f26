"""Delivery order: an endpoint gets a later event of an order only once the earlier ones are delivered or parked.

A delivery behind an open earlier one of its order and endpoint is *blocked*. It cannot be leased, but it is due from
the moment it is made, so while an endpoint is down every lease would have to step over all blocked deliveries.
Therefore the due time of a blocked delivery follows the next try of the delivery before it, and is set back when that
one is settled.

- This is only for speed. What may be leased is decided without it.
- It happens under the lock on the row of the earlier delivery: nothing is postponed behind a delivery that is being
  settled.
- A delivery that was ever leased keeps its due time, which may be a lease. It can be blocked all the same, where an
  earlier event is replayed.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache

from sqlalchemy import ColumnElement, Connection, FromClause, Update, and_, bindparam, exists, select, update

from service.ledger.bulk import PLANNED_ANEW, GivenRows
from service.ledger.endpoints import is_paused
from service.ledger.tables import about_same_order, deliveries

#: What names a delivery: merchant, order number, endpoint, sequence.
DeliveryKey = tuple[str, str, str, int]

#: The columns of a `DeliveryKey`.
KEY = (deliveries.c.merchant, deliveries.c.biz_order_no, deliveries.c.endpoint, deliveries.c.sequence)

# In one transaction; the rest is for the next one.
_MAX_AT_ONCE = 500
_NEVER_LEASED = and_(deliveries.c.state == "open", deliveries.c.attempts == 0)


def is_open_by_key(delivery: FromClause) -> ColumnElement[bool]:
    """Whether a delivery that is found by its order is open.

    For a plain comparison, PostgreSQL may take an index of an endpoint's open deliveries, and read all of them for each
    order. It does if it believes that there are few, as it does of a table that was not analyzed since an outage began.
    Nothing was delivered to an endpoint then, because each lease took longer than it lasted. No index fits this one.
    """
    return delivery.c.state.concat("") == "open"


_earlier = deliveries.alias("earlier")
# Whether a row of `deliveries` waits for one of `_earlier`.
_IS_BEHIND_EARLIER = and_(
    about_same_order(_earlier, deliveries),
    _earlier.c.endpoint == deliveries.c.endpoint,
    _earlier.c.sequence < deliveries.c.sequence,
    is_open_by_key(_earlier),
)
#: Whether a delivery is blocked.
IS_BLOCKED = exists().where(_IS_BEHIND_EARLIER)

_FIND_BLOCKED = (
    select(*KEY, _earlier.c.due_at)
    .join(_earlier, _IS_BEHIND_EARLIER)
    .where(deliveries.c.endpoint == bindparam("of_endpoint"), deliveries.c.due_at < bindparam("due_before"))
    .where(_NEVER_LEASED, _earlier.c.due_at > bindparam("waits_beyond"))
    # Without this, it would read all deliveries of a paused endpoint.
    .where(~is_paused(bindparam("of_endpoint")))
    .order_by(deliveries.c.due_at)
    .limit(_MAX_AT_ONCE)
    .with_for_update(skip_locked=True)
)


def update_given(rows: GivenRows) -> Update:
    """An update of the deliveries that the rows name; each row begins with a `DeliveryKey`."""
    return _update_of_given_orders(rows).where(deliveries.c.sequence == rows.number(len(KEY) - 1))


def _update_of_given_orders(rows: GivenRows) -> Update:
    """An update of all deliveries of the rows' orders to the rows' endpoints."""
    is_of_row = [column == rows.text(place) for place, column in enumerate(KEY[:-1])]
    return update(deliveries).where(*is_of_row).execution_options(**{PLANNED_ANEW: True})


class _Statements:
    def __init__(self, dialect: str) -> None:
        self.rows = GivenRows(dialect)
        until = self.rows.time(len(KEY))
        of_orders = _update_of_given_orders(self.rows).where(is_open_by_key(deliveries), deliveries.c.attempts == 0)
        self.postpone = update_given(self.rows).values(due_at=until)
        self.postpone_later = of_orders.where(deliveries.c.sequence > self.rows.number(len(KEY) - 1)).values(
            due_at=until
        )
        was_postponed = deliveries.c.due_at != deliveries.c.created_at
        self.unblock = of_orders.where(was_postponed).values(due_at=deliveries.c.created_at)


_statements = cache(_Statements)


def postpone_blocked(connection: Connection, endpoint: str, *, due_before: datetime, waits_beyond: datetime) -> None:
    """Postpone deliveries due before `due_before` that are blocked by one that is not due until after `waits_beyond`.

    Skips what another transaction has locked, and so never waits.
    """
    limits = {"of_endpoint": endpoint, "due_before": due_before, "waits_beyond": waits_beyond}
    if blocked := connection.execute(_FIND_BLOCKED, limits).all():
        statements = _statements(connection.dialect.name)
        connection.execute(statements.postpone, statements.rows.parameter(blocked))


def postpone_behind(connection: Connection, retried: Mapping[DeliveryKey, datetime]) -> None:
    """Postpone what is blocked by deliveries that are tried again, until the time of each one's next try."""
    if retried:
        statements = _statements(connection.dialect.name)
        rows = [(*key, at) for key, at in retried.items()]
        connection.execute(statements.postpone_later, statements.rows.parameter(rows))


def unblock(connection: Connection, settled: Collection[DeliveryKey]) -> None:
    """Set the due time of what was blocked by settled deliveries back to when it was made."""
    if settled:
        statements = _statements(connection.dialect.name)
        connection.execute(statements.unblock, statements.rows.parameter(settled))
