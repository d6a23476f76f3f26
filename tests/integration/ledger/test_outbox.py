"""Deliveries: leased, settled by fencing token, and in sequence per order."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from service.domain.claims import OrderStatus, Trust
from service.domain.events import DEFAULT_EVENT_TYPES
from service.ledger.audit import Author
from service.ledger.decisions import EndpointRules
from service.ledger.delivery_log import LoggedKind, LoggedStep
from service.ledger.outbox import DueDelivery, FailedDelivery, Outbox
from service.ledger.store import LedgerStore
from service.ledger.tables import deliveries
from tests.support.claims import AUTHOR, NOON, a_claim
from tests.support.ledger import Clock, Count, MakeStore

pytestmark = pytest.mark.parametrize("ledger_url", ["postgresql", "pooled", "sqlite"], indirect=True)


def due(outbox: Outbox, *, endpoint: str = "books", limit: int = 10) -> list[DueDelivery]:
    return list(outbox.lease_due(endpoint=endpoint, limit=limit, lease_seconds=30))


def sequences(found: list[DueDelivery]) -> list[int]:
    return [delivery.sequence for delivery in found]


def test_a_due_delivery_carries_what_a_sink_needs(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim(traceparent="00-trace")])
    (delivery,) = due(outbox)
    assert delivery.event_id == "acme/DK1/1"
    assert (delivery.order_type, delivery.status) == ("withhold", OrderStatus.SUCCEEDED)
    assert (delivery.attempt, delivery.traceparent) == (1, "00-trace")


def test_what_is_leased_nobody_else_gets(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim()])
    assert len(due(outbox)) == 1
    assert due(outbox) == []


def test_an_expired_lease_is_claimed_again_with_the_same_bytes(
    store: LedgerStore, outbox: Outbox, clock: Clock
) -> None:
    store.record([a_claim()])
    (first,) = due(outbox)
    clock.forward(31)
    (second,) = due(outbox)
    assert second.body == first.body
    assert (second.attempt, second.fence) == (first.attempt + 1, first.fence + 1)


def test_a_settlement_with_an_old_fence_is_refused(store: LedgerStore, outbox: Outbox, clock: Clock) -> None:
    store.record([a_claim()])
    (old,) = due(outbox)
    clock.forward(31)
    (new,) = due(outbox)
    assert outbox.settle_delivered([old]) == [old]
    for wait_seconds in (0, None):
        late = FailedDelivery(delivery=old, error="late", wait_seconds=wait_seconds)
        assert outbox.settle_failed([late]) == [old]
    assert outbox.settle_delivered([new]) == []


def test_a_settled_delivery_cannot_be_settled_again(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim()])
    (delivery,) = due(outbox)
    assert outbox.settle_delivered([delivery]) == []
    assert outbox.settle_delivered([delivery]) == [delivery]


def test_events_of_one_order_come_one_after_the_other(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim(), a_claim(order="DK2")])
    first = due(outbox)
    assert sorted((d.biz_order_no, d.sequence) for d in first) == [("DK1", 1), ("DK2", 1)]
    outbox.settle_delivered(first)
    assert sequences(due(outbox)) == [2]


def test_a_delivery_that_waits_for_its_next_try_holds_later_ones_back(
    store: LedgerStore, outbox: Outbox, clock: Clock
) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim()])
    (delivery,) = due(outbox)
    failure = FailedDelivery(delivery=delivery, error="503", wait_seconds=60)
    assert outbox.settle_failed([failure]) == []
    assert due(outbox) == []
    clock.forward(60)
    assert sequences(due(outbox)) == [1]


def test_a_parked_delivery_lets_later_ones_pass(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim()])
    (delivery,) = due(outbox)
    failure = FailedDelivery(delivery=delivery, error="410 Gone", wait_seconds=None)
    assert outbox.settle_failed([failure]) == []
    assert sequences(due(outbox)) == [2]


def test_failures_are_settled_together_each_in_its_way_and_the_lost_ones_are_named(
    store: LedgerStore, outbox: Outbox, clock: Clock
) -> None:
    names = ["LATER", "SOON", "PARKED", "LOST"]
    store.record([a_claim(OrderStatus.PROCESSING, order=name) for name in names])
    store.record([a_claim(order=name) for name in names])
    claimed = {delivery.biz_order_no: delivery for delivery in due(outbox)}
    outbox.replay(["acme/LOST/1"], endpoint="books", author=AUTHOR)
    waits = {"LATER": 60.0, "SOON": 30.0, "PARKED": None, "LOST": None}
    failed = [
        FailedDelivery(delivery=claimed[name], error=f"{name} failed", wait_seconds=wait)
        for name, wait in waits.items()
    ]
    assert outbox.settle_failed(failed) == [claimed["LOST"]]
    # The next event of the parked one passes; the lost one is as it was replayed.
    assert sorted((d.biz_order_no, d.sequence) for d in due(outbox)) == [("LOST", 1), ("PARKED", 2)]
    clock.forward(29)
    assert due(outbox) == []
    for name in ("SOON", "LATER"):
        clock.forward(30)
        (event, follower) = store.order_history(claimed[name].order).events
        assert (event.deliveries[0].last_error, event.deliveries[0].state) == (f"{name} failed", "open")
        assert follower.deliveries[0].due_at == event.deliveries[0].due_at
        assert (name, 1) in {(d.biz_order_no, d.sequence) for d in due(outbox)}


def test_a_batch_that_was_settled_before_its_commit_was_confirmed_is_lost_when_it_is_repeated(
    store: LedgerStore, outbox: Outbox
) -> None:
    store.record([a_claim(order=f"DK{n}") for n in range(3)])
    claimed = due(outbox)
    failed = [FailedDelivery(delivery=delivery, error="503", wait_seconds=None) for delivery in claimed]
    assert outbox.settle_failed(failed) == []
    assert outbox.settle_failed(failed) == claimed
    assert outbox.settle_delivered(claimed) == claimed


@pytest.mark.parametrize("order", ["D'K\"1\\", "订单", "[1,2]", "100%s", ":name"])
def test_any_order_number_is_claimed_settled_and_given_back(store: LedgerStore, outbox: Outbox, order: str) -> None:
    store.record([a_claim(OrderStatus.PROCESSING, order=order), a_claim(order=order)])
    (first,) = due(outbox)
    outbox.release([first])
    (first,) = due(outbox)
    assert (first.biz_order_no, first.attempt) == (order, 1)
    failure = FailedDelivery(delivery=first, error="503", wait_seconds=0)
    assert outbox.settle_failed([failure]) == []
    (first,) = due(outbox)
    assert outbox.settle_delivered([first]) == []
    assert sequences(due(outbox)) == [2]


def test_one_endpoint_does_not_hold_back_another(make_store: MakeStore, outbox: Outbox) -> None:
    both = [EndpointRules(name=name, types=DEFAULT_EVENT_TYPES) for name in ("books", "shop")]
    make_store(endpoints=both).record([a_claim(OrderStatus.PROCESSING), a_claim()])
    due(outbox)
    (shops,) = due(outbox, endpoint="shop")
    outbox.settle_delivered([shops])
    assert sequences(due(outbox, endpoint="shop")) == [2]


def test_the_log_has_each_failed_try_with_its_time_the_first_and_the_last_ones(
    store: LedgerStore, outbox: Outbox, clock: Clock
) -> None:
    store.record([a_claim()])
    for number in range(1, 15):
        (delivery,) = due(outbox)
        outbox.settle_failed([FailedDelivery(delivery=delivery, error=f"HTTP {number}", wait_seconds=60)])
        clock.forward(60)
    (delivery,) = due(outbox)
    outbox.settle_delivered([delivery])
    (event,) = store.order_history(delivery.order).events
    (delivered,) = event.deliveries
    assert delivered.last_error == ""
    kept = [1, *range(6, 15)]
    assert delivered.log == tuple(
        LoggedStep(at=NOON + timedelta(minutes=n - 1), kind=LoggedKind.FAILED, detail=f"HTTP {n}") for n in kept
    )


def test_the_log_keeps_when_an_event_was_delivered_before_it_was_replayed_and_by_whom(
    store: LedgerStore, outbox: Outbox, clock: Clock
) -> None:
    store.record([a_claim()])
    (delivery,) = due(outbox)
    outbox.settle_delivered([delivery])
    clock.forward(60)
    outbox.replay([delivery.event_id], endpoint="books", author=Author(name="Li", reason="lost\tits\ndisk"))
    (event,) = store.order_history(delivery.order).events
    assert event.deliveries[0].log == (
        LoggedStep(at=NOON, kind=LoggedKind.DELIVERED, detail=""),
        LoggedStep(at=NOON + timedelta(minutes=1), kind=LoggedKind.REPLAYED, detail="Li: lost its disk"),
    )
    clock.forward(60)
    (again,) = due(outbox)
    outbox.settle_failed([FailedDelivery(delivery=again, error="HTTP 503", wait_seconds=60)])
    (event,) = store.order_history(delivery.order).events
    assert [step.kind for step in event.deliveries[0].log] == ["delivered", "replayed", "failed"]


def test_errors_are_kept_short_and_without_personal_data(store: LedgerStore, outbox: Outbox, clock: Clock) -> None:
    store.record([a_claim()])
    (delivery,) = due(outbox)
    failure = FailedDelivery(delivery=delivery, error="no 13812345678 \x00" + "x" * 9999, wait_seconds=0)
    assert outbox.settle_failed([failure]) == []
    (event,) = store.order_history(delivery.order).events
    assert event.deliveries[0].last_error.startswith("no 138****5678 \\u0000x")
    assert len(event.deliveries[0].last_error) == 500


def test_replaying_sends_the_same_event_again(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim()])
    (sent,) = due(outbox)
    outbox.settle_delivered([sent])
    assert outbox.replay([sent.event_id, "acme/unknown/1"], endpoint="books", author=AUTHOR) == 1
    (again,) = due(outbox)
    assert (again.body, again.attempt) == (sent.body, 1)


def test_a_replay_takes_the_lease_from_who_is_sending(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim()])
    (sending,) = due(outbox)
    outbox.replay([sending.event_id], endpoint="books", author=AUTHOR)
    assert outbox.settle_delivered([sending]) == [sending]


def test_all_that_is_parked_can_be_replayed(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim(order=f"DK{n}") for n in range(3)])
    for delivery in due(outbox):
        failure = FailedDelivery(delivery=delivery, error="410 Gone", wait_seconds=None)
        assert outbox.settle_failed([failure]) == []
    assert outbox.replay_parked(endpoint="books", author=AUTHOR) == 3
    assert len(due(outbox)) == 3


def test_the_age_of_the_oldest_open_delivery_is_known(store: LedgerStore, outbox: Outbox, clock: Clock) -> None:
    assert outbox.oldest_open_age(endpoint="books") is None
    store.record([a_claim()])
    clock.forward(5)
    assert outbox.oldest_open_age(endpoint="books") == timedelta(seconds=5)
    assert outbox.oldest_open_age() == timedelta(seconds=5)
    assert outbox.oldest_open_age(endpoint="shop") is None
    outbox.settle_delivered(due(outbox))
    assert outbox.oldest_open_age(endpoint="books") is None


def test_dispatchers_at_once_share_all_deliveries_and_send_none_twice(
    store: LedgerStore, outbox: Outbox, count: Count
) -> None:
    store.record([a_claim(order=f"DK{n}") for n in range(100)])

    def dispatch(_: int) -> list[str]:
        sent: list[str] = []
        while found := due(outbox, limit=7):
            assert outbox.settle_delivered(found) == []
            sent += [delivery.event_id for delivery in found]
        return sent

    with ThreadPoolExecutor(8) as threads:
        sent = [event_id for of_one in threads.map(dispatch, range(8)) for event_id in of_one]
    # A dispatcher may stop while another still holds the rest, so all are sent once, but not by everybody.
    assert len(sent) == len(set(sent)) == 100
    assert count(deliveries, deliveries.c.state == "delivered") == 100


def test_a_correction_waits_for_the_event_that_it_corrects(store: LedgerStore, outbox: Outbox) -> None:
    store.record([a_claim(OrderStatus.FAILED), a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, minute=1)])
    (first,) = due(outbox)
    assert first.sequence == 1
    outbox.settle_delivered([first])
    (second,) = due(outbox)
    assert second.type.value == "payment.corrected"
