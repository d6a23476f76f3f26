"""Totals: how often things happened in each five minutes and in each hour, for charts.

Every process adds what its metrics have gained, some seconds late. A process that is killed loses what it has not added
yet, so charts are no accounts: `reports` counts the orders themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, delete, func, select, tuple_

from service.domain.lags import estimate_percentile
from service.ledger.bulk import execute_insert, make_insert
from service.ledger.database import read, shared_time, write
from service.ledger.tables import totals

_REMOVED_AT_ONCE = 1000
_NO_LABELS: Mapping[str, str] = {}


class Series(StrEnum):
    """What is counted."""

    #: Recorded claims, by merchant, source and verdict. Callbacks are those of the source `callback`.
    CLAIMS = "claims"
    #: Callbacks that the receiver refused, by merchant ("" where the address names none) and reason.
    REFUSALS = "refusals"
    #: Orders by the time from `paid_at` until their final status was known, by merchant. The outcome is the upper bound
    #: of a histogram's bucket, in seconds, or `+Inf`; an order is counted in one bucket.
    LAGS = "lags"
    #: Tries to deliver an event, by endpoint and outcome.
    DELIVERIES = "deliveries"
    #: Questions to the gateway, by merchant and outcome.
    QUESTIONS = "questions"


class Resolution(Enum):
    """How long a bucket is, and for how long it is kept."""

    FIVE_MINUTES = (timedelta(minutes=5), timedelta(hours=3))
    HOUR = (timedelta(hours=1), timedelta(days=35))

    def __init__(self, length: timedelta, kept: timedelta) -> None:
        self.length = length
        self.kept = kept

    @property
    def seconds(self) -> int:
        """The length of a bucket."""
        return int(self.length.total_seconds())

    def start_of(self, time: datetime) -> datetime:
        """When the bucket that `time` is in began, in UTC."""
        return datetime.fromtimestamp(time.timestamp() // self.seconds * self.seconds, UTC)


class Counted(NamedTuple):
    """One thing that is counted. A label is "" where the series does not have it."""

    series: Series
    merchant: str = ""
    endpoint: str = ""
    source: str = ""
    #: A verdict, a reason or a result; of lags, the upper bound of a bucket.
    outcome: str = ""


#: The names of the labels.
LABELS = ("merchant", "endpoint", "source", "outcome")


class Point(NamedTuple):
    """One bucket of a series."""

    starts_at: datetime
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LagPoint:
    """How long after `paid_at` final statuses became known in one bucket of time; None where none did."""

    starts_at: datetime
    orders: int
    #: Estimates from a histogram (`domain.lags`).
    median_seconds: float | None
    p99_seconds: float | None


class TotalsStore:
    """Adds to the totals, and removes old ones. Safe to share between threads.

    Every method raises LedgerUnavailable.
    """

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to give all processes the same time."""
        self._engine = engine
        self._clock = clock

    def add(self, gains: Mapping[Counted, int], *, process: str) -> None:
        """Add what was counted since the last call to the present buckets. Calling it again adds it again."""
        write(
            self._engine,
            lambda connection: add_totals(
                connection,
                {(process, counted): gain for counted, gain in gains.items()},
                now=self._clock(connection),
            ),
        )

    def remove_old(self) -> None:
        """Remove buckets that are no longer kept, of each series 1000 rows at most."""
        for resolution in Resolution:
            for series in Series:
                self._remove_old(resolution, series)

    def _remove_old(self, resolution: Resolution, series: Series) -> None:
        key = tuple(totals.primary_key)

        def remove(connection: Connection) -> None:
            old = (
                select(*key)
                .where(
                    totals.c.resolution_seconds == resolution.seconds,
                    totals.c.series == series.value,
                    totals.c.starts_at < resolution.start_of(self._clock(connection) - resolution.kept),
                )
                .limit(_REMOVED_AT_ONCE)
                .with_for_update(skip_locked=True)
            )
            connection.execute(delete(totals).where(tuple_(*key).in_(old)))

        write(self._engine, remove)


def add_totals(connection: Connection, gains: Mapping[tuple[str, Counted], int], *, now: datetime) -> None:
    """Add what each process has counted, by the process and the thing, within the caller's transaction."""
    rows = [
        {
            "resolution_seconds": resolution.seconds,
            "starts_at": resolution.start_of(now),
            **counted._asdict(),
            "process": process,
            "value": gain,
        }
        for resolution in Resolution
        for (process, counted), gain in sorted(gains.items())
    ]
    if rows:
        execute_insert(connection, _addition(connection.dialect.name, tuple(rows[0])), rows)


def read_totals(
    engine: Engine,
    series: Series,
    *,
    since: datetime,
    until: datetime,
    resolution: Resolution,
    by: Sequence[str] = (),
    only: Mapping[str, str] = _NO_LABELS,
) -> Mapping[tuple[str, ...], Sequence[Point]]:
    """The points of a series from the bucket that `since` is in to `until`, by the values of the labels `by`.

    `by` and `only`, which restricts the series to some values, are of LABELS. Each result has a point per bucket, with
    0 where nothing was counted; labels that have only such points are left out. Before `until - resolution.kept` there
    is nothing, so the points begin there at the earliest. Raises LedgerUnavailable.
    """
    since = resolution.start_of(max(since, until - resolution.kept))
    columns = [totals.c[label] for label in by]
    query = (
        select(totals.c.starts_at, func.sum(totals.c.value), *columns)
        .where(
            totals.c.resolution_seconds == resolution.seconds,
            totals.c.series == series.value,
            totals.c.starts_at >= since,
            totals.c.starts_at < until,
            *(totals.c[label] == value for label, value in only.items()),
        )
        .group_by(totals.c.starts_at, *columns)
    )
    found: dict[tuple[str, ...], dict[datetime, int]] = {}
    for starts_at, value, *labels in read(engine, lambda connection: connection.execute(query).all()):
        found.setdefault(tuple(labels), {})[starts_at] = int(value)
    starts = []
    while since < until:
        starts.append(since)
        since += resolution.length
    return {
        labels: [Point(start, values.get(start, 0)) for start in starts] for labels, values in sorted(found.items())
    }


def read_lags(
    engine: Engine,
    *,
    since: datetime,
    until: datetime,
    resolution: Resolution,
    only: Mapping[str, str] = _NO_LABELS,
) -> Sequence[LagPoint]:
    """The median and the 99th percentile of the time from `paid_at` to the final status, for each bucket of time.

    The bounds are those of `read_totals`; empty where nothing was counted in all of them. Raises LedgerUnavailable.
    """
    found = read_totals(
        engine, Series.LAGS, since=since, until=until, resolution=resolution, by=("outcome",), only=only
    )
    # float() reads "+Inf".
    histogram = [(float(bound), points) for (bound,), points in found.items()]
    lags = []
    for points in zip(*(points for _, points in histogram), strict=True):
        counts = {bound: point.value for (bound, _), point in zip(histogram, points, strict=True)}
        lags.append(
            LagPoint(
                starts_at=points[0].starts_at,
                orders=sum(counts.values()),
                median_seconds=estimate_percentile(counts, 0.5),
                p99_seconds=estimate_percentile(counts, 0.99),
            )
        )
    return lags


@cache
def _addition(dialect: str, names: Sequence[str]) -> Any:
    insert = make_insert(dialect, totals, names)
    return insert.on_conflict_do_update(
        index_elements=list(totals.primary_key), set_={"value": totals.c.value + insert.excluded.value}
    )
