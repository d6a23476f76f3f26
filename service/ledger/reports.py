"""Reports: how complete a day was, counted over the orders that became known on that day."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

from sqlalchemy import ColumnElement, Connection, Engine, Table, case, func, literal_column, select

from service.domain.claims import ClaimSource, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.masking import mask_personal
from service.domain.order_state import Verdict
from service.domain.refusals import RefusalCount
from service.ledger.bulk import insert_or_update
from service.ledger.database import allow_longer, read
from service.ledger.tables import claims, events, inquiries, orders, refusals

_TERMINAL = tuple(status.value for status in OrderStatus if status.terminal)
# A reason quotes the callback, so forged callbacks can produce any number of reasons.
_MOST_REASONS = 20
_MOST_SECONDS = 600
_NOT_COUNTED = (Verdict.UNTRUSTED.value, Verdict.QUARANTINED.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lags:
    """The time from the orders' `pay_time` to their succeeded events, in seconds; None where there were none.

    It is negative where the gateway's clock is ahead of ours.
    """

    median_seconds: float | None
    p99_seconds: float | None
    #: The number of orders measured: those that succeeded with a time of payment.
    orders: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DayReport:
    """One merchant's orders that became known on one day, by their present state.

    An order becomes known when it is announced, or with the first trusted claim about it.
    """

    merchant: str
    orders: int
    announced: int
    #: With at least one callback, however little it is trusted.
    called_back: int
    #: About which the gateway was asked at least once.
    asked: int
    #: For which the gateway's answer was a claim.
    answered: int
    #: Without a terminal status, or in conflict.
    still_open: int
    #: Whose trusted claims contradicted each other, whether or not that is settled now.
    conflicts: int
    #: Callbacks about any order that were recorded on that day and did not count, by reason, the most frequent first.
    not_counted: Mapping[str, int]
    #: Callbacks that the receiver refused on that day, by reason, the most frequent first.
    refused: Mapping[str, int]
    lags: Lags


class Reports:
    """Reads the ledger for reports. Safe to share between threads. Every method raises LedgerUnavailable."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def read_day(self, merchant: str, day: date, *, time_zone: tzinfo) -> DayReport:
        """The report of one day in the merchant's time zone."""
        return read(self._engine, lambda connection: _read_day(connection, merchant, day, time_zone))

    def refused_for_nobody(self, day: date) -> int:
        """Callbacks refused on a day (UTC) because their address named no configured merchant."""
        return read(self._engine, lambda connection: sum(count_refusals(connection, "", day).values()))

    def last_claims(self, merchants: Mapping[str, Trust]) -> Mapping[tuple[str, ClaimSource], datetime]:
        """When each merchant's gateway last sent a callback or an answer; one that never did has no entry.

        `merchants` gives the least trust that a callback must have: a forgeable callback does not show that a gateway
        works whose callbacks normally have more.
        """
        return read(self._engine, lambda connection: _last_claims(connection, merchants))


