"""Totals: what processes add is what charts read, bucket by bucket, on both databases."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from service.ledger.tables import totals
from service.ledger.totals import Counted, Resolution, Series, TotalsStore, read_lags, read_totals
from tests.support.ledger import Clock, Count

DELIVERED = Counted(Series.DELIVERIES, endpoint="shop", outcome="delivered")
FAILED = Counted(Series.DELIVERIES, endpoint="shop", outcome="failed")
BACKUP = Counted(Series.DELIVERIES, endpoint="backup", outcome="delivered")


@pytest.fixture
def store(ledger_engine: Engine, clock: Clock) -> TotalsStore:
    return TotalsStore(engine=ledger_engine, clock=lambda _: clock())


def values(
    engine: Engine, clock: Clock, *, by: tuple[str, ...] = (), **only: str
) -> Mapping[tuple[str, ...], list[int]]:
    """The values of the last three hours, the hour under way included."""
    until = clock() + timedelta(hours=1)
    found = read_totals(
        engine,
        Series.DELIVERIES,
        since=until - timedelta(hours=3),
        until=Resolution.HOUR.start_of(until),
        resolution=Resolution.HOUR,
        by=by,
        only=only,
    )
    return {labels: [point.value for point in points] for labels, points in found.items()}


def test_what_processes_add_is_summed_by_the_labels_asked_for_and_missing_buckets_are_zero(
    ledger_engine: Engine, store: TotalsStore, clock: Clock
) -> None:
    store.add({DELIVERED: 3, FAILED: 1}, process="p1")
    clock.forward(2 * 3600)
    store.add({DELIVERED: 4, BACKUP: 7}, process="p1")
    store.add({DELIVERED: 1}, process="p1")
    store.add({DELIVERED: 2}, process="p2")
    assert values(ledger_engine, clock) == {(): [4, 0, 14]}
    assert values(ledger_engine, clock, endpoint="shop") == {(): [4, 0, 7]}
    assert values(ledger_engine, clock, by=("endpoint", "outcome")) == {
        ("backup", "delivered"): [0, 0, 7],
        ("shop", "delivered"): [3, 0, 7],
        ("shop", "failed"): [1, 0, 0],
    }
    assert values(ledger_engine, clock, endpoint="nobody") == {}


def test_a_bucket_begins_at_a_whole_hour_or_five_minutes(
    ledger_engine: Engine, store: TotalsStore, clock: Clock
) -> None:
    clock.forward(14 * 60 + 59)
    began = clock()
    for _ in range(2):
        store.add({DELIVERED: 1}, process="p1")
        clock.forward(1)
    for resolution, expected in (
        (Resolution.FIVE_MINUTES, [(10, 1), (15, 1)]),
        (Resolution.HOUR, [(0, 2)]),
    ):
        (points,) = read_totals(
            ledger_engine, Series.DELIVERIES, since=began, until=clock(), resolution=resolution
        ).values()
        hour = Resolution.HOUR.start_of(began)
        assert points == [(hour + timedelta(minutes=minutes), value) for minutes, value in expected]


def test_many_processes_and_threads_may_add_at_once(ledger_engine: Engine, store: TotalsStore, clock: Clock) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.add({DELIVERED: 1, FAILED: 2}, process=f"p{number % 4}"), range(40)))
    assert values(ledger_engine, clock, by=("outcome",)) == {("delivered",): [0, 0, 40], ("failed",): [0, 0, 80]}


def test_old_buckets_are_removed_and_no_others(
    ledger_engine: Engine, store: TotalsStore, clock: Clock, count: Count
) -> None:
    store.add({DELIVERED: 1}, process="p1")
    assert count(totals) == 2
    clock.forward(3 * 3600)
    store.remove_old()
    assert count(totals) == 2
    clock.forward(5 * 60)
    store.remove_old()
    assert count(totals, totals.c.resolution_seconds == 300) == 0
    clock.forward(34 * 86400 + 21 * 3600 + 54 * 60)
    store.remove_old()
    assert count(totals) == 1
    clock.forward(1 * 60)
    store.remove_old()
    assert count(totals) == 0


def test_a_chart_reaches_back_as_far_as_buckets_are_kept(
    ledger_engine: Engine, store: TotalsStore, clock: Clock
) -> None:
    store.add({DELIVERED: 1}, process="p1")
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    found = read_totals(
        ledger_engine,
        Series.DELIVERIES,
        since=long_ago,
        until=clock() + timedelta(minutes=5),
        resolution=Resolution.FIVE_MINUTES,
    )
    assert len(found[()]) == 36
    assert found[()][-1].value == 1


def test_lags_are_read_as_percentiles_for_each_bucket_of_time(
    ledger_engine: Engine, store: TotalsStore, clock: Clock
) -> None:
    def lag(merchant: str, bound: str) -> Counted:
        return Counted(Series.LAGS, merchant=merchant, outcome=bound)

    store.add({lag("acme", "2"): 50, lag("acme", "30"): 50, lag("other", "600"): 4}, process="p1")
    clock.forward(2 * 3600)
    store.add({lag("acme", "+Inf"): 1}, process="p2")
    until = clock() + timedelta(hours=1)
    lags = read_lags(
        ledger_engine,
        since=until - timedelta(hours=3),
        until=until,
        resolution=Resolution.HOUR,
        only={"merchant": "acme"},
    )
    assert [(lag.orders, lag.median_seconds, lag.p99_seconds) for lag in lags] == [
        (100, 2.0, 29.6),
        (0, None, None),
        (1, 86400.0, 86400.0),
    ]
