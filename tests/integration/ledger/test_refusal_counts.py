"""Counts of refused callbacks have the same sums, however often and in whatever order they arrive."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete

from service.domain.refusals import RefusalCount
from service.ledger.reports import Reports
from service.ledger.store import LedgerStore
from service.ledger.tables import refusals, totals
from service.ledger.totals import Resolution, Series, read_totals
from tests.support.claims import NOON

DAY = date(2026, 7, 1)
# The growing count of one process for one reason: what its messages said, one after the other.
Telling = tuple[str, str, int]

tellings = st.lists(
    st.tuples(st.sampled_from(["p1", "p2"]), st.sampled_from(["not-json", "nan"]), st.integers(1, 9)), max_size=8
)


def a_count(callbacks: int = 1, *, process: str = "p1", reason: str = "not-json", **other: Any) -> RefusalCount:
    named = {"merchant": "acme", "day": DAY, **other}
    return RefusalCount(reason=reason, process=process, callbacks=callbacks, **named)


@pytest.fixture
def refused(ledger_engine: Engine) -> Callable[..., object]:
    reports = Reports(engine=ledger_engine)

    def read(merchant: str = "acme", day: date = DAY) -> object:
        return reports.read_day(merchant, day, time_zone=UTC).refused

    return read


def counted_by_the_hour(engine: Engine) -> dict[str, int]:
    """What the chart of refusals shows of "acme" in the present hour, by reason."""
    found = read_totals(
        engine,
        Series.REFUSALS,
        since=NOON,
        until=NOON + timedelta(hours=1),
        resolution=Resolution.HOUR,
        by=("outcome",),
        only={"merchant": "acme"},
    )
    return {reason: point.value for (reason,), (point,) in found.items()}


def test_the_processes_counts_are_added_up_by_reason_the_most_frequent_first(
    store: LedgerStore, refused: Callable[..., object]
) -> None:
    store.record_refusals([a_count(1), a_count(2, process="p2"), a_count(9, reason="sign-mismatch")])
    assert list(refused().items()) == [("sign-mismatch", 9), ("not-json", 3)]  # type: ignore[attr-defined]


def test_other_days_and_merchants_are_counted_apart(
    store: LedgerStore, refused: Callable[..., object], ledger_engine: Engine
) -> None:
    other = date(2026, 7, 2)
    store.record_refusals([a_count(1), a_count(2, day=other), a_count(4, merchant="other"), a_count(8, merchant="")])
    assert (refused(), refused(day=other), refused("other")) == ({"not-json": 1}, {"not-json": 2}, {"not-json": 4})
    assert Reports(engine=ledger_engine).refused_for_nobody(DAY) == 8


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(told=tellings, data=st.data())
def test_repeated_late_or_reordered_counts_result_in_the_largest_of_each_process(
    store: LedgerStore,
    refused: Callable[..., object],
    ledger_engine: Engine,
    told: Sequence[Telling],
    data: st.DataObject,
) -> None:
    with ledger_engine.begin() as connection:
        connection.execute(delete(refusals))
        connection.execute(delete(totals))
    arrivals = data.draw(st.permutations([*told, *told]))
    cut = data.draw(st.integers(0, len(arrivals)))
    for batch in (arrivals[:cut], arrivals[cut:]):
        store.record_refusals([a_count(n, process=process, reason=reason) for process, reason, n in batch])
    largest: dict[tuple[str, str], int] = {}
    for process, reason, callbacks in told:
        largest[process, reason] = max(largest.get((process, reason), 0), callbacks)
    expected: dict[str, int] = {}
    for (_, reason), callbacks in largest.items():
        expected[reason] = expected.get(reason, 0) + callbacks
    assert refused() == expected
    assert counted_by_the_hour(ledger_engine) == expected


def test_many_consumers_at_once_keep_the_largest(
    store: LedgerStore, refused: Callable[..., object], ledger_engine: Engine
) -> None:
    def tell(callbacks: int) -> None:
        store.record_refusals([a_count(callbacks, reason="nan"), a_count(callbacks)])

    with ThreadPoolExecutor(16) as consumers:
        list(consumers.map(tell, range(1, 17)))
    assert refused() == counted_by_the_hour(ledger_engine) == {"not-json": 16, "nan": 16}
