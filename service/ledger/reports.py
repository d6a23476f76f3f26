"""Reports: how complete a day was, counted over the orders that became known on that day, and which are not final."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, case, func, literal_column, select, tuple_

from service.domain.claims import ClaimSource, IdentityField, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.masking import mask_personal
from service.domain.order_state import STATUS, Verdict
from service.domain.refusals import RefusalCount
from service.ledger.attention import CAUSES, AttentionFilter, AttentionItem, AttentionKind, AttentionList, items_at
from service.ledger.bulk import insert_new, insert_or_update
from service.ledger.database import allow_longer, read, shared_time
from service.ledger.inquiries import InquiryState
from service.ledger.tables import about_same_order, claims, events, inquiries, orders, refusals, to_record
from service.ledger.totals import Counted, Series, add_totals

_TERMINAL = tuple(status.value for status in OrderStatus if status.terminal)
# A reason quotes the callback, so forged callbacks can produce any number of reasons.
_MAX_REASONS = 20
_MAX_SECONDS = 600
#: How many orders of a day, and how many items of the attention list, a report names.
MAX_NAMED = 1000
_MOVING = tuple(verdict.value for verdict in Verdict if verdict.moves)
_IS_OPEN = orders.c.status.not_in(_TERMINAL) | orders.c.conflicted
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
class StatusSum:
    """The orders of one day that have one status, and their amounts in one unit."""

    status: OrderStatus
    #: None for the orders whose amount is unknown.
    amount_unit: str | None
    orders: int
    #: The exact sum; None where the amounts are unknown.
    amount: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOrder:
    """An order without a final status or in conflict, and why."""

    biz_order_no: str
    status: OrderStatus
    conflicted: bool
    amount: str | None
    amount_unit: str | None
    #: When it became known.
    created_at: datetime
    #: What is being done about it, or that nothing is.
    explanation: str
    #: Whether no person has to look: somebody has acknowledged it, or its answer is still expected.
    explained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DayReport:
    """One merchant's orders that became known on one day, by their present state.

    An order becomes known when it is announced, or with the first trusted claim about it.
    """

    merchant: str
    #: In the merchant's own time zone.
    day: date
    orders: int
    announced: int
    #: With at least one callback, however little it is trusted.
    called_back: int
    #: About which the gateway was asked at least once.
    asked: int
    #: For which the gateway's answer was a claim.
    answered: int
    #: Without any callback, whose final status the gateway's answer told.
    recovered: int
    #: Without a final status, or in conflict.
    still_open: int
    #: Whose trusted claims contradict each other or the announcement now.
    in_dispute: int
    #: Whose trusted claims ever contradicted each other or the announcement, whether or not that is settled now.
    conflicts: int
    statuses: Sequence[StatusSum]
    #: When the first and the last recorded callback of that day arrived; None where there was none.
    first_callback_at: datetime | None
    last_callback_at: datetime | None
    #: Callbacks about any order that were recorded on that day and did not count, by reason, the most frequent first.
    not_counted: Mapping[str, int]
    #: Callbacks that the receiver refused on that day, by reason, the most frequent first.
    refused: Mapping[str, int]
    lags: Lags
    #: The orders behind `still_open`, oldest first; at most MAX_NAMED, those first that nothing explains.
    open_orders: Sequence[OpenOrder]
    #: How many open orders nothing explains, named or not.
    unexplained: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """How far a merchant's orders of one day are."""

    merchant: str
    #: In the merchant's own time zone.
    day: date
    #: Orders that became known on that day.
    orders: int
    #: Of these, those without a final status, and those with one that is in conflict.
    still_open: int
    in_dispute: int

    @property
    def settled(self) -> int:
        """Orders with a final status that nothing contradicts."""
        return self.orders - self.still_open - self.in_dispute


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is reported of some days."""

    days: Sequence[DayReport]
    #: Callbacks refused on these days (UTC) because their address named no configured merchant.
    refused_for_no_merchant: int
    #: What waits for a person now and nobody has acknowledged, the longest first; at most MAX_NAMED.
    attention: Sequence[AttentionItem]

    @property
    def explained(self) -> bool:
        """Whether no person has to look at anything."""
        return not self.attention and not any(day.unexplained for day in self.days)


class Reports:
    """Reads the ledger for reports. Safe to share between threads. Every method raises LedgerUnavailable."""

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to give all processes the same time."""
        self._engine = engine
        self._clock = clock

    def read_report(
        self,
        zones: Mapping[str, tzinfo],
        *,
        since: date | None = None,
        until: date | None = None,
        only: Collection[str] = (),
    ) -> Report:
        """The report of each merchant in `zones` for each day in its own time zone, both days included.

        The default for `until` is yesterday, or `since` where that is later; the default for `since` is `until`. `only`
        restricts the report to these merchants; without it, what waits for a person and belongs to none is included.
        """
        now = read(self._engine, self._clock)
        days = [
            self.read_day(merchant, day, time_zone=zone)
            for merchant, zone in sorted(zones.items())
            if not only or merchant in only
            for day in _days(since, until, today=now.astimezone(zone).date())
        ]
        attention = AttentionList(engine=self._engine, clock=self._clock)
        chosen = [AttentionFilter(merchant=merchant) for merchant in sorted(only)] or [AttentionFilter()]
        return Report(
            days=days,
            refused_for_no_merchant=sum(map(self.refused_for_nobody, _days(since, until, today=now.date()))),
            attention=[item for some in chosen for item in attention.list(some, limit=MAX_NAMED)][:MAX_NAMED],
        )

    def read_completeness(self, zones: Mapping[str, tzinfo]) -> Sequence[Completeness]:
        """How far the orders are that each merchant in `zones` has had since midnight, in its own time zone."""
        return read(
            self._engine,
            lambda connection: [
                _read_completeness(connection, merchant, zone, now=self._clock(connection))
                for merchant, zone in sorted(zones.items())
            ],
        )

    def read_day(self, merchant: str, day: date, *, time_zone: tzinfo) -> DayReport:
        """The report of one day in the merchant's time zone."""
        return read(
            self._engine,
            lambda connection: _read_day(connection, merchant, day, time_zone, now=self._clock(connection)),
        )

    def last_claims(self, merchants: Mapping[str, Trust]) -> Mapping[tuple[str, ClaimSource], datetime]:
        """When each merchant's gateway last sent a callback or an answer; one that never did has no entry.

        `merchants` gives the least trust that a callback must have: a forgeable callback does not show that a gateway
        works whose callbacks normally have more.
        """
        return read(self._engine, lambda connection: _last_claims(connection, merchants))

    def refused_for_nobody(self, day: date) -> int:
        """Callbacks refused on a day (UTC) because their address named no configured merchant."""
        return read(self._engine, lambda connection: sum(count_refusals(connection, "", day).values()))

    def disputed_ratios(self, merchants: Collection[str], *, since: datetime) -> Mapping[tuple[str, str], float]:
        """The share of each merchant's orders, known since then, that were ever in dispute, by merchant and field.

        It is between 0 and 1, and 0 for a merchant without orders.
        """
        return read(self._engine, lambda connection: _disputed_ratios(connection, merchants, since))

    def count_explained(
        self, merchants: Collection[str], *, since: datetime, until: datetime
    ) -> Mapping[tuple[str, bool], int]:
        """How many orders of each merchant, known since then and before `until`, are explained now, and are not."""
        return read(
            self._engine,
            lambda connection: _count_explained(connection, merchants, since, until, now=self._clock(connection)),
        )


