"""Deliveries that are blocked by an earlier one: postponed with it, and never forgotten."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import Connection, Engine, event, func, select

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.ledger.delivery_order import postpone_blocked
from service.ledger.errors import LedgerContended
from service.ledger.outbox import DueDelivery, FailedDelivery, Outbox
from service.ledger.store import LedgerStore
from service.ledger.tables import deliveries
from tests.support.claims import AUTHOR, NOON, a_claim
from tests.support.ledger import Clock, Count
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

Answer = TypeVar("Answer")

LEASE_SECONDS = 30
RETRY_SECONDS = 600


def due(outbox: Outbox, *, limit: int = 10) -> list[DueDelivery]:
    return list(outbox.lease_due(endpoint="books", limit=limit, lease_seconds=LEASE_SECONDS))


def due_times(store: LedgerStore, order: str = "DK1") -> list[datetime]:
    """When each of the order's deliveries is tried next, in their sequence."""
    return [event.deliveries[0].due_at for event in store.order_history(OrderKey("acme", order)).events]


def fail(outbox: Outbox, clock: Clock, *, orders: int = 1) -> datetime:
    """Every order's first event is tried in vain; when it is tried again."""
    again_at = clock.now + timedelta(seconds=RETRY_SECONDS)
    found = due(outbox, limit=orders)
    assert len(found) == orders
    for delivery in found:
        failure = FailedDelivery(delivery=delivery, error="503", wait_seconds=RETRY_SECONDS)
        assert outbox.settle_failed([failure]) == []
    return again_at


@pytest.fixture
def waiting(store: LedgerStore, outbox: Outbox, clock: Clock) -> datetime:
    """The order's first event waits for its next try; then its second one is made. When the first is tried again."""
    store.record([a_claim(OrderStatus.PROCESSING)])
    again_at = fail(outbox, clock)
    clock.forward(1)
    store.record([a_claim()])
    clock.forward(1)
    return again_at


def test_a_delivery_made_behind_a_waiting_one_is_postponed_with_it(
    store: LedgerStore, outbox: Outbox, waiting: datetime
) -> None:
    assert due(outbox) == []
    assert due_times(store) == [waiting, waiting]


def test_later_deliveries_are_postponed_when_the_first_has_failed(
    store: LedgerStore, outbox: Outbox, clock: Clock
) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim()])
    again_at = fail(outbox, clock)
    assert due_times(store) == [again_at, again_at]


@pytest.mark.parametrize("parked", [False, True], ids=["delivered", "parked"])
def test_a_postponed_delivery_gets_its_own_time_back_when_the_first_is_settled(
    store: LedgerStore, outbox: Outbox, clock: Clock, waiting: datetime, parked: bool
) -> None:
    due(outbox)
    outbox.replay(["acme/DK1/1"], endpoint="books", author=AUTHOR)
    (first,) = due(outbox)
    if parked:
        failure = FailedDelivery(delivery=first, error="410 Gone", wait_seconds=None)
        assert outbox.settle_failed([failure]) == []
    else:
        assert outbox.settle_delivered([first]) == []
    assert due_times(store)[1] == NOON + timedelta(seconds=1)
    assert [delivery.sequence for delivery in due(outbox)] == [2]


def test_a_postponed_delivery_keeps_its_place_before_newer_ones(
    store: LedgerStore, outbox: Outbox, clock: Clock, waiting: datetime
) -> None:
    due(outbox)
    store.record([a_claim(order="DK2")])
    clock.forward(RETRY_SECONDS)
    outbox.settle_delivered([delivery for delivery in due(outbox) if delivery.biz_order_no == "DK1"])
    store.record([a_claim(order="DK3")])
    assert [(delivery.biz_order_no, delivery.sequence) for delivery in due(outbox, limit=1)] == [("DK1", 2)]


def test_however_many_are_blocked_none_is_due_after_a_few_leases(
    store: LedgerStore, outbox: Outbox, clock: Clock, count: Count
) -> None:
    names = [f"DK{number}" for number in range(1200)]
    store.record([a_claim(OrderStatus.PROCESSING, order=name) for name in names])
    fail(outbox, clock, orders=len(names))
    store.record([a_claim(order=name) for name in names])
    clock.forward(1)
    for _ in range(3):
        assert due(outbox) == []
    assert count(deliveries, deliveries.c.due_at <= clock.now) == 0


def test_a_delivery_that_is_being_sent_postpones_nothing(store: LedgerStore, outbox: Outbox, clock: Clock) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim()])
    assert len(due(outbox)) == 1
    clock.forward(1)
    assert due(outbox) == []
    assert due_times(store)[1] == NOON


def test_a_replay_takes_no_lease_away_and_is_not_postponed(store: LedgerStore, outbox: Outbox, clock: Clock) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim()])
    outbox.settle_delivered(due(outbox))
    (second,) = due(outbox)
    outbox.replay(["acme/DK1/1"], endpoint="books", author=AUTHOR)
    # The second fails meanwhile: it may put off what comes behind it, and not the first.
    failure = FailedDelivery(delivery=second, error="503", wait_seconds=RETRY_SECONDS)
    assert outbox.settle_failed([failure]) == []
    (first,) = due(outbox)
    outbox.settle_delivered([first])
    assert due(outbox) == []
    clock.forward(RETRY_SECONDS)
    assert [delivery.sequence for delivery in due(outbox)] == [2]


