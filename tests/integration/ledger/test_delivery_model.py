"""Deliveries as a model: leases, fencing, order and replays, with crashes between any two steps.

The model knows who was given which lease. Only the holder of a delivery's last lease may settle it, and that is what
the fencing tokens have to achieve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.events import DEFAULT_EVENT_TYPES, EventType
from service.ledger.decisions import EndpointRules
from service.ledger.delivery_order import DeliveryKey
from service.ledger.endpoints import DeliveryFilter, DeliveryState, Pauses, list_deliveries
from service.ledger.outbox import DueDelivery, FailedDelivery, Outbox
from service.ledger.replays import Replays, ReplayState, ReplayWindow
from service.ledger.tables import deliveries
from tests.support.claims import AUTHOR, NOON, a_claim
from tests.support.ledger import Clock, make_sqlite_ledger, make_store
from tests.support.model import LIVES, Fate, ModelLedger, fates, run_model

ORDERS = ("DK1", "DK2")
#: "shop" wants some of the events only: its sequences have gaps.
ENDPOINTS = {"books": DEFAULT_EVENT_TYPES, "shop": frozenset({EventType.PROCESSING, EventType.CORRECTED})}
MAX_EVENTS = 4
LEASE_SECONDS = 30
MAX_ATTEMPTS = 3
REPLAYED_PER_SECOND = 2

processes = st.sampled_from([0, 1])
endpoints = st.sampled_from(sorted(ENDPOINTS))
orders = st.sampled_from(ORDERS)


@dataclass
class Delivery:
    """What one delivery has to be."""

    #: When it may be leased, as far as other deliveries do not matter.
    ready_at: datetime
    state: str = "open"
    attempts: int = 0
    fence: int = 0
    #: The last lease, until it is taken back.
    lease: int | None = None
    #: Whether the endpoint ever got it, and whether it did since it was last made due anew.
    arrived: bool = False
    arrived_anew: bool = False
    #: Whether it was ever given up, or sent again: from then on, later events may come before it.
    out_of_order: bool = False


@dataclass
class Held:
    """A delivery in the memory of a process."""

    delivery: DueDelivery
    lease: int
    ends_at: datetime
    #: What the process has seen of sending it; None before.
    accepted: bool | None = None


@dataclass
class Replay:
    """A replay, and which deliveries it has to make due again, in their order."""

    id: int
    keys: Sequence[DeliveryKey]
    done: int = 0


class Deliveries(RuleBasedStateMachine):
    """Two dispatchers, two endpoints, and the events of two orders."""

    def __init__(self, ledger: ModelLedger) -> None:
        super().__init__()
        ledger.empty()
        self.ledger = ledger
        self.clock = Clock()
        self.store = make_store(
            ledger.engine,
            clock=self.clock,
            endpoints=[EndpointRules(name=name, types=types) for name, types in ENDPOINTS.items()],
        )
        self.outbox = Outbox(engine=ledger.engine, clock=lambda _: self.clock())
        self.pauses = Pauses(engine=ledger.engine, clock=self.clock)
        self.replays = Replays(engine=ledger.engine, clock=lambda _: self.clock())
        self.leases = count(1)
        self.events = dict.fromkeys(ORDERS, 0)
        self.model: dict[DeliveryKey, Delivery] = {}
        self.paused: set[str] = set()
        self.requested: list[Replay] = []
        self.memory: list[list[Held]] = [[], []]

    # ---- what happens ----

    @initialize()
    def begin(self) -> None:
        """Each order has two events."""
        for _ in range(2):
            self.record(chosen=set(ORDERS), fate=LIVES)

    @precondition(lambda self: max(self.events.values()) < MAX_EVENTS)
    @rule(chosen=st.sets(orders, min_size=1), fate=fates)
    def record(self, chosen: set[str], fate: Fate) -> None:
        """The ledger records claims that make the next event of each order."""
        self.clock.forward(1)
        claims = [
            a_claim(_status(self.events[order]), Trust.QUERIED, order=order, stated_at=self.clock())
            for order in sorted(chosen)
        ]
        if not self.ledger.call(lambda: self.store.record(claims), fate):
            return
        for order in sorted(chosen):
            self.events[order] += 1
            for endpoint, types in ENDPOINTS.items():
                if _type(self.events[order]) in types:
                    key = ("acme", order, endpoint, self.events[order])
                    self.model[key] = Delivery(ready_at=self.clock())

    @precondition(lambda self: any(one.state == "open" for one in self.model.values()))
    @rule(process=processes, endpoint=endpoints, limit=st.integers(1, 3), fate=fates)
    def lease(self, process: int, endpoint: str, limit: int, fate: Fate) -> None:
        """A dispatcher leases what is due."""

        def lease() -> list[Held]:
            leased = self.outbox.lease_due(endpoint=endpoint, limit=limit, lease_seconds=LEASE_SECONDS)
            free = self._free(endpoint)
            assert len(leased) == min(limit, len(free))
            assert {delivery.key for delivery in leased} <= free
            return [self._leased(delivery) for delivery in leased]

        results = self.ledger.call(lease, fate)
        if results and fate.lives:
            self.memory[process] += results[-1]
        self._end(process, fate)

    @precondition(lambda self: self._holding(None))
    @rule(place=st.integers(0, 3), arrives=st.booleans(), accepted=st.booleans())
    def send(self, place: int, arrives: bool, accepted: bool) -> None:
        """A dispatcher sends an event, perhaps long after its lease has ended; the answer may be lost."""
        unsent = [held for memory in self.memory for held in memory if held.accepted is None]
        held = unsent[place % len(unsent)]
        held.accepted = arrives and accepted
        if arrives:
            self._arrive(held)

    @precondition(lambda self: self._holding(True))
    @rule(place=st.integers(0, 1), fate=fates)
    def settle_delivered(self, place: int, fate: Fate) -> None:
        """A dispatcher settles what was accepted."""
        process = self._choose(True, place)
        sent = self._forget(process, accepted=True)

        def settle() -> None:
            lost = self.outbox.settle_delivered([held.delivery for held in sent])
            assert lost == self._lost(sent)
            for held in sent:
                if (delivery := self._still_held(held)) is not None:
                    assert delivery.arrived_anew
                    delivery.state = "delivered"

        self.ledger.call(settle, fate)
        self._end(process, fate)

    @precondition(lambda self: self._holding(False))
    @rule(place=st.integers(0, 1), wait_seconds=st.sampled_from([0, 10, 300]), fate=fates)
    def settle_failed(self, place: int, wait_seconds: float, fate: Fate) -> None:
        """A dispatcher settles what failed: to be tried again, or given up after the last try."""
        process = self._choose(False, place)
        tried = self._forget(process, accepted=False)
        failed = [
            FailedDelivery(
                delivery=held.delivery,
                error="503",
                wait_seconds=None if held.delivery.attempt >= MAX_ATTEMPTS else wait_seconds,
            )
            for held in tried
        ]

        def settle() -> None:
            assert self.outbox.settle_failed(failed) == self._lost(tried)
            for held, failure in zip(tried, failed, strict=True):
                delivery = self._still_held(held)
                if delivery is None:
                    continue
                if failure.wait_seconds is None:
                    delivery.state, delivery.out_of_order = "parked", True
                else:
                    delivery.ready_at = self.clock() + timedelta(seconds=failure.wait_seconds)

        self.ledger.call(settle, fate)
        self._end(process, fate)

    @precondition(lambda self: self._holding(None))
    @rule(place=st.integers(0, 1), fate=fates)
    def release(self, place: int, fate: Fate) -> None:
        """A dispatcher gives back what it has not sent."""
        process = self._choose(None, place)
        unsent = self._forget(process, accepted=None)

        def release() -> None:
            self.outbox.release([held.delivery for held in unsent])
            for held in unsent:
                if (delivery := self._still_held(held)) is not None:
                    delivery.attempts -= 1
                    self._make_due(delivery)

        self.ledger.call(release, fate)
        self._end(process, fate)

    @precondition(lambda self: any(self.memory))
    @rule(process=processes)
    def crash(self, process: int) -> None:
        """A dispatcher dies between two calls."""
        self.memory[process].clear()

    @rule(seconds=st.sampled_from([LEASE_SECONDS, 10, 300]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.forward(seconds)

    @rule(endpoint=endpoints)
    def pause_or_resume(self, endpoint: str) -> None:
        """An operator pauses an endpoint, or ends its pause."""
        if endpoint in self.paused:
            self.pauses.resume(endpoint, author=AUTHOR)
        else:
            self.pauses.pause(endpoint, author=AUTHOR)
        self.paused ^= {endpoint}

    @rule(endpoint=endpoints, order=orders, sequence=st.integers(1, MAX_EVENTS), fate=fates)
    def replay(self, endpoint: str, order: str, sequence: int, fate: Fate) -> None:
        """An operator sends one event again, whatever its state."""

        def replay() -> None:
            found = self.outbox.replay([f"acme/{order}/{sequence}"], endpoint=endpoint, author=AUTHOR)
            delivery = self.model.get(("acme", order, endpoint, sequence))
            assert found == (delivery is not None)
            if delivery is not None:
                self._reopen(delivery)

        self.ledger.call(replay, fate)

    @precondition(lambda self: any(one.state == "parked" for one in self.model.values()))
    @rule(endpoint=endpoints, fate=fates)
    def replay_parked(self, endpoint: str, fate: Fate) -> None:
        """An operator sends all that was given up again."""

        def replay() -> None:
            found = self.outbox.replay_parked(endpoint=endpoint, author=AUTHOR)
            parked = [one for key, one in self.model.items() if key[2] == endpoint and one.state == "parked"]
            assert found == len(parked)
            for delivery in parked:
                self._reopen(delivery)

        self.ledger.call(replay, fate)

    @precondition(lambda self: not self.requested)
    @rule(endpoint=endpoints)
    def request_replay(self, endpoint: str) -> None:
        """An operator requests that all events so far are sent again, bit by bit."""
        keys = [key for key in self.model if key[2] == endpoint]
        window = ReplayWindow(endpoint=endpoint, since=NOON, until=self.clock() + timedelta(seconds=1))
        made = self.replays.request(window, expected=len(keys), per_second=REPLAYED_PER_SECOND, author=AUTHOR)
        self.requested.append(Replay(id=made.id, keys=keys))

    @precondition(lambda self: self.requested)
    @rule(fate=fates)
    def carry_on(self, fate: Fate) -> None:
        """A dispatcher carries out the next part of a replay."""

        carried = self.ledger.call(self.replays.carry_on, fate)
        for replay in self.requested:
            record = self.replays.load(replay.id)
            assert record is not None
            assert record.done - replay.done <= REPLAYED_PER_SECOND * len(carried)
            for key in replay.keys[replay.done : record.done]:
                if self.model[key].state != "open":
                    self._reopen(self.model[key])
            replay.done = record.done

    # ---- what must hold ----

    @invariant()
    def the_rows_are_what_the_model_says(self) -> None:
        with self.ledger.engine.connect() as connection:
            rows = connection.execute(select(deliveries)).all()
        kept = {_key(row): (row.state, row.attempts, row.fence) for row in rows}
        assert kept == {key: (one.state, one.attempts, one.fence) for key, one in self.model.items()}

    def teardown(self) -> None:
        """All processes die, and one new dispatcher starts: everything is delivered, or was given up for all to see."""
        for memory in self.memory:
            memory.clear()
        for endpoint in sorted(self.paused):
            self.pause_or_resume(endpoint)
        rounds = 0
        while self._is_anything_left():
            rounds += 1
            assert rounds < 1000, "something is never due again"
            if self.requested:
                self.carry_on(fate=LIVES)
            for endpoint in ENDPOINTS:
                self.lease(process=0, endpoint=endpoint, limit=10, fate=LIVES)
            for held in self.memory[0]:
                held.accepted = True
                self._arrive(held)
            if self.memory[0]:
                self.settle_delivered(place=0, fate=LIVES)
            self.clock.forward(LEASE_SECONDS)
        self.the_rows_are_what_the_model_says()
        for order in ORDERS:
            events = self.store.order_history(OrderKey("acme", order)).events
            assert [event.sequence for event in events] == list(range(1, self.events[order] + 1))
        parked = list_deliveries(self.ledger.engine, DeliveryFilter(state=DeliveryState.PARKED), limit=1000)
        given_up = {(one.merchant, one.biz_order_no, one.endpoint, one.sequence) for one in parked}
        assert given_up == {key for key, one in self.model.items() if one.state == "parked"}
        assert all(one.arrived for key, one in self.model.items() if key not in given_up)

    # ---- the model ----

    def _free(self, endpoint: str) -> set[DeliveryKey]:
        """What may be leased: it is due, and no earlier event of its order is open."""
        if endpoint in self.paused:
            return set()
        first: dict[str, DeliveryKey] = {}
        for key in sorted(key for key, one in self.model.items() if key[2] == endpoint and one.state == "open"):
            first.setdefault(key[1], key)
        return {key for key in first.values() if self.model[key].ready_at <= self.clock()}

    def _leased(self, leased: DueDelivery) -> Held:
        delivery = self.model[leased.key]
        delivery.attempts += 1
        delivery.fence += 1
        delivery.lease = next(self.leases)
        delivery.ready_at = self.clock() + timedelta(seconds=LEASE_SECONDS)
        assert (leased.attempt, leased.fence) == (delivery.attempts, delivery.fence)
        return Held(delivery=leased, lease=delivery.lease, ends_at=delivery.ready_at)

    def _arrive(self, held: Held) -> None:
        """The endpoint gets an event."""
        merchant, order, endpoint, sequence = held.delivery.key
        delivery = self.model[held.delivery.key]
        of_order = {key[3]: one for key, one in self.model.items() if key[:3] == (merchant, order, endpoint)}
        if not delivery.arrived:
            earlier = [one for number, one in of_order.items() if number < sequence]
            assert all(one.arrived or one.out_of_order for one in earlier)
        # Who sends after the lease has ended may repeat an event late. The dispatcher avoids that; see its tests.
        if held.ends_at > self.clock() and not delivery.out_of_order:
            assert not any(one.arrived for number, one in of_order.items() if number > sequence)
        delivery.arrived = delivery.arrived_anew = True

    def _still_held(self, held: Held) -> Delivery | None:
        """The delivery, where nobody was given it later."""
        delivery = self.model[held.delivery.key]
        return delivery if delivery.state == "open" and delivery.lease == held.lease else None

    def _lost(self, tried: Sequence[Held]) -> Sequence[DueDelivery]:
        # A process may hold a delivery twice, if it froze: the outbox names it as lost where neither lease is left.
        kept = {held.delivery.key for held in tried if self._still_held(held) is not None}
        return [held.delivery for held in tried if held.delivery.key not in kept]

    def _make_due(self, delivery: Delivery) -> None:
        delivery.fence += 1
        delivery.lease = None
        delivery.ready_at = self.clock()

    def _reopen(self, delivery: Delivery) -> None:
        self._make_due(delivery)
        delivery.state, delivery.attempts = "open", 0
        delivery.arrived_anew, delivery.out_of_order = False, True

    def _holding(self, accepted: bool | None) -> list[int]:
        """The processes that hold deliveries of which they have seen this."""
        return [number for number in (0, 1) if any(held.accepted is accepted for held in self.memory[number])]

    def _choose(self, accepted: bool | None, place: int) -> int:
        holding = self._holding(accepted)
        return holding[place % len(holding)]

    def _forget(self, process: int, *, accepted: bool | None) -> list[Held]:
        chosen = [held for held in self.memory[process] if held.accepted is accepted]
        self.memory[process] = [held for held in self.memory[process] if held.accepted is not accepted]
        return chosen

    def _end(self, process: int, fate: Fate) -> None:
        if not fate.lives:
            self.memory[process].clear()

    def _is_anything_left(self) -> bool:
        records = [self.replays.load(replay.id) for replay in self.requested]
        running = any(record is not None and record.state is ReplayState.RUNNING for record in records)
        return running or any(one.state == "open" for one in self.model.values())


def _status(events: int) -> OrderStatus:
    """What is claimed of an order that has so many events, so that it gets another one."""
    if not events:
        return OrderStatus.PROCESSING
    return OrderStatus.SUCCEEDED if events % 2 else OrderStatus.FAILED


def _type(sequence: int) -> EventType:
    return {1: EventType.PROCESSING, 2: EventType.SUCCEEDED}.get(sequence, EventType.CORRECTED)


def _key(row: Any) -> DeliveryKey:
    return row.merchant, row.biz_order_no, row.endpoint, row.sequence


def test_deliveries_are_what_the_model_says(tmp_path: Path) -> None:
    run_model(Deliveries, url=make_sqlite_ledger(tmp_path / "ledger.db"), runs=15, steps=40)
