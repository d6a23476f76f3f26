"""Followers: deliveries behind an open earlier one of their order and endpoint.

They cannot be claimed, and yet are due from the moment they are made: while an endpoint is down, each claim would have
to step over all of them. Therefore the due time of a follower goes with that of whoever waits for its next try before
it, and is its own again when that one is settled.

- It is a matter of speed alone. Who may be claimed is decided without it; and a follower whose time nobody gave back (a
  release before this one does not) is due when its predecessor would have been tried again.
- It happens under the lock on the predecessor's row: nothing is postponed behind a delivery that is being settled.
- What was ever claimed keeps its time, which may be a lease. Where an earlier event is replayed, a follower may have
  been claimed.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache

from sqlalchemy import Connection, and_, bindparam, select

from service.ledger.delivery_keys import KEY, DeliveryKey, GivenRows
from service.ledger.pauses import is_paused
from service.ledger.tables import deliveries

# In one transaction; what is left is for the next.
_MOST_AT_ONCE = 500
_NEVER_CLAIMED = and_(deliveries.c.state == "open", deliveries.c.attempts == 0)

_waiting = deliveries.alias("waiting")
_FIND = (
    select(*KEY, _waiting.c.due_at)
    .join(
        _waiting,
        and_(
            _waiting.c.merchant == deliveries.c.merchant,
            _waiting.c.biz_order_no == deliveries.c.biz_order_no,
            _waiting.c.endpoint == deliveries.c.endpoint,
            _waiting.c.sequence < deliveries.c.sequence,
        ),
    )
    .where(deliveries.c.endpoint == bindparam("of_endpoint"), deliveries.c.due_at < bindparam("due_before"))
    .where(_NEVER_CLAIMED, _waiting.c.state == "open", _waiting.c.due_at > bindparam("waits_beyond"))
    # Else it would look at all that waits for the end of the pause.
    .where(~is_paused(bindparam("of_endpoint")))
    .order_by(deliveries.c.due_at)
    .limit(_MOST_AT_ONCE)
    .with_for_update(skip_locked=True)
)


class _Statements:
    """What is executed about many deliveries at once."""

    def __init__(self, dialect: str) -> None:
        self.rows = GivenRows(dialect)
        until = self.rows.time(len(KEY))
        self.postpone = self.rows.update_own.values(due_at=until)
        comes_later = deliveries.c.sequence > self.rows.number(len(KEY) - 1)
        self.take_along = self.rows.update_lines.where(comes_later, _NEVER_CLAIMED).values(due_at=until)
        was_postponed = deliveries.c.due_at != deliveries.c.created_at
        self.free = self.rows.update_lines.where(was_postponed, _NEVER_CLAIMED).values(due_at=deliveries.c.created_at)


_statements = cache(_Statements)


def postpone_followers(connection: Connection, endpoint: str, *, due_before: datetime, waits_beyond: datetime) -> None:
    """Postpone what was due before `due_before` and follows a delivery that is not due until after `waits_beyond`.

    Passes over what another transaction has in hand, and so waits for nobody.
    """
    limits = {"of_endpoint": endpoint, "due_before": due_before, "waits_beyond": waits_beyond}
    if followers := connection.execute(_FIND, limits).all():
        statements = _statements(connection.dialect.name)
        connection.execute(statements.postpone, statements.rows.parameter(followers))


def take_followers_along(connection: Connection, retried: Mapping[DeliveryKey, datetime]) -> None:
    """Postpone what follows deliveries that are tried again, until the time at which each of them is."""
    if retried:
        statements = _statements(connection.dialect.name)
        rows = [(*key, at) for key, at in retried.items()]
        connection.execute(statements.take_along, statements.rows.parameter(rows))


def free_followers(connection: Connection, settled: Collection[DeliveryKey]) -> None:
    """Give what follows deliveries that were settled its own time back: when it was made."""
    if settled:
        statements = _statements(connection.dialect.name)
        connection.execute(statements.free, statements.rows.parameter(settled))
