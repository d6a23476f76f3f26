"""Paused endpoints: their deliveries cannot be leased, and nothing is lost or counted."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from service.domain.claims import OrderStatus
from service.domain.events import DEFAULT_EVENT_TYPES
from service.ledger.audit import Author
from service.ledger.decisions import EndpointRules
from service.ledger.endpoints import Pause, Pauses, read_endpoint_states
from service.ledger.outbox import DueDelivery, FailedDelivery, Outbox
from service.ledger.store import LedgerStore
from tests.support.claims import AUTHOR, NOON, a_claim
from tests.support.ledger import Clock


@pytest.fixture
def pauses(ledger_engine: Engine, clock: Clock) -> Pauses:
    return Pauses(engine=ledger_engine, clock=lambda: clock.now)


@pytest.fixture
def two_endpoints(make_store: Callable[..., LedgerStore]) -> LedgerStore:
    return make_store(endpoints=[EndpointRules(name=name, types=DEFAULT_EVENT_TYPES) for name in ("books", "shop")])


def lease(outbox: Outbox, endpoint: str = "books") -> list[DueDelivery]:
    return list(outbox.lease_due(endpoint=endpoint, limit=10, lease_seconds=30))


def test_nothing_of_a_paused_endpoint_is_claimed_and_others_go_on(
    two_endpoints: LedgerStore, outbox: Outbox, pauses: Pauses
) -> None:
    two_endpoints.record([a_claim()])
    pauses.pause("books", author=Author(name="Li Lei", reason="the books are being moved"))
    assert outbox.is_paused("books")
    assert not outbox.is_paused("shop")
    assert lease(outbox) == []
    assert len(lease(outbox, "shop")) == 1


def test_a_resumed_endpoint_gets_what_has_waited_in_order_and_untried(
    store: LedgerStore, outbox: Outbox, pauses: Pauses, clock: Clock
) -> None:
    pauses.pause("books", author=Author(name="Li Lei", reason="moving"))
    store.record([a_claim(OrderStatus.PROCESSING), a_claim(minute=1)])
    clock.forward(86_400)
    assert lease(outbox) == []
    assert pauses.resume("books", author=AUTHOR) == Pause(
        endpoint="books", paused_at=NOON, paused_by="Li Lei", reason="moving"
    )
    (first,) = lease(outbox)
    assert (first.sequence, first.attempt) == (1, 1)
    outbox.settle_delivered([first])
    (second,) = lease(outbox)
    assert (second.sequence, second.attempt) == (2, 1)


def test_what_was_claimed_before_the_pause_can_be_settled_and_given_back(
    store: LedgerStore, outbox: Outbox, pauses: Pauses
) -> None:
    store.record([a_claim(order="DK1"), a_claim(order="DK2")])
    sent, unsent = lease(outbox)
    pauses.pause("books", author=Author(name="Li Lei", reason="moving"))
    assert outbox.settle_delivered([sent]) == []
    outbox.release([unsent])
    assert lease(outbox) == []
    pauses.resume("books", author=AUTHOR)
    assert [(left.event_id, left.attempt) for left in lease(outbox)] == [(unsent.event_id, 1)]


def test_pausing_what_is_paused_leaves_the_first_pause_as_it_was(pauses: Pauses, clock: Clock) -> None:
    first = pauses.pause("books", author=Author(name="Li Lei", reason="moving"))
    clock.forward(60)
    assert pauses.pause("books", author=Author(name="Han Meimei", reason="it is slow")) == first
    assert pauses.ages(["books", "shop"]) == {"books": 60.0, "shop": 0.0}


def test_resuming_what_is_not_paused_says_so(pauses: Pauses) -> None:
    assert pauses.resume("books", author=AUTHOR) is None


def test_a_pause_may_say_anything(pauses: Pauses) -> None:
    assert pauses.pause("books", author=Author(name="李雷\x00", reason="\ud800")).reason == "\\ud800"


def test_an_endpoint_s_state_tells_what_waits_what_it_took_last_and_what_went_wrong(
    ledger_engine: Engine, store: LedgerStore, outbox: Outbox, pauses: Pauses, clock: Clock
) -> None:
    store.record([a_claim(order="TAKEN")])
    outbox.settle_delivered(lease(outbox))
    clock.forward(60)
    store.record([a_claim(order="GIVEN UP")])
    failure = FailedDelivery(delivery=lease(outbox)[0], error="the endpoint answered 400", wait_seconds=None)
    assert outbox.settle_failed([failure]) == []
    (before,) = read_endpoint_states(ledger_engine, ["books"])
    assert before.last_error == "the endpoint answered 400"
    store.record([a_claim(order="WAITS")])
    failure = FailedDelivery(delivery=lease(outbox)[0], error="the endpoint answered 503", wait_seconds=0)
    assert outbox.settle_failed([failure]) == []
    pause = pauses.pause("books", author=Author(name="Li Lei", reason="moving"))

    (state,) = read_endpoint_states(ledger_engine, ["books"])
    assert (state.open, state.parked, state.oldest_open_at) == (1, 1, clock.now)
    assert (state.last_delivered_at, state.last_error) == (NOON, "the endpoint answered 503")
    assert (before.failing_since, state.failing_since) == (None, clock.now)
    clock.forward(60)
    pauses.resume("books", author=AUTHOR)
    outbox.settle_failed([FailedDelivery(delivery=lease(outbox)[0], error="it hangs", wait_seconds=0)])
    (later,) = read_endpoint_states(ledger_engine, ["books"])
    assert (later.last_error, later.failing_since) == ("it hangs", state.failing_since)
    assert state.pause == pause


def test_an_endpoint_that_has_never_heard_anything_has_a_state_too(ledger_engine: Engine) -> None:
    (state,) = read_endpoint_states(ledger_engine, ["new"])
    assert (state.open, state.parked, state.oldest_open_at, state.last_delivered_at) == (0, 0, None, None)
    assert (state.last_error, state.pause) == ("", None)


def test_endpoints_that_are_no_longer_configured_are_listed_last_while_they_have_undelivered_events(
    ledger_engine: Engine, two_endpoints: LedgerStore, pauses: Pauses
) -> None:
    two_endpoints.record([a_claim()])
    pauses.pause("forgotten", author=Author(name="Li Lei", reason="moving"))
    states = read_endpoint_states(ledger_engine, ["shop", "new"])
    assert [(state.endpoint, state.open) for state in states] == [
        ("shop", 1),
        ("new", 0),
        ("books", 1),
        ("forgotten", 0),
    ]
