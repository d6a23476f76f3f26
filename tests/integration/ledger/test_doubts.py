"""Inquiries that have only doubts: which are asked about first, and when they end."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.ledger.announcements import Announcement
from service.ledger.inquiries import InquiryReason, InquiryRecord, InquiryState
from service.ledger.inquiry_questions import DueInquiry, QuestionOutcome, QuestionResult
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim
from tests.support.ledger import MakeInquiryQueue, MakeStore

KEY = OrderKey("acme", "DK1")
NO_ANSWER = QuestionResult(outcome=QuestionOutcome.NO_ANSWER, request_id="r", seconds=1.5, detail="timeout")
NOT_FOUND = QuestionResult(outcome=QuestionOutcome.NOT_FOUND, request_id="r", seconds=0.1)
ANSWERED = QuestionResult(outcome=QuestionOutcome.ANSWERED, request_id="r", seconds=0.1)


@pytest.fixture
def store(make_store: MakeStore) -> LedgerStore:
    """Only what the gateway says when it is asked counts."""
    return make_store(required=Trust.QUERIED)


@pytest.fixture
def queue(store: LedgerStore, make_inquiry_queue: MakeInquiryQueue) -> InquiryQueue:
    return make_inquiry_queue(store)


def a_strangers_word(store: LedgerStore, *orders: str, **said: Any) -> None:
    store.record([a_claim(trust=Trust.CHECKSUM, order=order, **said) for order in orders])


def lease(queue: InquiryQueue, *, limit: int = 1000) -> Sequence[DueInquiry]:
    return queue.lease_due("acme", limit=limit, lease_seconds=60)


def names(asked: Sequence[DueInquiry]) -> list[str]:
    return [inquiry.order.biz_order_no for inquiry in asked]


def inquiry_of(store: LedgerStore) -> InquiryRecord:
    inquiry = store.order_history(KEY).inquiry
    assert inquiry is not None
    return inquiry


def ask(queue: InquiryQueue, reply: QuestionResult) -> InquiryState:
    (inquiry,) = lease(queue)
    return queue.settle(inquiry, reply).state


def ask_while_open(store: LedgerStore, queue: InquiryQueue, clock: Any, reply: QuestionResult) -> list[float]:
    """The pauses between the questions, until it is asked for no more."""
    pauses = []
    while ask(queue, reply) is InquiryState.OPEN:
        pauses.append((inquiry_of(store).due_at - clock()).total_seconds())
        clock.forward(pauses[-1])
    return pauses


def test_an_order_that_was_never_asked_about_comes_before_repeats(
    store: LedgerStore, queue: InquiryQueue, clock: Any
) -> None:
    invented = [f"F{number}" for number in range(5)]
    a_strangers_word(store, *invented)
    for inquiry in lease(queue):
        queue.settle(inquiry, NO_ANSWER)
    clock.forward(100)
    a_strangers_word(store, "DK1")
    assert names(lease(queue, limit=1)) == ["DK1"]
    assert names(lease(queue)) == invented


def test_something_new_about_an_order_is_no_repeat(store: LedgerStore, queue: InquiryQueue, clock: Any) -> None:
    a_strangers_word(store, "F1", "DK1")
    for inquiry in lease(queue):
        queue.settle(inquiry, NO_ANSWER)
    clock.forward(100)
    a_strangers_word(store, "DK1", status=OrderStatus.FAILED)
    assert names(lease(queue, limit=1)) == ["DK1"]


def test_a_flood_of_new_orders_leaves_repeats_a_tenth(store: LedgerStore, queue: InquiryQueue, clock: Any) -> None:
    repeats = [f"DK{number}" for number in range(5)]
    a_strangers_word(store, *repeats)
    for inquiry in lease(queue):
        queue.settle(inquiry, NO_ANSWER)
    clock.forward(100)
    a_strangers_word(store, *(f"F{number}" for number in range(50)))
    asked = names(lease(queue, limit=20))
    assert (len(asked), len(set(asked) & set(repeats))) == (20, 2)


def test_what_a_crash_cut_short_is_a_repeat_and_is_asked_again(
    store: LedgerStore, queue: InquiryQueue, clock: Any
) -> None:
    a_strangers_word(store, "DK1")
    assert names(lease(queue)) == ["DK1"]
    clock.forward(60)
    a_strangers_word(store, "F1")
    assert names(lease(queue)) == ["F1", "DK1"]


def test_an_order_that_the_gateway_does_not_have_is_asked_about_five_times_and_not_parked(
    store: LedgerStore, queue: InquiryQueue, clock: Any, parked_inquiries: Callable[[], int]
) -> None:
    a_strangers_word(store, "DK1")
    assert ask_while_open(store, queue, clock, NOT_FOUND) == [20, 160, 1280, 3600]
    assert inquiry_of(store).state is InquiryState.NOT_FOUND
    clock.forward(7 * 86_400)
    assert not lease(queue)
    assert parked_inquiries() == 0
    assert store.load_order(KEY) is None


def test_no_answer_is_not_taken_for_not_found(store: LedgerStore, queue: InquiryQueue, clock: Any) -> None:
    a_strangers_word(store, "DK1")
    for _ in range(4):
        assert ask(queue, NOT_FOUND) is InquiryState.OPEN
        clock.forward(3600)
    assert len(ask_while_open(store, queue, clock, NO_ANSWER)) > 10
    assert inquiry_of(store).state is InquiryState.PARKED


def test_an_order_that_the_gateway_does_not_have_until_the_horizon_is_not_parked(
    store: LedgerStore, queue: InquiryQueue, clock: Any
) -> None:
    a_strangers_word(store, "DK1")
    clock.forward(86_390)
    assert ask(queue, NOT_FOUND) is InquiryState.NOT_FOUND


@pytest.mark.parametrize(
    "speak",
    [
        lambda store: a_strangers_word(store, "DK1", status=OrderStatus.FAILED),
        lambda store: store.record([a_claim(trust=Trust.CAPABILITY)]),
        lambda store: store.announce(Announcement(merchant="acme", biz_order_no="DK1")),
        lambda store: store.inquire(KEY, InquiryReason.OPERATOR),
    ],
    ids=["a different claim", "a claim on its own notify_url", "an announcement", "a person"],
)
def test_a_new_claim_about_an_order_that_was_not_found_is_asked_about(
    store: LedgerStore, queue: InquiryQueue, clock: Any, speak: Callable[[LedgerStore], object]
) -> None:
    a_strangers_word(store, "DK1")
    ask_while_open(store, queue, clock, NOT_FOUND)
    clock.forward(60)
    speak(store)
    clock.forward(600)
    assert [(inquiry.order, inquiry.attempt) for inquiry in lease(queue)] == [(KEY, 1)]


def test_the_same_claim_again_does_not(store: LedgerStore, queue: InquiryQueue, clock: Any) -> None:
    a_strangers_word(store, "DK1")
    ask_while_open(store, queue, clock, NOT_FOUND)
    a_strangers_word(store, "DK1", minute=600)
    clock.forward(86_400)
    assert not lease(queue)


def test_a_claim_that_comes_while_the_gateway_is_asked_outlives_its_not_found(
    store: LedgerStore, queue: InquiryQueue, clock: Any
) -> None:
    a_strangers_word(store, "DK1")
    for _ in range(4):
        ask(queue, NOT_FOUND)
        clock.forward(3600)
    (last,) = lease(queue)
    a_strangers_word(store, "DK1", status=OrderStatus.FAILED)
    assert queue.settle(last, NOT_FOUND).state is InquiryState.OPEN
    clock.forward(10)
    assert ask(queue, NOT_FOUND) is InquiryState.NOT_FOUND


def test_a_claim_that_comes_while_the_gateway_is_asked_for_the_last_time_before_the_horizon_is_asked_about(
    store: LedgerStore, queue: InquiryQueue, clock: Any
) -> None:
    a_strangers_word(store, "DK1")
    clock.forward(86_399)
    (last,) = lease(queue)
    a_strangers_word(store, "DK1", status=OrderStatus.FAILED)
    assert queue.settle(last, NOT_FOUND).state is InquiryState.OPEN
    clock.forward(10)
    assert ask(queue, NOT_FOUND) is InquiryState.NOT_FOUND


@pytest.mark.parametrize(
    "speak",
    [
        lambda store: store.record([a_claim(trust=Trust.CAPABILITY)]),
        lambda store: store.announce(Announcement(merchant="acme", biz_order_no="DK1")),
        lambda store: store.inquire(KEY, InquiryReason.OPERATOR),
    ],
    ids=["a claim on its own notify_url", "an announcement", "a person"],
)
def test_an_order_with_proven_claims_is_asked_about_until_its_horizon_though_it_is_not_found(
    store: LedgerStore, queue: InquiryQueue, clock: Any, speak: Callable[[LedgerStore], object]
) -> None:
    a_strangers_word(store, "DK1")
    speak(store)
    assert len(ask_while_open(store, queue, clock, NOT_FOUND)) > 10
    assert inquiry_of(store).state is InquiryState.PARKED


def test_doubts_about_an_old_paid_order_that_the_gateway_has_forgotten_park_nothing(
    store: LedgerStore, queue: InquiryQueue, clock: Any
) -> None:
    store.record([a_claim(trust=Trust.QUERIED)])
    a_strangers_word(store, "DK1", status=OrderStatus.FAILED)
    assert len(ask_while_open(store, queue, clock, NOT_FOUND)) == 4
    assert inquiry_of(store).state is InquiryState.NOT_FOUND
    order = store.load_order(KEY)
    assert order is not None
    assert (order.state.status, order.settled) == (OrderStatus.SUCCEEDED, True)


def test_doubts_about_a_conflict_that_only_a_person_can_settle_park_nothing(
    store: LedgerStore, queue: InquiryQueue, clock: Any, parked_inquiries: Callable[[], int]
) -> None:
    store.record([a_claim(trust=Trust.OPERATOR), a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=1)])
    a_strangers_word(store, "DK1", status=OrderStatus.FAILED)
    assert len(ask_while_open(store, queue, clock, NOT_FOUND)) == 4
    assert parked_inquiries() == 0
    order = store.load_order(KEY)
    assert order is not None
    assert order.state.conflicted


@pytest.mark.parametrize(
    "truths",
    [
        [a_claim(OrderStatus.PROCESSING, Trust.QUERIED)],
        [a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED), a_claim(OrderStatus.FAILED, Trust.QUERIED)],
    ],
    ids=["still open", "disputed"],
)
def test_an_order_that_is_owed_an_answer_is_not_given_up_when_it_is_not_found(
    store: LedgerStore, queue: InquiryQueue, clock: Any, truths: list[Claim]
) -> None:
    store.record(truths)
    a_strangers_word(store, "DK1", status=OrderStatus.FAILED)
    clock.forward(3600)
    assert len(ask_while_open(store, queue, clock, NOT_FOUND)) > 10
    assert inquiry_of(store).state is InquiryState.PARKED


@pytest.mark.parametrize("reply", [NOT_FOUND, NO_ANSWER])
def test_doubts_do_not_hide_a_parked_order(
    store: LedgerStore, queue: InquiryQueue, clock: Any, reply: QuestionResult, parked_inquiries: Callable[[], int]
) -> None:
    store.announce(Announcement(merchant="acme", biz_order_no="DK1"))
    clock.forward(600)
    ask_while_open(store, queue, clock, reply)
    clock.forward(86_400)
    a_strangers_word(store, "DK1")
    assert ask(queue, reply) is InquiryState.PARKED
    assert parked_inquiries() == 1


def test_a_doubt_about_a_parked_order_is_asked_about(store: LedgerStore, queue: InquiryQueue, clock: Any) -> None:
    store.announce(Announcement(merchant="acme", biz_order_no="DK1"))
    clock.forward(600)
    ask_while_open(store, queue, clock, NOT_FOUND)
    a_strangers_word(store, "DK1")
    clock.forward(600)
    (asked,) = lease(queue)
    answer = a_claim(trust=Trust.QUERIED, stated_at=clock())
    assert queue.settle(asked, ANSWERED, claim=answer).state is InquiryState.ANSWERED


def test_an_answer_that_comes_late_counts(store: LedgerStore, queue: InquiryQueue, clock: Any) -> None:
    a_strangers_word(store, "DK1")
    ask(queue, NOT_FOUND)
    clock.forward(20)
    (asked,) = lease(queue)
    answer = a_claim(trust=Trust.QUERIED, stated_at=clock())
    assert queue.settle(asked, ANSWERED, claim=answer).state is InquiryState.ANSWERED