def _days(since: date | None, until: date | None, *, today: date) -> Sequence[date]:
    yesterday = today - timedelta(days=1)
    last = until or max(since or yesterday, yesterday)
    first = since or last
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _read_day(connection: Connection, merchant: str, day: date, time_zone: tzinfo, *, now: datetime) -> DayReport:
    # From midnight to midnight: where clocks are changed, a day has 23 or 25 hours.
    since, until = (datetime.combine(day + timedelta(days=n), time.min, time_zone) for n in (0, 1))
    # It reads all orders of a day.
    allow_longer(connection, seconds=_MAX_SECONDS)
    of_day = (orders.c.merchant == merchant) & (orders.c.created_at >= since) & (orders.c.created_at < until)
    believed = select(
        func.count().label("orders"),
        func.count(orders.c.announced_at).label("announced"),
        _number(_IS_OPEN).label("still_open"),
        _number(orders.c.conflicted).label("in_dispute"),
        func.count(orders.c.disputed_fields).label("conflicts"),
    ).where(of_day)
    # A join and not a lookup per order: without statistics, PostgreSQL uses the wrong index for lookups, and takes
    # minutes for 60,000 orders where this takes 3 s.
    is_callback, is_answer = (claims.c.source == source.value for source in (ClaimSource.CALLBACK, ClaimSource.QUERY))
    ended = claims.c.verdict.in_(_MOVING) & claims.c.status.in_(_TERMINAL)
    per_order = (
        select(
            _any(is_callback).label("called_back"),
            _any(is_answer).label("answered"),
            _any(is_answer & ended).label("answer_ended"),
        )
        .select_from(orders)
        .join(claims, about_same_order(claims))
        .where(of_day)
        .group_by(orders.c.merchant, orders.c.biz_order_no)
        .subquery()
    )
    claimed = select(
        *(func.sum(per_order.c[name]).label(name) for name in ("called_back", "answered")),
        _number((per_order.c.answer_ended == 1) & (per_order.c.called_back == 0)).label("recovered"),
    )
    asked = (
        select(func.count(inquiries.c.last_asked_at).label("asked"))
        .select_from(orders)
        .join(inquiries, about_same_order(inquiries))
        .where(of_day)
    )
    counts = [connection.execute(query).one()._mapping for query in (believed, claimed, asked)]
    succeeded = (
        select(orders.c.paid_at, func.min(events.c.created_at))
        .join(events, about_same_order(events))
        .where(of_day, orders.c.paid_at.is_not(None), events.c.type == EventType.SUCCEEDED.value)
        .group_by(orders.c.merchant, orders.c.biz_order_no, orders.c.paid_at)
    )
    came = select(func.min(claims.c.stated_at), func.max(claims.c.stated_at)).where(
        claims.c.merchant == merchant, is_callback, claims.c.recorded_at >= since, claims.c.recorded_at < until
    )
    first, last = connection.execute(came).one()
    open_orders = _open_orders(connection, of_day, now)
    return DayReport(
        merchant=merchant,
        day=day,
        statuses=_sum_by_status(connection, of_day),
        first_callback_at=first,
        last_callback_at=last,
        not_counted=_count_by_reason(connection, merchant, since, until),
        refused=count_refusals(connection, merchant, day),
        lags=_measure([(at - paid_at).total_seconds() for paid_at, at in connection.execute(succeeded)]),
        open_orders=sorted(open_orders, key=lambda order: order.explained)[:MAX_NAMED],
        unexplained=sum(not order.explained for order in open_orders),
        **{name: int(count or 0) for counted in counts for name, count in counted.items()},
    )


