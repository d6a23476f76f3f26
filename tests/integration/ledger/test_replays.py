"""Replays of a window: exactly its events, part by part, beside live events, once however many carry it out."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from service.domain.claims import OrderStatus
from service.ledger.audit import Author, list_changes
from service.ledger.endpoints import Pauses
from service.ledger.errors import ReplayCountDiffers
from service.ledger.outbox import Outbox
from service.ledger.replays import ReplayRecord, Replays, ReplayState, ReplayWindow
from service.ledger.store import LedgerStore
from tests.support.claims import AUTHOR, NOON, a_claim
from tests.support.ledger import Clock

on_every_database = pytest.mark.parametrize("ledger_url", ["postgresql", "pooled", "sqlite"], indirect=True)


@pytest.fixture
def replays(ledger_engine: Engine, clock: Clock) -> Replays:
    return Replays(engine=ledger_engine, clock=lambda _: clock())


def deliver(outbox: Outbox) -> list[str]:
    """Deliver all that is due; the events' ids."""
    sent: list[str] = []
    while due := outbox.lease_due(endpoint="books", limit=100, lease_seconds=60):
        assert outbox.settle_delivered(due) == []
        sent += [delivery.event_id for delivery in due]
    return sent


def window(clock: Clock, **more: Any) -> ReplayWindow:
    chosen = {"endpoint": "books", "since": NOON, "until": clock.now, **more}
    return ReplayWindow(**chosen)


def request(replays: Replays, chosen: ReplayWindow, *, per_second: int = 10) -> ReplayRecord:
    return replays.request(chosen, expected=replays.count(chosen), per_second=per_second, author=AUTHOR)


def state(replays: Replays, made: ReplayRecord) -> tuple[ReplayState, int]:
    found = replays.load(made.id)
    assert found is not None
    return found.state, found.done


@pytest.fixture
def day(store: LedgerStore, outbox: Outbox, clock: Clock) -> list[str]:
    """25 orders that were paid and delivered, then one that failed; the ids of their events."""
    ids: list[str] = []
    for number in range(25):
        store.record([a_claim(order=f"DK{number}")])
        clock.forward(1)
        ids += deliver(outbox)
    store.record([a_claim(OrderStatus.FAILED, order="FAILED", order_type="refund")])
    clock.forward(1)
    return ids + deliver(outbox)


@on_every_database
def test_a_window_is_delivered_again_part_by_part_and_once(
    replays: Replays, outbox: Outbox, clock: Clock, day: list[str]
) -> None:
    made = request(replays, window(clock))
    assert made.total == 26
    parts: list[list[str]] = []
    while state(replays, made)[0] is ReplayState.RUNNING:
        assert replays.carry_on()
        assert not replays.carry_on()  # before the second is over
        parts.append(deliver(outbox))
        clock.forward(1)
    assert [len(part) for part in parts] == [10, 10, 6]
    assert sorted(event for part in parts for event in part) == sorted(day)
    assert not replays.carry_on()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"status": OrderStatus.FAILED}, ["acme/FAILED/1"]),
        ({"order_type": "refund"}, ["acme/FAILED/1"]),
        ({"since": NOON + timedelta(seconds=3), "until": NOON + timedelta(seconds=5)}, ["acme/DK3/1", "acme/DK4/1"]),
        ({"endpoint": "nobody"}, []),
    ],
)
def test_only_events_that_fit_are_delivered_again(
    replays: Replays, outbox: Outbox, clock: Clock, day: list[str], chosen: dict[str, object], expected: list[str]
) -> None:
    made = request(replays, window(clock, **chosen))
    replays.carry_on()
    assert (state(replays, made), sorted(deliver(outbox))) == ((ReplayState.DONE, len(expected)), expected)


def test_events_that_come_later_are_not_in_the_window(
    replays: Replays, store: LedgerStore, outbox: Outbox, clock: Clock, day: list[str]
) -> None:
    made = request(replays, window(clock), per_second=100)
    store.record([a_claim(order="LATER")])
    assert deliver(outbox) == ["acme/LATER/1"]
    replays.carry_on()
    assert "acme/LATER/1" not in deliver(outbox)
    assert state(replays, made) == (ReplayState.DONE, 26)


