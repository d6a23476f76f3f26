"""What spools and the queue report of their depth: when it waits for a person, and when it is unknown."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select

from service.domain.depths import QUEUE, REPORT_EVERY_SECONDS, DepthReport
from service.ledger.attention import (
    SILENT_AFTER,
    WAITING_TOO_LONG,
    AttentionFilter,
    AttentionItem,
    AttentionKind,
    AttentionList,
)
from service.ledger.depths import FORGOTTEN_AFTER, DepthStore
from service.ledger.tables import depth_reports
from tests.support.claims import NOON
from tests.support.ledger import Clock, Count

SPOOL = "spool-5d41"
INTERVAL = timedelta(seconds=REPORT_EVERY_SECONDS)


@pytest.fixture
def depths(ledger_engine: Engine, clock: Clock) -> DepthStore:
    return DepthStore(engine=ledger_engine, clock=lambda _: clock())


@pytest.fixture
def listed(attention: AttentionList) -> Callable[[], Sequence[AttentionItem]]:
    return lambda: attention.list(AttentionFilter(), limit=10)


def a_report(reported_at: datetime, messages: int = 0, *, reporter: str = SPOOL, **more: Any) -> DepthReport:
    name = "queue payment.callbacks.ledger" if reporter == QUEUE else "spool receiver-0:/data/spool.sqlite3"
    values = {"reporter": reporter, "name": name, "messages": messages, "oldest_at": None, "reported_at": reported_at}
    return DepthReport(**{**values, **more})


def test_callbacks_that_are_too_old_in_a_spool_wait_for_a_person(
    depths: DepthStore, clock: Clock, listed: Callable[[], Sequence[AttentionItem]]
) -> None:
    clock.forward(WAITING_TOO_LONG.total_seconds())
    depths.record([a_report(clock(), 3, oldest_at=NOON + timedelta(seconds=1))])
    assert listed() == []
    clock.forward(1)
    (item,) = listed()
    assert (item.id, item.kind) == (f"waiting-callbacks/{SPOOL}", AttentionKind.WAITING_CALLBACKS)
    assert item.since == NOON + timedelta(seconds=1)
    assert item.detail == "spool receiver-0:/data/spool.sqlite3: 3 callbacks at the last report"
    assert item.next_step == "payment-callbacks spool drain"
    depths.record([a_report(clock(), 0)])
    assert listed() == []


def test_how_long_the_queue_was_not_seen_empty_counts_where_nobody_knows_the_age_of_its_messages(
    depths: DepthStore, clock: Clock, listed: Callable[[], Sequence[AttentionItem]]
) -> None:
    depths.record([a_report(clock(), 2, reporter=QUEUE)])
    clock.forward(REPORT_EVERY_SECONDS)
    depths.record([a_report(clock(), 0, reporter=QUEUE)])
    clock.forward(REPORT_EVERY_SECONDS)
    busy_since = clock()
    while clock() < busy_since + WAITING_TOO_LONG:
        assert listed() == []
        depths.record([a_report(clock(), 7, reporter=QUEUE)])
        clock.forward(REPORT_EVERY_SECONDS)
    (item,) = listed()
    assert (item.id, item.since) == ("waiting-callbacks/queue", busy_since)
    assert item.next_step == "payment-callbacks run ledger"


@pytest.mark.parametrize(
    ("reporter", "command"), [(SPOOL, "payment-callbacks spool drain"), (QUEUE, "payment-callbacks run ledger")]
)
def test_what_a_silent_reporter_holds_is_unknown_until_it_reports_again(
    depths: DepthStore,
    clock: Clock,
    listed: Callable[[], Sequence[AttentionItem]],
    reporter: str,
    command: str,
) -> None:
    depths.record([a_report(clock(), 3, reporter=reporter, oldest_at=NOON - WAITING_TOO_LONG)])
    clock.forward(SILENT_AFTER.total_seconds() - 1)
    assert [item.kind for item in listed()] == [AttentionKind.WAITING_CALLBACKS]
    clock.forward(1)
    (item,) = listed()
    assert (item.kind, item.since, item.next_step) == (AttentionKind.SILENT_REPORTER, NOON, command)
    assert item.cause == "Unknown since 2026-01-05 12:00Z: how many acknowledged callbacks wait there."
    assert item.detail.endswith(": 3 callbacks at the last report")
    depths.record([a_report(clock(), 0, reporter=reporter)])
    assert listed() == []


def test_an_acknowledged_silence_is_out_of_sight_until_the_next_one(
    depths: DepthStore, clock: Clock, attention: AttentionList, listed: Callable[[], Sequence[AttentionItem]]
) -> None:
    depths.record([a_report(clock())])
    clock.forward(SILENT_AFTER.total_seconds())
    attention.acknowledge(f"silent-reporter/{SPOOL}", name="Li", note="the pod is being moved")
    clock.forward(3600)
    assert listed() == []
    depths.record([a_report(clock())])
    clock.forward(SILENT_AFTER.total_seconds())
    assert [item.kind for item in listed()] == [AttentionKind.SILENT_REPORTER]


def test_a_reporter_that_has_left_for_good_is_forgotten(
    depths: DepthStore, clock: Clock, listed: Callable[[], Sequence[AttentionItem]], count: Count
) -> None:
    depths.record([a_report(clock(), 3)])
    clock.forward(FORGOTTEN_AFTER.total_seconds() - 1)
    assert [item.kind for item in listed()] == [AttentionKind.SILENT_REPORTER]
    clock.forward(1)
    assert listed() == []
    depths.record([a_report(clock(), reporter=QUEUE)])
    assert count(depth_reports) == 1


def test_a_clock_that_was_ahead_hides_no_later_report(
    depths: DepthStore, clock: Clock, listed: Callable[[], Sequence[AttentionItem]]
) -> None:
    depths.record([a_report(clock() + timedelta(days=365))])
    clock.forward(60)
    depths.record([a_report(clock(), 3, oldest_at=NOON - WAITING_TOO_LONG)])
    assert [item.kind for item in listed()] == [AttentionKind.WAITING_CALLBACKS]


def test_a_name_that_no_database_can_hold_is_recorded_escaped(
    depths: DepthStore, clock: Clock, listed: Callable[[], Sequence[AttentionItem]]
) -> None:
    depths.record([a_report(clock(), 3, name="spool \x00\ud800", oldest_at=NOON - WAITING_TOO_LONG)])
    assert listed()[0].detail == "spool \\u0000\\ud800: 3 callbacks at the last report"


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(told=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 9)), max_size=8), data=st.data())
def test_repeated_late_or_reordered_reports_leave_the_latest_of_each_reporter(
    depths: DepthStore,
    clock: Clock,
    ledger_engine: Engine,
    told: Sequence[tuple[str, int]],
    data: st.DataObject,
) -> None:
    with ledger_engine.begin() as connection:
        connection.execute(delete(depth_reports))
    reports = [
        a_report(clock() - INTERVAL * (len(told) - place), messages, reporter=reporter, oldest_at=NOON)
        for place, (reporter, messages) in enumerate(told)
    ]
    arrivals = data.draw(st.permutations([*reports, *reports]))
    cut = data.draw(st.integers(0, len(arrivals)))
    for batch in (arrivals[:cut], arrivals[cut:]):
        depths.record(batch)
    with ledger_engine.connect() as connection:
        recorded = connection.execute(select(depth_reports.c.reporter, depth_reports.c.messages)).all()
    assert sorted(recorded) == sorted(dict(told).items())


def test_many_consumers_at_once_keep_the_latest(depths: DepthStore, clock: Clock, ledger_engine: Engine) -> None:
    start = clock()

    def tell(place: int) -> None:
        at = start - INTERVAL * (20 - place)
        depths.record([a_report(at, place, reporter=QUEUE), a_report(at, place)])

    with ThreadPoolExecutor(16) as consumers:
        list(consumers.map(tell, range(1, 17)))
    with ledger_engine.connect() as connection:
        assert set(connection.execute(select(depth_reports.c.messages)).scalars()) == {16}
