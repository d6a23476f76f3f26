"""One endpoint's worker on a real outbox: when it sends, waits and gives up."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from consumers.dispatcher import EndpointWorker
from consumers.sinks.sink import DeliveryFailed, EndpointGone
from service.config.endpoints import EndpointSettings
from service.config.settings import DispatcherSettings
from service.domain.claims import OrderKey, OrderStatus
from service.domain.events import SerializedEvent
from service.ledger import tables
from service.ledger.audit import Author
from service.ledger.endpoints import Pauses
from service.ledger.errors import LedgerUnavailable
from service.ledger.histories import DeliveryRecord
from service.ledger.outbox import DueDelivery, FailedDelivery, Outbox
from service.ledger.store import LedgerStore
from service.runtime.metrics.dispatcher import DispatcherMetrics
from tests.support.claims import AUTHOR, a_claim
from tests.support.ledger import Clock, Count, MakeStore
from tests.support.processes import running
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


class ScriptedSink:
    """Does what it is told with each event, and writes down which it was handed."""

    def __init__(self, behave: Callable[[SerializedEvent], None] = lambda _event: None) -> None:
        self.behave = behave
        self.sent: list[SerializedEvent] = []

    def send(self, event: SerializedEvent) -> str:
        behave = self.behave  # which a test may change as soon as it sees the event
        self.sent.append(event)
        behave(event)
        return "taken"

    def close(self) -> None:
        pass

    @property
    def ids(self) -> list[str]:
        return [event.event_id for event in self.sent]


def fail(*_: object) -> None:
    raise DeliveryFailed("the endpoint answered 500")


MakeWorker = Callable[..., EndpointWorker]


@pytest.fixture
def store(make_store: MakeStore) -> LedgerStore:
    return make_store(endpoints=["shop"])


@pytest.fixture
def pauses(ledger_engine: Engine, clock: Clock) -> Pauses:
    return Pauses(engine=ledger_engine, clock=clock)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def make_worker(outbox: Outbox, clock: Clock, registry: CollectorRegistry) -> MakeWorker:
    def make(sink: ScriptedSink, *, outbox: Outbox = outbox, **settings: Any) -> EndpointWorker:
        return EndpointWorker(
            outbox=outbox,
            sink=sink,
            endpoint=EndpointSettings(name="shop", kind="webhook", **settings),
            settings=DispatcherSettings(poll_seconds=0.01, lease_seconds=60),
            metrics=DispatcherMetrics(registry=registry, endpoints=["shop"]),
            clock=clock,
            monotonic=lambda: clock().timestamp(),
        )

    return make


def deliveries(store: LedgerStore, order: str = "DK1") -> list[DeliveryRecord]:
    history = store.order_history(OrderKey("acme", order))
    return [delivery for event in history.events for delivery in event.deliveries]


def states(store: LedgerStore, order: str = "DK1") -> list[str]:
    return [delivery.state for delivery in deliveries(store, order)]


def await_looks(clock: Clock) -> None:
    """Give a worker that is paused, or ought to be, time for several rounds."""
    seen = clock.looks
    eventually(lambda: clock.looks > seen + 10)


def wait_for(event: threading.Event) -> None:
    assert event.wait(HANGS_AFTER_SECONDS)


def record_both_statuses(store: LedgerStore, order: str = "DK1") -> None:
    store.record([a_claim(OrderStatus.PROCESSING, order=order), a_claim(order=order, minute=1)])


def test_an_order_s_events_arrive_one_after_the_other_as_they_were_stored(
    store: LedgerStore, make_worker: MakeWorker
) -> None:
    record_both_statuses(store)
    sink = ScriptedSink()
    with running(make_worker(sink)):
        eventually(lambda: states(store) == ["delivered", "delivered"])
    assert sink.ids == ["acme/DK1/1", "acme/DK1/2"]
    history = store.order_history(OrderKey("acme", "DK1"))
    assert [event.body for event in sink.sent] == [event.body for event in history.events]


def test_a_failed_event_is_sent_again_after_its_backoff_and_holds_back_the_next_one(
    store: LedgerStore, make_worker: MakeWorker, clock: Clock
) -> None:
    record_both_statuses(store)
    sink = ScriptedSink(fail)
    with running(make_worker(sink, initial_retry_seconds=10, max_retry_seconds=100)):
        eventually(lambda: deliveries(store)[0].last_error)
        assert (deliveries(store)[0].due_at - clock.now).total_seconds() <= 10
        sink.behave = lambda _event: None
        clock.forward(10)
        eventually(lambda: states(store) == ["delivered", "delivered"])
    assert sink.ids == ["acme/DK1/1", "acme/DK1/1", "acme/DK1/2"]
    assert sink.sent[0].body == sink.sent[1].body


def test_an_event_is_parked_after_its_last_try_and_lets_the_next_one_pass(
    store: LedgerStore, make_worker: MakeWorker, clock: Clock
) -> None:
    record_both_statuses(store)

    def fail_the_first(event: SerializedEvent) -> None:
        if event.event_id.endswith("/1"):
            fail()

    sink = ScriptedSink(fail_the_first)
    with running(make_worker(sink, max_attempts=3, initial_retry_seconds=1, max_retry_seconds=1)):
        for attempt in (1, 2):
            eventually(
                lambda attempt: deliveries(store)[0].attempts == attempt and deliveries(store)[0].last_error, attempt
            )
            clock.forward(61)
        eventually(lambda: states(store) == ["parked", "delivered"])
    assert sink.ids == ["acme/DK1/1"] * 3 + ["acme/DK1/2"]
    assert deliveries(store)[0].last_error == "the endpoint answered 500"


def test_retry_after_leaves_the_whole_endpoint_alone_for_as_long(
    store: LedgerStore, make_worker: MakeWorker, clock: Clock
) -> None:
    def ask_for_a_break(_event: SerializedEvent) -> None:
        raise DeliveryFailed("the endpoint answered 429", retry_after_seconds=30)

    store.record([a_claim(order="DK1")])
    sink = ScriptedSink(ask_for_a_break)
    with running(make_worker(sink, initial_retry_seconds=1, max_retry_seconds=600)):
        eventually(lambda: deliveries(store)[0].last_error)
        sink.behave = lambda _event: None
        store.record([a_claim(order="DK2")])
        clock.forward(29)
        await_looks(clock)
        assert sink.ids == ["acme/DK1/1"]
        clock.forward(1)
        eventually(lambda: states(store, "DK1") == states(store, "DK2") == ["delivered"])
    assert sorted(sink.ids) == ["acme/DK1/1", "acme/DK1/1", "acme/DK2/1"]


def test_retry_after_is_granted_up_to_the_longest_backoff_only(
    store: LedgerStore, make_worker: MakeWorker, clock: Clock
) -> None:
    def ask_for_a_year(_event: SerializedEvent) -> None:
        raise DeliveryFailed("the endpoint answered 503", retry_after_seconds=31_536_000)

    store.record([a_claim()])
    with running(make_worker(ScriptedSink(ask_for_a_year), max_retry_seconds=600)):
        eventually(lambda: deliveries(store)[0].last_error)
    assert (deliveries(store)[0].due_at - clock.now).total_seconds() == 600


def test_a_gone_endpoint_is_left_alone_and_asked_once_more_later_without_losing_the_event(
    store: LedgerStore, make_worker: MakeWorker, clock: Clock
) -> None:
    def gone(_event: SerializedEvent) -> None:
        raise EndpointGone("the endpoint answered 410 Gone")

    store.record([a_claim(order="DK1")])
    sink = ScriptedSink(gone)
    with running(make_worker(sink, concurrency=1, max_retry_seconds=3600)):
        eventually(lambda: deliveries(store)[0].last_error)
        store.record([a_claim(order="DK2")])
        sink.behave = lambda _event: None
        clock.forward(3599)
        await_looks(clock)
        assert sink.ids == ["acme/DK1/1"]
        clock.forward(1)
        eventually(lambda: states(store, "DK1") == states(store, "DK2") == ["delivered"])
    assert sorted(sink.ids) == ["acme/DK1/1", "acme/DK1/1", "acme/DK2/1"]


def test_a_bug_in_the_sink_costs_the_event_a_try_and_the_others_nothing(
    store: LedgerStore, make_worker: MakeWorker
) -> None:
    def stumble(event: SerializedEvent) -> None:
        if "DK1" in event.event_id:
            raise ZeroDivisionError("card 6222021234561234")

    store.record([a_claim(order="DK1"), a_claim(order="DK2")])
    with running(make_worker(ScriptedSink(stumble), initial_retry_seconds=100, max_retry_seconds=100)):
        eventually(lambda: deliveries(store, "DK1")[0].last_error)
        eventually(lambda: states(store, "DK2") == ["delivered"])
    assert states(store, "DK1") == ["open"]
    assert deliveries(store, "DK1")[0].last_error == "ZeroDivisionError: card 6222****1234"


def test_as_many_events_are_under_way_as_the_endpoint_takes_at_once(
    store: LedgerStore, make_worker: MakeWorker
) -> None:
    store.record([a_claim(order=f"DK{number}") for number in range(9)])
    together = threading.Barrier(3, timeout=HANGS_AFTER_SECONDS)
    lock = threading.Lock()
    now, most = 0, 0

    def meet(_event: SerializedEvent) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait()
        with lock:
            now -= 1

    with running(make_worker(ScriptedSink(meet), concurrency=3)):
        eventually(lambda: all(states(store, f"DK{number}") == ["delivered"] for number in range(9)))
    assert most == 3


def test_what_is_being_sent_at_sigterm_ends_and_is_settled_and_nothing_more_is_sent(
    store: LedgerStore, make_worker: MakeWorker
) -> None:
    record_both_statuses(store)
    under_way, go_on = threading.Event(), threading.Event()

    def linger(_event: SerializedEvent) -> None:
        under_way.set()
        assert go_on.wait(HANGS_AFTER_SECONDS)

    sink = ScriptedSink(linger)
    with running(make_worker(sink)) as stop:
        assert under_way.wait(HANGS_AFTER_SECONDS)
        stop.set()
        threading.Timer(0.3, go_on.set).start()  # when the worker has long seen the stop
    assert states(store) == ["delivered", "open"]
    assert sink.ids == ["acme/DK1/1"]


def test_what_was_claimed_ahead_and_not_begun_at_sigterm_is_given_back_without_a_try(
    store: LedgerStore, make_worker: MakeWorker, clock: Clock
) -> None:
    store.record([a_claim(order=f"DK{number}") for number in range(4)])
    under_way, go_on = threading.Event(), threading.Event()

    def linger(_event: SerializedEvent) -> None:
        under_way.set()
        assert go_on.wait(HANGS_AFTER_SECONDS)

    sink = ScriptedSink(linger)
    with running(make_worker(sink, concurrency=1)) as stop:
        assert under_way.wait(HANGS_AFTER_SECONDS)
        stop.set()
        threading.Timer(0.3, go_on.set).start()  # when the worker has long seen the stop
    left = [delivery for number in range(4) for delivery in deliveries(store, f"DK{number}")]
    assert sorted((delivery.state, delivery.attempts) for delivery in left) == [("delivered", 1)] + [("open", 0)] * 3
    assert all(delivery.due_at <= clock.now for delivery in left if delivery.state == "open")


def test_a_pause_gives_back_what_was_claimed_ahead_without_a_try(store: LedgerStore, make_worker: MakeWorker) -> None:
    store.record([a_claim(order=f"DK{number}") for number in range(3)])
    first_may_end = threading.Event()

    def ask_for_a_break(_event: SerializedEvent) -> None:
        # Until the others are claimed too, so that there is something to give back.
        assert first_may_end.wait(HANGS_AFTER_SECONDS)
        raise DeliveryFailed("the endpoint answered 429", retry_after_seconds=500)

    def attempts() -> list[int]:
        return [delivery.attempts for number in range(3) for delivery in deliveries(store, f"DK{number}")]

    sink = ScriptedSink(ask_for_a_break)
    with running(make_worker(sink, concurrency=1, max_retry_seconds=600)):
        eventually(lambda: attempts() == [1, 1, 1])
        first_may_end.set()
        eventually(lambda: sorted(attempts()) == [0, 0, 1])
    assert len(sink.sent) == 1


def test_an_operator_s_pause_ends_what_is_under_way_gives_back_what_was_claimed_ahead_and_claims_nothing_more(
    store: LedgerStore, make_worker: MakeWorker, pauses: Pauses, clock: Clock
) -> None:
    orders = [f"DK{number}" for number in range(4)]
    store.record([a_claim(order=order) for order in orders])
    may_end = threading.Event()

    def all_deliveries() -> list[tuple[str, int]]:
        return sorted((one.state, one.attempts) for order in orders for one in deliveries(store, order))

    sink = ScriptedSink(lambda _event: wait_for(may_end))
    with running(make_worker(sink, concurrency=1)):
        eventually(lambda: all_deliveries() == [("open", 1)] * 4)  # one under way, three ahead
        pauses.pause("shop", author=Author(name="Li Lei", reason="moving"))
        clock.forward(1)  # once a second it looks
        eventually(lambda: all_deliveries() == [("open", 0)] * 3 + [("open", 1)])
        may_end.set()
        eventually(lambda: all_deliveries() == [("delivered", 1)] + [("open", 0)] * 3)
        await_looks(clock)
        assert len(sink.sent) == 1
        pauses.resume("shop", author=AUTHOR)
        eventually(lambda: all_deliveries() == [("delivered", 1)] * 4)
    assert sorted(sink.ids) == [f"acme/{order}/1" for order in orders]


class UnreliableOutbox(Outbox):
    """An outbox whose database goes away now and then."""

    def __init__(self, *, failures: int, **options: Any) -> None:
        super().__init__(**options)
        self.failures = failures

    def settle_delivered(self, sent: Sequence[DueDelivery]) -> Sequence[DueDelivery]:
        if self.failures:
            self.failures -= 1
            raise LedgerUnavailable("away")
        return super().settle_delivered(sent)


def test_a_delivered_event_is_settled_once_the_database_is_back_and_not_sent_twice(
    store: LedgerStore, make_worker: MakeWorker, ledger_engine: Any, clock: Clock
) -> None:
    store.record([a_claim()])
    outbox = UnreliableOutbox(failures=1, engine=ledger_engine, clock=lambda _: clock())
    sink = ScriptedSink()
    with running(make_worker(sink, outbox=outbox)):
        eventually(lambda: states(store) == ["delivered"])
    assert sink.ids == ["acme/DK1/1"]


def test_a_stop_while_the_database_is_away_leaves_at_once(
    store: LedgerStore, make_worker: MakeWorker, ledger_engine: Any, clock: Clock
) -> None:
    store.record([a_claim()])
    outbox = UnreliableOutbox(failures=1_000_000, engine=ledger_engine, clock=lambda _: clock())
    with running(make_worker(ScriptedSink(), outbox=outbox)):
        eventually(lambda: outbox.failures < 1_000_000)
    assert states(store) == ["open"]


def test_what_was_claimed_ahead_is_not_sent_once_its_lease_has_run_out(
    store: LedgerStore, outbox: Outbox, make_worker: MakeWorker, clock: Clock
) -> None:
    store.record([a_claim(order="DK1"), a_claim(order="DK2")])
    taken_by_another = threading.Event()
    sink = ScriptedSink(lambda _event: wait_for(taken_by_another))
    with running(make_worker(sink, concurrency=1)):
        eventually(lambda: sink.sent)
        clock.forward(61)
        others = outbox.lease_due(endpoint="shop", limit=10, lease_seconds=60)
        assert len(others) == 2
        outbox.settle_delivered(others)
        taken_by_another.set()
        await_looks(clock)
    assert len(sink.sent) == 1


def test_one_that_lost_its_lease_settles_nothing_and_goes_on(
    store: LedgerStore, make_worker: MakeWorker, outbox: Outbox, clock: Clock
) -> None:
    store.record([a_claim(order="DK1")])

    def lose_the_lease(_event: SerializedEvent) -> None:
        clock.forward(61)
        assert outbox.lease_due(endpoint="shop", limit=1, lease_seconds=600)
        fail()

    sink = ScriptedSink(lose_the_lease)
    with running(make_worker(sink)):
        eventually(lambda: sink.sent)
        sink.behave = lambda _event: None
        store.record([a_claim(order="DK2")])
        eventually(lambda: states(store, "DK2") == ["delivered"])
    assert states(store, "DK1") == ["open"]
    assert deliveries(store, "DK1")[0].last_error == ""


class WatchedOutbox(Outbox):
    """Writes down how many deliveries each call is about."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked_for: list[int] = []
        self.settled: list[int] = []

    def lease_due(self, *, endpoint: str, limit: int, lease_seconds: float) -> Sequence[DueDelivery]:
        self.asked_for.append(limit)
        return super().lease_due(endpoint=endpoint, limit=limit, lease_seconds=lease_seconds)

    def settle_delivered(self, sent: Sequence[DueDelivery]) -> Sequence[DueDelivery]:
        self.settled.append(len(sent))
        return super().settle_delivered(sent)

    def settle_failed(self, failed: Sequence[FailedDelivery]) -> Sequence[DueDelivery]:
        self.settled.append(len(failed))
        return super().settle_failed(failed)