def test_it_waits_while_its_events_pile_up_so_that_a_live_event_waits_for_one_part_at_most(
    replays: Replays, store: LedgerStore, outbox: Outbox, clock: Clock, day: list[str]
) -> None:
    made = request(replays, window(clock))
    for _ in range(5):
        replays.carry_on()
        clock.forward(1)
    assert state(replays, made) == (ReplayState.RUNNING, 10)
    store.record([a_claim(order="LIVE")])
    assert deliver(outbox).index("acme/LIVE/1") == 10


def test_it_waits_while_its_endpoint_is_paused(
    replays: Replays, ledger_engine: Engine, clock: Clock, day: list[str]
) -> None:
    pauses = Pauses(engine=ledger_engine, clock=clock)
    made = request(replays, window(clock))
    pauses.pause("books", author=AUTHOR)
    assert not replays.carry_on()
    pauses.resume("books", author=AUTHOR)
    assert replays.carry_on()
    assert state(replays, made) == (ReplayState.RUNNING, 10)


@on_every_database
def test_many_dispatchers_carry_out_each_part_once(
    ledger_engine: Engine, outbox: Outbox, clock: Clock, day: list[str]
) -> None:
    replays = Replays(engine=ledger_engine, clock=lambda _: clock())
    made = request(replays, window(clock))
    with ThreadPoolExecutor(8) as threads:
        carried = list(threads.map(lambda _: replays.carry_on(), range(8)))
    assert carried.count(True) == 1
    assert state(replays, made) == (ReplayState.RUNNING, 10)
    assert len(deliver(outbox)) == 10


def test_an_expectation_that_is_wrong_replays_nothing(
    replays: Replays, ledger_engine: Engine, clock: Clock, day: list[str]
) -> None:
    with pytest.raises(ReplayCountDiffers, match="26 events now"):
        replays.request(window(clock), expected=25, author=AUTHOR)
    assert not replays.carry_on()
    assert list_changes(ledger_engine, limit=10) == []


def test_an_empty_window_is_done_at_once(replays: Replays, clock: Clock) -> None:
    clock.forward(1)
    assert request(replays, window(clock)).state is ReplayState.DONE
    assert not replays.carry_on()


def test_a_stopped_replay_goes_no_further_and_both_changes_are_in_the_audit(
    replays: Replays, ledger_engine: Engine, clock: Clock, day: list[str]
) -> None:
    made = request(replays, window(clock))
    replays.carry_on()
    clock.forward(1)
    for _ in range(2):
        stopped = replays.stop(made.id, author=Author(name="Han Meimei", reason="the wrong endpoint"))
        assert stopped is not None
        assert (stopped.state, stopped.done) == (ReplayState.STOPPED, 10)
    assert not replays.carry_on()
    changes = list_changes(ledger_engine, limit=10)
    times = f"{made.window.since.isoformat()} to {made.window.until.isoformat()}"
    assert [(change.action, change.changed_by, change.subject, change.reason) for change in changes] == [
        ("stop-replay", "Han Meimei", f"replay {made.id}", "the wrong endpoint"),
        ("replay", "Li Lei", f"books: 26 events from {times}, replay {made.id}", "they have lost it"),
    ]


def test_pages_of_the_audit_go_back_in_time(ledger_engine: Engine, outbox: Outbox, day: list[str]) -> None:
    for _ in range(3):
        outbox.replay(day[:1], endpoint="books", author=AUTHOR)
    first = list_changes(ledger_engine, limit=2)
    rest = list_changes(ledger_engine, limit=2, before=first[-1].id)
    assert [change.subject for change in (*first, *rest)] == ["books: 1 events (acme/DK0/1)"] * 3
    assert len({change.id for change in (*first, *rest)}) == 3