def test_a_release_that_is_repeated_takes_off_one_try(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim()])
    claimed = due(outbox)
    outbox.release(claimed)
    outbox.release(claimed)
    assert [delivery.attempt for delivery in due(outbox)] == [1]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_lease_waits_for_no_settlement_and_postpones_nothing_behind_it(
    ledger_engine: Engine, store: LedgerStore, outbox: Outbox, waiting: datetime
) -> None:
    made_at = due_times(store)[1]
    with ledger_engine.begin() as settling:
        settling.execute(select(deliveries).where(deliveries.c.sequence == 1).with_for_update())
        assert due(outbox) == []
        assert due_times(store)[1] == made_at
    assert due(outbox) == []
    assert due_times(store)[1] == waiting


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_delivery_postponed_while_the_first_is_being_settled_is_due_all_the_same(
    ledger_engine: Engine, store: LedgerStore, outbox: Outbox, clock: Clock, waiting: datetime
) -> None:
    clock.forward(RETRY_SECONDS)
    (first,) = due(outbox)
    assert first.sequence == 1
    beyond = clock.now + timedelta(seconds=LEASE_SECONDS - 1)
    with ThreadPoolExecutor(1) as thread:
        with ledger_engine.begin() as claiming:
            postpone_blocked(claiming, "books", due_before=clock.now, waits_beyond=beyond)
            settled = thread.submit(outbox.settle_delivered, [first])
            eventually(lambda: _is_waited_for(ledger_engine))
        assert settled.result(timeout=HANGS_AFTER_SECONDS) == []
    assert [delivery.sequence for delivery in due(outbox)] == [2]


def _is_waited_for(engine: Engine) -> bool:
    with engine.connect() as connection:
        waiting = connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one()
    return bool(waiting)


class FastClock:
    """Sixty seconds a second."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> datetime:
        return NOON + timedelta(seconds=60 * (time.monotonic() - self._began))


def insist(action: Callable[[], Answer]) -> Answer:
    """Others stood in the way more often than is tried: what a consumer does then."""
    while True:
        try:
            return action()
        except LedgerContended:
            pass


def test_events_made_sent_retried_and_parked_at_once_arrive_in_order_and_none_is_left(
    ledger_engine: Engine, store: LedgerStore
) -> None:
    clock = FastClock()
    outbox = Outbox(engine=ledger_engine, clock=lambda _: clock())
    names = [f"DK{number}" for number in range(40)]
    steps = [
        a_claim(OrderStatus.PROCESSING),
        a_claim(),
        a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=1),
    ]
    arrived: dict[str, list[int]] = defaultdict(list)
    lock = threading.Lock()
    made = threading.Event()

    def make() -> None:
        try:
            for step in steps:
                for name in names:
                    claim = a_claim(step.status, step.trust, order=name, minute=step.stated_at.minute)
                    insist(partial(store.record, [claim]))
        finally:
            made.set()

    def send(seed: int) -> None:
        chance = random.Random(seed)
        ends_at = time.monotonic() + HANGS_AFTER_SECONDS
        while not made.is_set() or outbox.oldest_open_age() is not None:
            assert time.monotonic() < ends_at, "some are left"
            for delivery in insist(lambda: due(outbox, limit=5)):
                insist(choose(delivery, chance))

    def choose(delivery: DueDelivery, chance: random.Random) -> Callable[[], object]:
        fate = chance.random()
        if fate < 0.3:
            wait_seconds = chance.uniform(0, 90)
            again = FailedDelivery(delivery=delivery, error="503", wait_seconds=wait_seconds)
            return lambda: outbox.settle_failed([again])
        if fate < 0.35:
            parked = FailedDelivery(delivery=delivery, error="given up", wait_seconds=None)
            return lambda: outbox.settle_failed([parked])
        if fate < 0.45:
            return lambda: outbox.release([delivery])
        with lock:
            arrived[delivery.biz_order_no].append(delivery.sequence)
        return lambda: outbox.settle_delivered([delivery])

    with ThreadPoolExecutor(5) as threads:
        for done in [threads.submit(make), *(threads.submit(send, seed) for seed in range(4))]:
            done.result()
    for sequences in arrived.values():
        first_arrivals = list(dict.fromkeys(sequences))
        assert first_arrivals == sorted(first_arrivals)
    with ledger_engine.connect() as connection:
        query = select(deliveries.c.state, func.count()).group_by(deliveries.c.state)
        states = {row[0]: row[1] for row in connection.execute(query)}
    assert set(states) <= {"delivered", "parked"}
    assert sum(states.values()) == len(names) * len(steps)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_table_that_was_never_analyzed_is_not_read_again_for_each_delivery(
    ledger_engine: Engine, store: LedgerStore, outbox: Outbox, clock: Clock
) -> None:
    """PostgreSQL then believes that few deliveries are open, and that reading all of them costs nothing."""
    orders = 200
    store.record([a_claim(OrderStatus.PROCESSING, order=f"DK{number}") for number in range(orders)])
    store.record([a_claim(order=f"DK{number}") for number in range(orders)])
    clock.forward(1)
    read: list[int] = []

    def count_read(connection: Connection) -> None:
        counted = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'deliveries'"
        read.append(connection.exec_driver_sql(counted).scalar_one())

    event.listen(ledger_engine, "commit", count_read)
    leased = due(outbox, limit=orders)
    outbox.settle_failed([FailedDelivery(delivery=one, error="503", wait_seconds=RETRY_SECONDS) for one in leased])
    assert due(outbox) == []
    clock.forward(RETRY_SECONDS + 1)
    leased = due(outbox, limit=orders)
    outbox.settle_delivered(leased)
    assert len(leased) == orders
    assert len(read) == 5
    # Reading all of them for each would be 200 times as many. The counts of transactions within a second may add up.
    assert max(read) < 50 * orders