def _sum_by_status(connection: Connection, of_day: ColumnElement[bool]) -> Sequence[StatusSum]:
    groups = (orders.c.status, orders.c.amount_unit, orders.c.amount)
    numbers: Counter[tuple[str, str | None]] = Counter()
    sums: dict[tuple[str, str | None], Decimal] = {}
    # Added here: SQLite has no exact decimals.
    for status, unit, amount, number in connection.execute(
        select(*groups, func.count()).where(of_day).group_by(*groups)
    ):
        numbers[status, unit] += number
        sums[status, unit] = sums.get((status, unit), Decimal()) + Decimal(amount or 0) * number
    statuses = list(OrderStatus)
    return [
        StatusSum(
            status=OrderStatus(status),
            amount_unit=unit,
            orders=numbers[status, unit],
            amount=None if unit is None else f"{sums[status, unit]:f}",
        )
        for status, unit in sorted(numbers, key=lambda key: (statuses.index(OrderStatus(key[0])), key[1] or ""))
    ]


def _open_orders(connection: Connection, of_day: ColumnElement[bool], now: datetime) -> Sequence[OpenOrder]:
    items = items_at(now)
    waiting: dict[str, Row[Any]] = {}
    concerned = select(items).join(orders, about_same_order(items)).where(of_day, _IS_OPEN, items.c.endpoint == "")
    for item in connection.execute(concerned.order_by(items.c.acknowledged_at.is_not(None), items.c.since)):
        waiting.setdefault(item.biz_order_no, item)
    query = (
        select(orders, inquiries.c.state, inquiries.c.due_at, inquiries.c.horizon_at)
        .outerjoin(inquiries, about_same_order(inquiries))
        .where(of_day, _IS_OPEN)
        .order_by(orders.c.created_at, orders.c.biz_order_no)
    )
    found = []
    for row in connection.execute(query):
        explained, explanation = _explain(row, waiting.get(row.biz_order_no), now)
        found.append(to_record(OpenOrder, row, explained=explained, explanation=explanation))
    return found


def _count_explained(
    connection: Connection, merchants: Collection[str], since: datetime, until: datetime, *, now: datetime
) -> Mapping[tuple[str, bool], int]:
    counts = dict.fromkeys(((merchant, explained) for merchant in merchants for explained in (True, False)), 0)
    for merchant in merchants:
        chosen = (orders.c.merchant == merchant) & (orders.c.created_at >= since) & (orders.c.created_at < until)
        total, still_open = connection.execute(select(func.count(), _number(_IS_OPEN)).where(chosen)).one()
        # Mostly there is none, and what waits for a person need not be read.
        found = _open_orders(connection, chosen, now) if still_open else ()
        unexplained = sum(not order.explained for order in found)
        counts |= {(merchant, False): unexplained, (merchant, True): total - unexplained}
    return counts


