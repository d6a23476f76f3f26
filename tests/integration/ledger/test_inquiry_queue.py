"""Which inquiries are due, and what each result does to an inquiry."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.domain.events import EventType
from service.ledger.announcements import Announcement
from service.ledger.decisions import EndpointRules
from service.ledger.inquiries import InquiryReason, InquiryRecord, InquiryState
from service.ledger.inquiry_questions import DueInquiry, QuestionOutcome, QuestionResult
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.store import LedgerStore
from tests.support.claims import NOON, a_claim
from tests.support.ledger import Clock, MakeInquiryQueue, MakeStore

on_every_database = pytest.mark.parametrize("ledger_url", ["postgresql", "pooled", "sqlite"], indirect=True)

KEY = OrderKey("acme", "DK1")
ANNOUNCED = Announcement(merchant="acme", biz_order_no="DK1")
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


def claim_all(queue: InquiryQueue, *, limit: int = 1000) -> Sequence[DueInquiry]:
    return queue.lease_due("acme", limit=limit, lease_seconds=60)


def claim_one(queue: InquiryQueue) -> DueInquiry:
    (inquiry,) = claim_all(queue)
    return inquiry


def an_answer(clock: Clock, status: OrderStatus = OrderStatus.SUCCEEDED, **more: Any) -> Claim:
    """What the gateway says now."""
    return a_claim(status, Trust.QUERIED, stated_at=clock(), **more)


def inquiry_of(store: LedgerStore) -> InquiryRecord:
    inquiry = store.order_history(KEY).inquiry
    assert inquiry is not None
    return inquiry


@on_every_database
def test_an_inquiry_is_claimed_once(store: LedgerStore, queue: InquiryQueue) -> None:
    store.inquire(KEY, InquiryReason.OPERATOR)
    assert claim_one(queue).order == KEY
    assert not claim_all(queue)


def test_what_is_not_due_is_not_asked(store: LedgerStore, queue: InquiryQueue, clock: Clock) -> None:
    store.announce(ANNOUNCED)
    clock.forward(599)
    assert not claim_all(queue)
    clock.forward(1)
    assert claim_one(queue).reasons is InquiryReason.OVERDUE


@on_every_database
def test_when_the_lease_has_run_out_it_is_asked_again_and_counted_again(
    store: LedgerStore, queue: InquiryQueue, clock: Clock
) -> None:
    store.inquire(KEY, InquiryReason.OPERATOR)
    first = claim_one(queue)
    clock.forward(59)
    assert not claim_all(queue)
    clock.forward(1)
    again = claim_one(queue)
    assert (first.attempt, again.attempt) == (1, 2)
    assert inquiry_of(store).attempts == 2


def test_a_terminal_answer_ends_the_inquiry(store: LedgerStore, queue: InquiryQueue, clock: Clock) -> None:
    store.announce(ANNOUNCED)
    clock.forward(600)
    assert queue.settle(claim_one(queue), ANSWERED, claim=an_answer(clock)).state is InquiryState.ANSWERED
    order = store.load_order(KEY)
    assert order is not None
    assert (order.state.status, order.state.trust) == (OrderStatus.SUCCEEDED, Trust.QUERIED)


def test_an_answer_that_confirms_what_is_known_ends_the_inquiry(
    make_store: MakeStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    store = make_store(required=Trust.CAPABILITY)
    queue = make_inquiry_queue(store)
    store.record([a_claim()])
    store.record([a_claim(OrderStatus.FAILED, Trust.CHECKSUM, minute=1)])
    clock.forward(120)
    assert queue.settle(claim_one(queue), ANSWERED, claim=an_answer(clock)).state is InquiryState.ANSWERED


@pytest.mark.parametrize("status", [OrderStatus.PROCESSING, OrderStatus.INITIAL])
def test_an_order_that_has_not_ended_is_asked_for_again_with_growing_pauses(
    store: LedgerStore, queue: InquiryQueue, clock: Clock, status: OrderStatus
) -> None:
    store.announce(ANNOUNCED)
    clock.forward(600)
    pauses = []
    for _ in range(10):
        assert queue.settle(claim_one(queue), ANSWERED, claim=an_answer(clock, status)).state is InquiryState.OPEN
        pauses.append((inquiry_of(store).due_at - clock()).total_seconds())
        clock.forward(pauses[-1])
    assert pauses == [20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]


@pytest.mark.parametrize("reply", [NOT_FOUND, NO_ANSWER])
def test_no_answer_and_not_found_say_nothing_of_the_order(
    store: LedgerStore, queue: InquiryQueue, clock: Clock, reply: QuestionResult
) -> None:
    store.announce(ANNOUNCED)
    clock.forward(600)
    assert queue.settle(claim_one(queue), reply).state is InquiryState.OPEN
    history = store.order_history(KEY)
    assert history.order is not None
    assert (history.order.state.status, history.order.state.trust) == (OrderStatus.INITIAL, None)
    assert not history.claims
    assert not history.events
    assert inquiry_of(store).due_at == clock() + timedelta(seconds=20)


def test_every_question_is_kept_with_its_reasons_and_its_outcome(
    store: LedgerStore, queue: InquiryQueue, clock: Clock
) -> None:
    store.record([a_claim(trust=Trust.CHECKSUM)])
    queue.settle(claim_one(queue), NO_ANSWER)
    clock.forward(20)
    claim_one(queue)
    settled, open_ = store.order_history(KEY).questions
    assert (settled.outcome, settled.request_id, settled.seconds) == (QuestionOutcome.NO_ANSWER, "r", 1.5)
    assert (settled.asked_at, settled.reasons, settled.detail) == (NOON, InquiryReason.UNCONFIRMED, "timeout")
    assert (open_.outcome, open_.seconds) == (None, None)


def test_old_questions_are_pruned_with_the_payloads_and_stay_counted(
    store: LedgerStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    queue = make_inquiry_queue(store, max_per_day=2)
    store.inquire(KEY, InquiryReason.OPERATOR)
    for _ in range(2):
        queue.settle(claim_one(queue), NO_ANSWER)
        clock.forward(100)
    store.prune(before=clock())
    assert not store.order_history(KEY).questions
    store.inquire(KEY, InquiryReason.OPERATOR)
    assert not claim_all(queue)


def test_an_order_asked_to_its_horizon_in_vain_is_parked_and_reported(
    store: LedgerStore, queue: InquiryQueue, clock: Clock, parked_inquiries: Callable[[], int]
) -> None:
    store.announce(ANNOUNCED)
    clock.forward(600)
    state = queue.settle(claim_one(queue), NOT_FOUND).state
    while state is InquiryState.OPEN:
        clock.forward((inquiry_of(store).due_at - clock()).total_seconds())
        assert clock() <= NOON + timedelta(seconds=600 + 86_400)
        state = queue.settle(claim_one(queue), NOT_FOUND).state
    assert state is InquiryState.PARKED
    assert parked_inquiries() == 1
    clock.forward(7 * 86_400)
    assert not claim_all(queue)


def test_a_parked_order_is_asked_for_again_for_a_new_reason(
    store: LedgerStore, queue: InquiryQueue, clock: Clock
) -> None:
    store.inquire(KEY, InquiryReason.OPERATOR)
    clock.forward(86_400)
    assert queue.settle(claim_one(queue), NOT_FOUND).state is InquiryState.PARKED
    clock.forward(60)
    store.inquire(KEY, InquiryReason.OPERATOR)
    assert claim_one(queue).attempt == 1


def test_nothing_is_asked_twice_within_the_least_interval(
    store: LedgerStore, queue: InquiryQueue, clock: Clock
) -> None:
    store.inquire(KEY, InquiryReason.OPERATOR)
    queue.settle(claim_one(queue), NO_ANSWER)
    store.inquire(KEY, InquiryReason.OPERATOR)
    clock.forward(9.9)
    assert not claim_all(queue)
    clock.forward(0.1)
    assert claim_one(queue)


def test_the_daily_most_holds_whatever_reasons_come_until_the_next_day(
    store: LedgerStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    queue = make_inquiry_queue(store, max_per_day=3)
    asked = 0
    for _ in range(48):
        store.inquire(KEY, InquiryReason.OPERATOR)
        asked += len(claim_all(queue))
        clock.forward(15 * 60 - 1)
    assert asked == 3
    clock.forward(60)
    assert claim_one(queue)


def test_a_lower_daily_most_holds_at_once(
    store: LedgerStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    store.inquire(KEY, InquiryReason.OPERATOR)
    queue = make_inquiry_queue(store)
    for _ in range(3):
        queue.settle(claim_one(queue), NO_ANSWER)
        clock.forward(100)
    stricter = make_inquiry_queue(store, max_per_day=3)
    assert not claim_all(stricter)
    clock.forward(12 * 3600)
    assert claim_one(stricter)


def test_forgeries_leave_an_overdue_order_its_share_of_the_daily_most(
    store: LedgerStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    queue = make_inquiry_queue(store, max_per_day=10)
    store.announce(ANNOUNCED)
    doubts = owed = 0
    for number in range(300):
        store.record([a_claim(trust=Trust.CHECKSUM, pay_order_no=f"FORGED{number}", minute=number)])
        for inquiry in claim_all(queue):
            owed += inquiry.owed
            doubts += not inquiry.owed
            queue.settle(inquiry, ANSWERED, claim=an_answer(clock, OrderStatus.PROCESSING))
        clock.forward(60)
    assert doubts == 5
    assert 3 <= owed <= 5


def test_repeated_forgeries_leave_an_order_its_share_of_the_daily_maximum(
    make_store: MakeStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    store = make_store(required=Trust.CHECKSUM)
    queue = make_inquiry_queue(store, max_per_day=10)
    forged = a_claim(trust=Trust.CHECKSUM)
    store.record([forged, a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=1)])
    asked = []
    for _ in range(100):
        clock.forward(60)
        store.record([forged])
        for inquiry in claim_all(queue):
            asked.append(inquiry.owed)
            queue.settle(inquiry, ANSWERED, claim=an_answer(clock, OrderStatus.FAILED))
    assert asked == [False] * 5


def test_forgeries_do_not_slow_down_how_an_overdue_order_is_asked_for(
    store: LedgerStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    queue = make_inquiry_queue(store)
    store.announce(ANNOUNCED)
    for number in range(8):
        store.record([a_claim(trust=Trust.CHECKSUM, pay_order_no=f"FORGED{number}")])
        queue.settle(claim_one(queue), NO_ANSWER)
        clock.forward(70)
    clock.forward(40)
    overdue = claim_one(queue)
    assert overdue.owed
    assert overdue.due_at == clock() + timedelta(seconds=20)


def test_a_reason_that_came_while_the_gateway_was_asked_outlives_the_answer(
    store: LedgerStore, queue: InquiryQueue, clock: Clock
) -> None:
    store.announce(ANNOUNCED)
    clock.forward(600)
    asked, answer = claim_one(queue), an_answer(clock)
    clock.forward(1)
    store.record([a_claim(OrderStatus.FAILED, Trust.CHECKSUM, minute=11)])
    assert queue.settle(asked, ANSWERED, claim=answer).state is InquiryState.OPEN
    clock.forward(20)
    assert queue.settle(claim_one(queue), ANSWERED, claim=an_answer(clock)).state is InquiryState.ANSWERED


def test_an_answer_counts_also_where_its_lease_was_lost(store: LedgerStore, queue: InquiryQueue, clock: Clock) -> None:
    store.inquire(KEY, InquiryReason.OPERATOR)
    slow, answer = claim_one(queue), an_answer(clock)
    clock.forward(60)
    quick = claim_one(queue)
    assert queue.settle(slow, ANSWERED, claim=answer).state is InquiryState.ANSWERED
    assert queue.settle(quick, NO_ANSWER).state is InquiryState.ANSWERED
    order = store.load_order(KEY)
    assert order is not None
    assert order.state.status is OrderStatus.SUCCEEDED


@on_every_database
def test_a_lost_lease_reschedules_nothing(store: LedgerStore, queue: InquiryQueue, clock: Clock) -> None:
    store.inquire(KEY, InquiryReason.OPERATOR)
    slow = claim_one(queue)
    clock.forward(60)
    quick = claim_one(queue)
    assert queue.settle(slow, NO_ANSWER).state is InquiryState.ASKING
    assert queue.settle(quick, NO_ANSWER).state is InquiryState.OPEN


def test_a_conflict_is_settled_by_a_later_question_and_the_correction_names_what_it_replaces(
    make_store: MakeStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock, all_types: frozenset[EventType]
) -> None:
    store = make_store(endpoints=[EndpointRules(name="books", types=all_types)])
    queue = make_inquiry_queue(store)
    store.record([a_claim()])
    store.record([a_claim(OrderStatus.FAILED, minute=1)])
    clock.forward(120)
    assert queue.settle(claim_one(queue), ANSWERED, claim=an_answer(clock, OrderStatus.FAILED)).state is (
        InquiryState.ANSWERED
    )
    events = store.order_history(KEY).events
    assert [event.type for event in events] == [EventType.SUCCEEDED, EventType.CONFLICTED, EventType.CORRECTED]
    assert b'"status":"failed","previous_status":"succeeded"' in events[-1].body


def test_an_answer_asked_before_what_it_would_correct_corrects_nothing(
    make_store: MakeStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    store = make_store()
    queue = make_inquiry_queue(store)
    store.inquire(KEY, InquiryReason.OPERATOR)
    asked, early = claim_one(queue), an_answer(clock, OrderStatus.FAILED)
    store.record([a_claim(minute=0.1)])
    queue.settle(asked, ANSWERED, claim=early)
    order = store.load_order(KEY)
    assert order is not None
    assert (order.state.status, order.state.conflicted) == (OrderStatus.SUCCEEDED, True)
    assert inquiry_of(store).state is InquiryState.OPEN


def test_a_conflict_that_the_answer_leaves_open_is_asked_about_with_growing_pauses(
    make_store: MakeStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    store = make_store()
    queue = make_inquiry_queue(store)
    store.record([a_claim(), a_claim(OrderStatus.FAILED, minute=1)])
    clock.forward(120)
    pauses = []
    for _ in range(4):
        queue.settle(claim_one(queue), ANSWERED, claim=an_answer(clock, OrderStatus.PROCESSING))
        pauses.append((inquiry_of(store).due_at - clock()).total_seconds())
        clock.forward(pauses[-1])
    assert pauses == [20, 40, 80, 160]


@pytest.mark.parametrize(
    ("heard", "answered"),
    [
        ([OrderStatus.PROCESSING], {"status": None, "quarantine": "unknown pay_status"}),
        ([OrderStatus.SUCCEEDED, OrderStatus.FAILED], {"status": OrderStatus.PROCESSING}),
    ],
    ids=["unreadable", "no end of a dispute"],
)
def test_a_gateway_whose_answers_leave_a_matter_open_is_not_asked_beyond_the_horizon(
    make_store: MakeStore,
    make_inquiry_queue: MakeInquiryQueue,
    clock: Clock,
    heard: list[OrderStatus],
    answered: dict[str, Any],
) -> None:
    store = make_store()
    queue = make_inquiry_queue(store)
    store.record([a_claim(status) for status in heard])
    clock.forward(600)
    horizon_at = inquiry_of(store).horizon_at
    state = queue.settle(claim_one(queue), ANSWERED, claim=an_answer(clock, **answered)).state
    while state is InquiryState.OPEN:
        assert inquiry_of(store).horizon_at == horizon_at
        clock.forward((inquiry_of(store).due_at - clock()).total_seconds())
        state = queue.settle(claim_one(queue), ANSWERED, claim=an_answer(clock, **answered)).state
    assert state is InquiryState.PARKED


def test_an_order_that_is_long_overdue_is_asked_about_until_a_horizon_all_the_same(
    store: LedgerStore, queue: InquiryQueue, clock: Clock
) -> None:
    store.announce(replace(ANNOUNCED, answer_due_at=NOON - timedelta(days=2)))
    assert queue.settle(claim_one(queue), NO_ANSWER).state is InquiryState.OPEN
    assert inquiry_of(store).horizon_at == NOON + timedelta(days=1)


def test_a_parked_order_that_moves_after_all_is_asked_for_to_a_horizon_again(
    make_store: MakeStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    store = make_store()
    queue = make_inquiry_queue(store)
    store.announce(ANNOUNCED)
    clock.forward(600 + 86_400)
    assert queue.settle(claim_one(queue), NOT_FOUND).state is InquiryState.PARKED
    clock.forward(86_400)
    store.record([a_claim(OrderStatus.PROCESSING, stated_at=clock())])
    assert queue.settle(claim_one(queue), NO_ANSWER).state is InquiryState.OPEN


def test_what_an_operator_has_decided_is_not_asked_about_for_ever(
    store: LedgerStore, queue: InquiryQueue, clock: Clock
) -> None:
    store.record([a_claim(trust=Trust.OPERATOR)])
    store.inquire(KEY, InquiryReason.OPERATOR)
    clock.forward(60)
    queue.settle(claim_one(queue), ANSWERED, claim=an_answer(clock, OrderStatus.FAILED))
    order = store.load_order(KEY)
    assert order is not None
    assert (order.state.status, order.state.conflicted) == (OrderStatus.SUCCEEDED, True)
    assert inquiry_of(store).state is InquiryState.ANSWERED


def test_an_order_that_a_person_gives_back_to_the_gateway_is_asked_for_again(
    store: LedgerStore, queue: InquiryQueue, clock: Clock
) -> None:
    store.record([a_claim(OrderStatus.PROCESSING, Trust.OPERATOR)])
    clock.forward(600)
    other = an_answer(clock, OrderStatus.PROCESSING, pay_order_no="P2")
    assert queue.settle(claim_one(queue), ANSWERED, claim=other).state is InquiryState.ANSWERED
    store.record([a_claim(OrderStatus.PROCESSING, Trust.OPERATOR, pay_order_no="P2", minute=11)])
    clock.forward(600)
    assert claim_one(queue).reasons is InquiryReason.OVERDUE


def test_a_crash_while_settling_loses_neither_the_answer_nor_the_inquiry(
    store: LedgerStore, queue: InquiryQueue, clock: Clock, ledger_engine: Engine
) -> None:
    store.announce(ANNOUNCED)
    clock.forward(600)
    asked = claim_one(queue)

    def break_off(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE asked_questions"):
            raise KeyboardInterrupt

    event.listen(ledger_engine, "before_cursor_execute", break_off)
    with pytest.raises(KeyboardInterrupt):
        queue.settle(asked, ANSWERED, claim=an_answer(clock))
    event.remove(ledger_engine, "before_cursor_execute", break_off)
    assert not store.order_history(KEY).claims
    clock.forward(60)
    assert claim_one(queue).order == KEY


@on_every_database
def test_several_processes_share_the_rate(
    store: LedgerStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    for number in range(200):
        store.inquire(OrderKey("acme", f"DK{number}"), InquiryReason.OPERATOR)
    agendas = [make_inquiry_queue(store, max_per_minute=1200) for _ in range(8)]
    counts = []
    with ThreadPoolExecutor(8) as threads:
        for _ in range(4):
            counts.append(sum(map(len, threads.map(claim_all, agendas))))
            clock.forward(0.5)
    # One second's worth that was unused, then half a second's each time.
    assert counts == [20, 10, 10, 10]


def test_forgeries_cannot_take_the_share_of_the_rate_that_is_kept_for_overdue_orders(
    store: LedgerStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    queue = make_inquiry_queue(store, max_per_minute=1200, overdue_share=0.75)
    store.record([a_claim(trust=Trust.CHECKSUM, order=f"F{number}") for number in range(100)])
    assert len(claim_all(queue)) == 5
    for number in range(100):
        store.announce(Announcement(merchant="acme", biz_order_no=f"DK{number}", answer_due_at=NOON))
    clock.forward(1)
    asked = claim_all(queue)
    assert (sum(inquiry.owed for inquiry in asked), len(asked)) == (15, 20)


def test_a_callback_on_the_orders_own_notify_url_does_not_wait_in_line_with_forgeries(
    store: LedgerStore, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    queue = make_inquiry_queue(store, max_per_minute=120)
    store.record([a_claim(trust=Trust.CHECKSUM, order=f"F{number}") for number in range(100)])
    assert len(claim_all(queue)) == 1
    store.record([a_claim(trust=Trust.CAPABILITY, order="DK1")])
    assert [inquiry.order for inquiry in claim_all(queue)] == [KEY]


def test_overdue_orders_get_every_other_thread_where_threads_are_what_is_short(
    store: LedgerStore, make_inquiry_queue: MakeInquiryQueue
) -> None:
    queue = make_inquiry_queue(store)
    store.record([a_claim(trust=Trust.CHECKSUM, order=f"F{number}") for number in range(50)])
    for number in range(50):
        store.announce(Announcement(merchant="acme", biz_order_no=f"DK{number}", answer_due_at=NOON))
    assert [inquiry.owed for inquiry in claim_all(queue, limit=4)] == [True, True, False, False]


def test_the_age_of_the_longest_due_inquiry_is_measured(store: LedgerStore, queue: InquiryQueue, clock: Clock) -> None:
    assert queue.oldest_due_ages(["acme"]) == {("acme", "owed"): 0.0, ("acme", "doubt"): 0.0}
    store.announce(ANNOUNCED)
    assert queue.oldest_due_ages(["acme"]) == {("acme", "owed"): 0.0, ("acme", "doubt"): 0.0}
    clock.forward(600)
    store.record([a_claim(trust=Trust.CHECKSUM, order="F1", stated_at=clock())])
    clock.forward(30)
    assert queue.oldest_due_ages(["acme"]) == {("acme", "owed"): 30.0, ("acme", "doubt"): 30.0}
    for asked in claim_all(queue):
        queue.settle(asked, NO_ANSWER)
    assert queue.oldest_due_ages(["acme"]) == {("acme", "owed"): 0.0, ("acme", "doubt"): 0.0}
