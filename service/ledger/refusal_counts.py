"""Counts of refused callbacks: the largest that each process of the receiver has told of, added up for a day."""

from collections.abc import Mapping, Sequence
from datetime import date

from sqlalchemy import Connection, func, select

from service.domain.refusals import RefusalCount
from service.ledger.inserts import insert_or_update
from service.ledger.tables import refusals


def record_refusals(connection: Connection, counts: Sequence[RefusalCount]) -> None:
    """Keep these counts, except those that are smaller than what is known. Applying them again changes nothing."""
    largest: dict[tuple[str, str, str, str], int] = {}
    for count in counts:
        key = (count.merchant, count.day.isoformat(), count.reason, count.process)
        largest[key] = max(largest.get(key, 0), count.callbacks)
    names = [column.name for column in refusals.primary_key]
    # In the order of their keys, so that two consumers wait for one another and never both.
    rows = [{**dict(zip(names, key, strict=True)), "callbacks": largest[key]} for key in sorted(largest)]
    insert_or_update(connection, refusals, rows, growing="callbacks")


def count_refusals(connection: Connection, merchant: str, day: date) -> Mapping[str, int]:
    """Callbacks refused on a day by reason, the most frequent first; `merchant` is "" for addresses of none."""
    callbacks = func.sum(refusals.c.callbacks)
    query = (
        select(refusals.c.reason, callbacks)
        .where(refusals.c.merchant == merchant, refusals.c.day == day.isoformat())
        .group_by(refusals.c.reason)
        .order_by(callbacks.desc(), refusals.c.reason)
    )
    return {reason: int(count) for reason, count in connection.execute(query)}