def _read_day(connection: Connection, merchant: str, day: date, time_zone: tzinfo) -> DayReport:
    # From midnight to midnight: where clocks are changed, a day has 23 or 25 hours.
    since, until = (datetime.combine(day + timedelta(days=n), time.min, time_zone) for n in (0, 1))
    # It reads all orders of a day.
    allow_longer(connection, seconds=_MOST_SECONDS)
    of_day = (orders.c.merchant == merchant) & (orders.c.created_at >= since) & (orders.c.created_at < until)
    believed = select(
        func.count().label("orders"),
        func.count(orders.c.announced_at).label("announced"),
        _number(orders.c.status.not_in(_TERMINAL) | orders.c.conflicted).label("still_open"),
    ).where(of_day)
    # A join and not a lookup per order: without statistics, PostgreSQL uses the wrong index for lookups, and takes
    # minutes for 60,000 orders where this takes 3 s.
    claimed = (
        select(
            _orders_with(claims.c.source == ClaimSource.CALLBACK.value).label("called_back"),
            _orders_with(claims.c.source == ClaimSource.QUERY.value).label("answered"),
            _orders_with(orders.c.conflicted | (claims.c.verdict == Verdict.CONFLICT.value)).label("conflicts"),
        )
        .select_from(orders)
        .join(claims, _about_the_order(claims))
        .where(of_day)
    )
    asked = (
        select(func.count(inquiries.c.last_asked_at).label("asked"))
        .select_from(orders)
        .join(inquiries, _about_the_order(inquiries))
        .where(of_day)
    )
    counts = [connection.execute(query).one()._mapping for query in (believed, claimed, asked)]
    succeeded = (
        select(orders.c.paid_at, func.min(events.c.created_at))
        .join(events, _about_the_order(events))
        .where(of_day, orders.c.paid_at.is_not(None), events.c.type == EventType.SUCCEEDED.value)
        .group_by(orders.c.merchant, orders.c.biz_order_no, orders.c.paid_at)
    )
    return DayReport(
        merchant=merchant,
        not_counted=_count_by_reason(connection, merchant, since, until),
        refused=count_refusals(connection, merchant, day),
        lags=_measure([(at - paid_at).total_seconds() for paid_at, at in connection.execute(succeeded)]),
        **{name: count or 0 for counted in counts for name, count in counted.items()},
    )


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _orders_with(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count(case((condition, claims.c.biz_order_no)).distinct())


def _about_the_order(table: Table) -> ColumnElement[bool]:
    return (table.c.merchant == orders.c.merchant) & (table.c.biz_order_no == orders.c.biz_order_no)


def _count_by_reason(connection: Connection, merchant: str, since: datetime, until: datetime) -> Mapping[str, int]:
    query = (
        select(claims.c.verdict, claims.c.quarantine, func.count().label("callbacks"))
        .where(
            claims.c.merchant == merchant,
            claims.c.source == ClaimSource.CALLBACK.value,
            claims.c.recorded_at >= since,
            claims.c.recorded_at < until,
            claims.c.verdict.in_(_NOT_COUNTED),
        )
        .group_by(claims.c.verdict, claims.c.quarantine)
        .order_by(func.count().desc(), claims.c.verdict, claims.c.quarantine)
    )
    reasons: Counter[str] = Counter()
    for place, row in enumerate(connection.execute(query)):
        why = mask_personal(row.quarantine or "") if place < _MOST_REASONS else "other reasons"
        reasons[f"{row.verdict}: {why}" if why else str(row.verdict)] += row.callbacks
    return dict(reasons)


def _measure(lags: Sequence[float]) -> Lags:
    ordered = sorted(lags)
    return Lags(median_seconds=_percentile(ordered, 0.5), p99_seconds=_percentile(ordered, 0.99), orders=len(ordered))


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile, which is one of the measured values."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1] if ordered else None


def _last_claims(connection: Connection, merchants: Mapping[str, Trust]) -> Mapping[tuple[str, ClaimSource], datetime]:
    found = {}
    for merchant, least in sorted(merchants.items()):
        for source in (ClaimSource.CALLBACK, ClaimSource.QUERY):
            last = select(func.max(claims.c.recorded_at)).where(
                claims.c.merchant == merchant, claims.c.source == source.value
            )
            if least > Trust.CHECKSUM:
                # A literal and not a parameter: otherwise the partial index would not be used.
                last = last.where(claims.c.trust > literal_column(str(int(Trust.CHECKSUM))))
            if (recorded_at := connection.execute(last).scalar()) is not None:
                found[merchant, source] = recorded_at
    return found


def record_refusals(connection: Connection, counts: Sequence[RefusalCount]) -> None:
    """Store these counts, except those that are smaller than the stored ones. Repeating it changes nothing."""
    largest: dict[tuple[str, str, str, str], int] = {}
    for count in counts:
        key = (count.merchant, count.day.isoformat(), count.reason, count.process)
        largest[key] = max(largest.get(key, 0), count.callbacks)
    names = [column.name for column in refusals.primary_key]
    # In the order of their keys, so that two consumers never wait for each other at once.
    rows = [{**dict(zip(names, key, strict=True)), "callbacks": largest[key]} for key in sorted(largest)]
    insert_or_update(connection, refusals, rows, growing="callbacks")


def count_refusals(connection: Connection, merchant: str, day: date) -> Mapping[str, int]:
    """Callbacks refused on a day by reason, the most frequent first; `merchant` is "" for unknown addresses."""
    callbacks = func.sum(refusals.c.callbacks)
    query = (
        select(refusals.c.reason, callbacks)
        .where(refusals.c.merchant == merchant, refusals.c.day == day.isoformat())
        .group_by(refusals.c.reason)
        .order_by(callbacks.desc(), refusals.c.reason)
    )
    return {reason: int(count) for reason, count in connection.execute(query)}