def _read_completeness(connection: Connection, merchant: str, zone: tzinfo, *, now: datetime) -> Completeness:
    day = now.astimezone(zone).date()
    since = datetime.combine(day, time(), zone)
    of_day = (orders.c.merchant == merchant) & (orders.c.created_at >= since)
    counted = select(func.count()).where(of_day)
    # Each count reads one index: all of the day's orders, the open ones, and those in conflict.
    is_open = orders.c.status.in_([status.value for status in OrderStatus if not status.terminal])
    return Completeness(
        merchant=merchant,
        day=day,
        orders=connection.execute(counted).scalar_one(),
        still_open=connection.execute(counted.where(is_open, orders.c.updated_at >= since)).scalar_one(),
        in_dispute=connection.execute(counted.where(orders.c.conflicted, ~is_open)).scalar_one(),
    )


def _explain(order: Row[Any], waiting: Row[Any] | None, now: datetime) -> tuple[bool, str]:
    """Whether no person has to look at an open order, and why; `waiting` is its item of the attention list."""
    if waiting is not None and waiting.acknowledged_at is None:
        return False, CAUSES[AttentionKind(waiting.kind)]
    if waiting is not None:
        return True, f"Acknowledged by {waiting.acknowledged_by}: {waiting.note}"
    if order.state in (InquiryState.OPEN.value, InquiryState.ASKING.value) and order.due_at is not None:
        return True, f"The gateway is asked until {order.horizon_at:%Y-%m-%d %H:%M}Z, next at {order.due_at:%H:%M}Z."
    if order.answer_due_at is not None and order.answer_due_at > now:
        return True, f"A callback is awaited until {order.answer_due_at:%Y-%m-%d %H:%M}Z."
    return False, "No callback has ended it, and nobody asks the gateway about it."


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _any(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.max(case((condition, 1), else_=0))


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
        why = mask_personal(row.quarantine or "") if place < _MAX_REASONS else "other reasons"
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


def _disputed_ratios(
    connection: Connection, merchants: Collection[str], since: datetime
) -> Mapping[tuple[str, str], float]:
    recent = orders.c.created_at >= since
    counted = (
        select(orders.c.merchant, orders.c.disputed_fields, func.count())
        .where(recent, orders.c.disputed_fields.is_not(None))
        .group_by(orders.c.merchant, orders.c.disputed_fields)
    )
    disputed: Counter[tuple[str, str]] = Counter()
    for merchant, fields, count in connection.execute(counted):
        disputed.update({(merchant, field): count for field in fields.split()})
    ratios = dict.fromkeys(((merchant, field) for merchant in merchants for field in (STATUS, *IdentityField)), 0.0)
    # Mostly there are none, and all orders of a day need not be counted.
    for merchant in {merchant for merchant, _ in disputed} & set(merchants):
        total = connection.execute(select(func.count()).where(orders.c.merchant == merchant, recent)).scalar_one()
        ratios |= {key: count / total for key, count in disputed.items() if key[0] == merchant}
    return ratios


def record_refusals(connection: Connection, counts: Sequence[RefusalCount], *, now: datetime) -> None:
    """Store these counts, except those that are smaller than the stored ones, and add what they gained to the totals.

    Repeating it changes nothing.
    """
    largest: dict[tuple[str, str, str, str], int] = {}
    for count in counts:
        key = (count.merchant, count.day.isoformat(), count.reason, count.process)
        largest[key] = max(largest.get(key, 0), count.callbacks)
    columns = list(refusals.primary_key)
    names = [column.name for column in columns]
    # In the order of their keys, so that two consumers never wait for each other at once.
    rows = [{**dict(zip(names, key, strict=True)), "callbacks": largest[key]} for key in sorted(largest)]
    # Rows that are new are made and locked first: two consumers that find none would both count all as gained.
    insert_new(connection, refusals, [{**row, "callbacks": 0} for row in rows])
    stored = select(*columns, refusals.c.callbacks).where(tuple_(*columns).in_(sorted(largest))).order_by(*columns)
    gains: Counter[tuple[str, Counted]] = Counter()
    for row in connection.execute(stored.with_for_update()):
        gain = largest[row.merchant, row.day, row.reason, row.process] - row.callbacks
        gains[row.process, Counted(Series.REFUSALS, merchant=row.merchant, outcome=row.reason)] += max(gain, 0)
    insert_or_update(connection, refusals, rows, growing="callbacks")
    add_totals(connection, +gains, now=now)


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