@pytest.fixture
def watched_outbox(ledger_engine: Engine, clock: Clock) -> WatchedOutbox:
    return WatchedOutbox(engine=ledger_engine, clock=lambda _: clock())


@pytest.mark.parametrize("fails", [False, True], ids=["delivered", "failed"])
def test_what_was_answered_while_the_database_was_busy_is_settled_together(
    store: LedgerStore,
    make_worker: MakeWorker,
    watched_outbox: WatchedOutbox,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    orders = [f"DK{number}" for number in range(12)]
    store.record([a_claim(order=order) for order in orders])
    sink = ScriptedSink(fail if fails else lambda _event: None)
    settle_delivered, settle_failed = watched_outbox.settle_delivered, watched_outbox.settle_failed

    def once_all_are_sent(settle: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def settle_later(sent: Any) -> Any:
            eventually(lambda: len(sink.sent) == 12)
            return settle(sent)

        return settle_later

    monkeypatch.setattr(watched_outbox, "settle_delivered", once_all_are_sent(settle_delivered))
    monkeypatch.setattr(watched_outbox, "settle_failed", once_all_are_sent(settle_failed))
    with running(make_worker(sink, outbox=watched_outbox, concurrency=4, initial_retry_seconds=100)):
        eventually(lambda: sum(watched_outbox.settled) == 12)
    assert len(watched_outbox.settled) <= 2


def test_more_is_claimed_ahead_for_an_endpoint_that_answers_at_once(
    store: LedgerStore, make_worker: MakeWorker, watched_outbox: WatchedOutbox, count: Count
) -> None:
    store.record([a_claim(order=f"DK{number}") for number in range(200)])
    with running(make_worker(ScriptedSink(), outbox=watched_outbox, concurrency=2)):
        eventually(lambda: count(tables.deliveries, tables.deliveries.c.state == "delivered") == 200)
    # The first time nothing is known of the endpoint.
    assert watched_outbox.asked_for[0] == 2 * 4
    assert max(watched_outbox.asked_for) > 2 * 4


def test_an_event_whose_lease_may_end_before_its_time_limit_is_given_back_untried(
    store: LedgerStore, make_worker: MakeWorker, clock: Clock
) -> None:
    store.record([a_claim(order="DK1"), a_claim(order="DK2")])
    under_way, go_on = threading.Event(), threading.Event()

    def linger(_event: SerializedEvent) -> None:
        under_way.set()
        wait_for(go_on)

    sink = ScriptedSink(linger)
    with running(make_worker(sink, concurrency=1, timeout_seconds=10)):
        assert under_way.wait(HANGS_AFTER_SECONDS)
        clock.forward(51)  # of 60 s that the lease holds
        go_on.set()
        eventually(lambda: states(store, "DK1") == states(store, "DK2") == ["delivered"])
    assert sorted(sink.ids) == ["acme/DK1/1", "acme/DK2/1"]
    assert [deliveries(store, order)[0].attempts for order in ("DK1", "DK2")] == [1, 1]
    # Leased, given back, and leased anew.
    last = sink.sent[-1]
    assert isinstance(last, DueDelivery)
    assert last.fence == 3


def test_an_endpoint_at_which_everything_fails_is_tried_a_few_events_at_a_time_until_it_takes_one(
    store: LedgerStore, make_worker: MakeWorker, clock: Clock
) -> None:
    orders = [f"DK{number}" for number in range(60)]
    store.record([a_claim(order=order) for order in orders])
    sink = ScriptedSink(fail)
    with running(make_worker(sink, concurrency=1, initial_retry_seconds=1000, max_retry_seconds=1000)):
        eventually(lambda: len(sink.sent) >= 20)
        await_looks(clock)
        tried = len(sink.sent)
        assert tried < len(orders)
        await_looks(clock)
        assert len(sink.sent) == tried
        clock.forward(0.01)  # the poll's
        eventually(lambda: len(sink.sent) > tried)
        await_looks(clock)
        assert len(sink.sent) <= tried + 2
        sink.behave = lambda _event: None
        clock.forward(0.01)
        eventually(lambda: len(sink.sent) == len(orders))
    assert sorted(sink.ids) == sorted(f"acme/{order}/1" for order in orders)
