"""Withholds that the gateway answered with -1: which rule ends their orders, what stops it, and what corrects it."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import Engine

from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.domain.refused_withholds import RefusalRule, RefusalRules
from service.ledger.announcements import Announcement
from service.ledger.attention import AttentionFilter, AttentionItem, AttentionKind, AttentionList
from service.ledger.claims import Resolution
from service.ledger.histories import OrderHistory
from service.ledger.inquiries import InquiryReason, InquiryState
from service.ledger.inquiry_questions import QuestionOutcome, QuestionResult
from service.ledger.inquiry_queue import InquiryQueue, Settlement
from service.ledger.orders import OrderRecord
from service.ledger.refused_withholds import WATCHED_FOR, Suspension
from service.ledger.store import LedgerStore
from service.ledger.withholds import SentBefore, WithholdOutcome, Withholds
from tests.support.claims import a_claim
from tests.support.ledger import Clock, MakeInquiryQueue, MakeStore, end_refused

EMPTY = "余额不足"
BUSY = "系统繁忙"
RULES = RefusalRules(messages=[EMPTY], not_found_times=8, not_found_hours=24, max_per_hour=3)
EVERY_SHARE = {"first_repeat_seconds": 3 * 3600, "max_repeat_seconds": 3 * 3600}
KEY = OrderKey("acme", "DK1")
HOUR = 3600
NOT_FOUND = QuestionResult(outcome=QuestionOutcome.NOT_FOUND, request_id="r", seconds=0.1)
NO_ANSWER = QuestionResult(outcome=QuestionOutcome.NO_ANSWER, request_id="r", seconds=0.1)
ANSWERED = QuestionResult(outcome=QuestionOutcome.ANSWERED, request_id="r", seconds=0.1)

MakeWithholds = Callable[..., Withholds]
#: What the gateway answers about an order: a claim, or the reason why there is none.
Reply = Callable[[OrderKey], Claim | QuestionResult]


@pytest.fixture
def store(make_store: MakeStore) -> LedgerStore:
    return make_store(required=Trust.QUERIED, horizon_seconds=72 * HOUR)


@pytest.fixture
def queue(store: LedgerStore, make_inquiry_queue: MakeInquiryQueue) -> InquiryQueue:
    # Few questions cover the hours, so that the tests are quick.
    return make_inquiry_queue(store, refusal_rules=RULES, **EVERY_SHARE)


@pytest.fixture
def make_withholds(ledger_engine: Engine, clock: Clock, store: LedgerStore) -> MakeWithholds:
    return lambda rules: Withholds(engine=ledger_engine, clock=clock, refusals=end_refused(store, rules))


@pytest.fixture
def withholds(make_withholds: MakeWithholds) -> Withholds:
    return make_withholds(RULES)


def send(store: LedgerStore, withholds: Withholds, order: str = "DK1") -> OrderKey:
    store.announce(Announcement(merchant="acme", biz_order_no=order, amount="100.00", amount_unit="yuan"))
    withholds.begin(OrderKey("acme", order), sent_by="shop")
    return OrderKey("acme", order)


def refuse(store: LedgerStore, withholds: Withholds, message: str = BUSY, order: str = "DK1") -> OrderKey:
    """The gateway answers -1, as `charging` records it."""
    key = send(store, withholds, order)
    store.inquire(key, InquiryReason.UNKNOWN_OUTCOME)
    withholds.settle(key, WithholdOutcome.UNKNOWN, detail="the gateway answered status -1", refusal_message=message)
    return key


def accept(store: LedgerStore, withholds: Withholds, order: str) -> OrderKey:
    key = send(store, withholds, order)
    withholds.settle(key, WithholdOutcome.ACCEPTED)
    return key


def not_found(_order: OrderKey) -> QuestionResult:
    return NOT_FOUND


def ask(queue: InquiryQueue, reply: Reply = not_found) -> list[Settlement]:
    """Ask all that is due now."""
    settled = []
    for asked in queue.lease_due("acme", limit=1000, lease_seconds=60):
        answer = reply(asked.order)
        if isinstance(answer, Claim):
            settled.append(queue.settle(asked, ANSWERED, claim=answer))
        else:
            settled.append(queue.settle(asked, answer))
    return settled


def ask_for(queue: InquiryQueue, clock: Clock, hours: int, reply: Reply = not_found) -> list[Settlement]:
    """Ask every hour what is due."""
    settled = ask(queue, reply)
    for _ in range(hours):
        clock.forward(HOUR)
        settled += ask(queue, reply)
    return settled


def ended_by(settled: Sequence[Settlement]) -> list[RefusalRule]:
    return [one.ended_by for one in settled if one.ended_by]


def order_of(store: LedgerStore, key: OrderKey = KEY) -> OrderRecord:
    order = store.load_order(key)
    assert order is not None
    return order


def believed(store: LedgerStore, key: OrderKey = KEY) -> tuple[OrderStatus, Trust | None]:
    state = order_of(store, key).state
    return state.status, state.trust


def event_types(history: OrderHistory) -> list[str]:
    return [event.type.value for event in history.events]


def inquiry_state(store: LedgerStore, key: OrderKey = KEY) -> InquiryState:
    inquiry = store.load_inquiry(key)
    assert inquiry is not None
    return inquiry.state


def items(attention: AttentionList, kind: AttentionKind) -> list[AttentionItem]:
    return list(attention.list(AttentionFilter(kind=kind), limit=100))


def an_answer(clock: Clock, status: OrderStatus | None, order: str = "DK1", **more: Any) -> Claim:
    return a_claim(status, Trust.QUERIED, order=order, stated_at=clock(), **more)


ENDED = (OrderStatus.FAILED, Trust.RULE)
OPEN = (OrderStatus.INITIAL, None)

# --- the rule "refusal-message" ---


def test_a_message_that_the_operator_named_ends_the_order_with_the_refusal_and_the_event_says_so(
    store: LedgerStore, withholds: Withholds
) -> None:
    refuse(store, withholds, EMPTY)
    history = store.order_history(KEY)
    assert believed(store) == ENDED
    assert event_types(history) == ["payment.failed"]
    data = json.loads(history.events[0].body)["data"]
    assert (data["status"], data["trust"], data["rule"]) == ("failed", "rule", "refusal-message")
    [claim] = history.claims
    assert (claim.source, claim.stated_by) == ("rule", "refusal-message")
    assert "refused_withholds.messages" in claim.reason


def test_an_order_that_a_rule_has_ended_is_never_sent_again(store: LedgerStore, withholds: Withholds) -> None:
    refuse(store, withholds, EMPTY)
    with pytest.raises(SentBefore) as caught:
        withholds.begin(KEY, sent_by="shop")
    assert caught.value.record.outcome is WithholdOutcome.UNKNOWN
    assert caught.value.record.ended_at is not None


@pytest.mark.parametrize("message", [BUSY, EMPTY + "!", ""])
def test_another_message_ends_nothing(store: LedgerStore, withholds: Withholds, message: str) -> None:
    refuse(store, withholds, message)
    assert believed(store) == OPEN


def test_without_rules_a_refusal_ends_nothing(
    store: LedgerStore, make_withholds: MakeWithholds, make_inquiry_queue: MakeInquiryQueue, clock: Clock
) -> None:
    refuse(store, make_withholds(None), EMPTY)
    settled = ask_for(make_inquiry_queue(store, **EVERY_SHARE), clock, 80)
    assert believed(store) == OPEN
    assert settled[-1].state is InquiryState.PARKED
    assert store.order_history(KEY).events == []


# --- the rule "not-found" ---


def test_an_order_that_the_gateway_refused_and_does_not_have_for_a_day_ends(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock
) -> None:
    refuse(store, withholds)
    assert ended_by(ask_for(queue, clock, 23)) == []
    assert believed(store) == OPEN
    assert ended_by(ask_for(queue, clock, 2)) == [RefusalRule.NOT_FOUND]
    assert believed(store) == ENDED
    [event] = store.order_history(KEY).events
    assert json.loads(event.body)["data"]["rule"] == "not-found"


def test_after_the_end_the_gateway_is_asked_to_the_horizon_and_then_nobody_is_called(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock, attention: AttentionList
) -> None:
    refuse(store, withholds)
    settled = ask_for(queue, clock, 71)
    assert len(ended_by(settled)) == 1
    assert (believed(store), inquiry_state(store)) == (ENDED, InquiryState.OPEN)
    assert settled[-1].state is InquiryState.OPEN
    assert ask_for(queue, clock, 3)[-1].state is InquiryState.ANSWERED
    assert attention.list(AttentionFilter(), limit=10) == []
    assert event_types(store.order_history(KEY)) == ["payment.failed"]


def test_questions_without_an_answer_neither_count_nor_break_the_series(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock
) -> None:
    refuse(store, withholds)
    ask_for(queue, clock, 16)
    assert ended_by(ask_for(queue, clock, 24, lambda _: NO_ANSWER)) == []
    assert ended_by(ask_for(queue, clock, 12)) == [RefusalRule.NOT_FOUND]


def test_a_withhold_whose_answer_was_lost_is_ended_by_no_rule(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock
) -> None:
    send(store, withholds)
    store.inquire(KEY, InquiryReason.UNKNOWN_OUTCOME)
    withholds.settle(KEY, WithholdOutcome.UNKNOWN, detail="no answer came")
    assert ended_by(ask_for(queue, clock, 80)) == []
    assert (believed(store), inquiry_state(store)) == (OPEN, InquiryState.PARKED)


def test_a_refused_order_that_a_rule_will_end_is_no_persons_work_until_it_takes_too_long(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock, attention: AttentionList
) -> None:
    refuse(store, withholds)
    ask_for(queue, clock, 20)
    assert attention.list(AttentionFilter(), limit=10) == []
    ask_for(queue, clock, 28, lambda _: NO_ANSWER)
    [item] = items(attention, AttentionKind.UNKNOWN_WITHHOLD)
    assert item.biz_order_no == "DK1"


# --- what stops a rule ---


@pytest.mark.parametrize(
    "claim",
    [
        a_claim(OrderStatus.PROCESSING, Trust.CHECKSUM),
        a_claim(OrderStatus.SUCCEEDED, Trust.CHECKSUM),
        a_claim(OrderStatus.SUCCEEDED, Trust.CAPABILITY),
        a_claim(OrderStatus.INITIAL, Trust.CAPABILITY),
        a_claim(None, Trust.CAPABILITY, quarantine="pay_status: ??"),
    ],
    ids=lambda claim: f"{claim.status}-{claim.trust.word}",
)
@pytest.mark.parametrize(("message", "comes"), [(EMPTY, "before"), (BUSY, "before"), (BUSY, "after")])
def test_a_claim_of_any_trust_that_contradicts_the_refusal_stops_the_rule_and_calls_a_person(
    store: LedgerStore,
    withholds: Withholds,
    queue: InquiryQueue,
    clock: Clock,
    attention: AttentionList,
    claim: Claim,
    message: str,
    comes: str,
) -> None:
    key = send(store, withholds)
    store.inquire(key, InquiryReason.UNKNOWN_OUTCOME)
    if comes == "before":
        store.record([claim])
    withholds.settle(key, WithholdOutcome.UNKNOWN, refusal_message=message)
    if comes == "after":
        store.record([claim])
    assert ended_by(ask_for(queue, clock, 40)) == []
    assert believed(store) == OPEN
    [item] = items(attention, AttentionKind.CONTRADICTED_WITHHOLD)
    assert (item.biz_order_no, item.amount) == ("DK1", "100.00")
    assert "refused" in item.detail


def test_an_untrusted_failure_contradicts_no_refusal(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock
) -> None:
    refuse(store, withholds)
    store.record([a_claim(OrderStatus.FAILED, Trust.CAPABILITY)])
    assert ended_by(ask_for(queue, clock, 40)) == [RefusalRule.NOT_FOUND]


@pytest.mark.parametrize("status", [OrderStatus.INITIAL, OrderStatus.PROCESSING, None])
def test_any_answer_but_not_found_stops_the_rule_for_good(
    store: LedgerStore,
    withholds: Withholds,
    queue: InquiryQueue,
    clock: Clock,
    attention: AttentionList,
    status: OrderStatus | None,
) -> None:
    refuse(store, withholds)
    quarantine = None if status else "pay_status: ??"
    ask_for(queue, clock, 2, lambda _: an_answer(clock, status, quarantine=quarantine))
    assert ended_by(ask_for(queue, clock, 60)) == []
    assert order_of(store).state.status is (status or OrderStatus.INITIAL)
    assert [item.biz_order_no for item in items(attention, AttentionKind.CONTRADICTED_WITHHOLD)] == ["DK1"]


def test_an_answer_about_the_order_in_another_spelling_stops_the_rule_for_good(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock
) -> None:
    refuse(store, withholds)
    ask_for(
        queue, clock, 1, lambda _: QuestionResult(outcome=QuestionOutcome.OTHER_SPELLING, request_id="r", seconds=0.1)
    )
    assert ended_by(ask_for(queue, clock, 80)) == []
    assert (believed(store), inquiry_state(store)) == (OPEN, InquiryState.PARKED)


def test_the_contradiction_ends_with_the_order(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock, attention: AttentionList
) -> None:
    refuse(store, withholds)
    store.record([a_claim(OrderStatus.SUCCEEDED, Trust.CAPABILITY)])
    assert items(attention, AttentionKind.CONTRADICTED_WITHHOLD)
    clock.forward(60)
    ask(queue, lambda _: an_answer(clock, OrderStatus.SUCCEEDED))
    assert attention.list(AttentionFilter(), limit=10) == []


# --- corrections ---


@pytest.mark.parametrize("trust", [Trust.QUERIED, Trust.OPERATOR])
def test_a_later_success_corrects_the_end_and_suspends_the_rules_for_a_day(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock, trust: Trust
) -> None:
    refuse(store, withholds, EMPTY)
    clock.forward(60)
    if trust is Trust.QUERIED:
        ask(queue, lambda _: an_answer(clock, OrderStatus.SUCCEEDED))
    else:
        store.resolve(Resolution(order=KEY, status=OrderStatus.SUCCEEDED, stated_by="Li", reason="on the statement"))
    assert believed(store) == (OrderStatus.SUCCEEDED, trust)
    assert event_types(store.order_history(KEY)) == ["payment.failed", "payment.corrected"]
    assert inquiry_state(store) is InquiryState.ANSWERED
    assert queue.count_suspensions()["acme", Suspension.CORRECTION] == 1
    later = refuse(store, withholds, EMPTY, "DK2")
    assert believed(store, later) == OPEN
    assert ended_by(ask_for(queue, clock, 23)) == []
    assert ended_by(ask_for(queue, clock, 5)) == [RefusalRule.MESSAGE]
    assert queue.count_suspensions()["acme", Suspension.CORRECTION] == 0


def test_a_trusted_failure_confirms_the_end_without_an_event_and_ends_the_inquiry(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock
) -> None:
    refuse(store, withholds, EMPTY)
    clock.forward(60)
    ask(queue, lambda _: an_answer(clock, OrderStatus.FAILED))
    assert believed(store) == (OrderStatus.FAILED, Trust.QUERIED)
    assert event_types(store.order_history(KEY)) == ["payment.failed"]
    assert inquiry_state(store) is InquiryState.ANSWERED


def test_an_untrusted_success_after_the_end_is_asked_about_and_calls_a_person_for_a_while(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock, attention: AttentionList
) -> None:
    refuse(store, withholds, EMPTY)
    ask(queue)
    store.record([a_claim(OrderStatus.SUCCEEDED, Trust.CAPABILITY, minute=1)])
    assert believed(store) == ENDED
    assert items(attention, AttentionKind.CONTRADICTED_WITHHOLD)
    clock.forward(60)
    assert len(ask(queue)) == 1
    clock.forward(WATCHED_FOR.total_seconds())
    assert items(attention, AttentionKind.CONTRADICTED_WITHHOLD) == []


def test_in_every_order_of_arrival_a_success_stands_in_the_end_and_a_failure_is_sent_only_before_any_contradiction(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock
) -> None:
    for number, arrival in enumerate(permutations(["refusal", "untrusted", "success"])):
        order = f"DK{number}"
        key = send(store, withholds, order)
        for one in arrival:
            clock.forward(1)
            if one == "refusal":
                withholds.settle(key, WithholdOutcome.UNKNOWN, refusal_message=EMPTY)
            elif one == "untrusted":
                store.record([a_claim(OrderStatus.PROCESSING, Trust.CHECKSUM, order=order)])
            else:
                store.record([an_answer(clock, OrderStatus.SUCCEEDED, order)])
        history = store.order_history(key)
        assert believed(store, key) == (OrderStatus.SUCCEEDED, Trust.QUERIED)
        corrected = ["payment.failed", "payment.corrected"]
        assert event_types(history) == (corrected if arrival[0] == "refusal" else ["payment.succeeded"])
        # The next order must not find the rules suspended by this one.
        clock.forward(25 * HOUR)


# --- suspension ---


def test_while_the_gateway_does_not_have_an_order_that_it_accepted_no_rule_ends_any(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock, attention: AttentionList
) -> None:
    accept(store, withholds, "DK0")
    refused = refuse(store, withholds)
    assert ended_by(ask_for(queue, clock, 40)) == []
    assert queue.count_suspensions()["acme", Suspension.MISSING_ORDER] == 1
    [item] = items(attention, AttentionKind.CONTRADICTED_WITHHOLD)
    assert (item.biz_order_no, item.detail) == (
        "DK0",
        "The gateway had the order. It answers now that it does not exist.",
    )
    # What waits is shown, too.
    assert [item.biz_order_no for item in items(attention, AttentionKind.UNKNOWN_WITHHOLD)] == ["DK1"]

    def found_again(order: OrderKey) -> Claim | QuestionResult:
        return an_answer(clock, OrderStatus.PROCESSING, "DK0") if order.biz_order_no == "DK0" else NOT_FOUND

    assert ended_by(ask_for(queue, clock, 5, found_again)) == [RefusalRule.NOT_FOUND]
    assert believed(store, refused) == ENDED
    assert queue.count_suspensions()["acme", Suspension.MISSING_ORDER] == 0
    assert items(attention, AttentionKind.CONTRADICTED_WITHHOLD) == []


@pytest.mark.parametrize("status", [OrderStatus.PROCESSING, OrderStatus.SUCCEEDED])
def test_while_the_gateway_does_not_have_an_order_that_it_called_processing_or_paid_no_rule_ends_any(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock, status: OrderStatus
) -> None:
    store.record([an_answer(clock, status, "DK0")])
    clock.forward(60)
    store.inquire(OrderKey("acme", "DK0"), InquiryReason.OPERATOR)
    ask(queue)
    assert queue.count_suspensions()["acme", Suspension.MISSING_ORDER] == 1
    refuse(store, withholds, EMPTY)
    assert believed(store) == OPEN


def test_a_person_who_settles_the_missing_order_lets_the_rules_go_on(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock, attention: AttentionList
) -> None:
    missing = accept(store, withholds, "DK0")
    refuse(store, withholds)
    ask_for(queue, clock, 40)
    store.resolve(Resolution(order=missing, status=OrderStatus.FAILED, stated_by="Li", reason="their staff says so"))
    assert items(attention, AttentionKind.CONTRADICTED_WITHHOLD) == []
    assert ended_by(ask_for(queue, clock, 5)) == [RefusalRule.NOT_FOUND]


def test_an_order_that_was_accepted_after_the_question_is_not_missing(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock
) -> None:
    key = send(store, withholds, "DK0")
    store.inquire(key, InquiryReason.OPERATOR)
    [asked] = queue.lease_due("acme", limit=1, lease_seconds=60)
    clock.forward(1)
    withholds.settle(key, WithholdOutcome.ACCEPTED)
    queue.settle(asked, NOT_FOUND)
    assert queue.count_suspensions()["acme", Suspension.MISSING_ORDER] == 0


def test_no_more_orders_end_in_an_hour_than_allowed_and_the_others_end_later(
    store: LedgerStore, withholds: Withholds, queue: InquiryQueue, clock: Clock, attention: AttentionList
) -> None:
    keys = [refuse(store, withholds, EMPTY, f"DK{number}") for number in range(5)]
    assert [believed(store, key) for key in keys] == [ENDED] * 3 + [OPEN] * 2
    assert queue.count_suspensions()["acme", Suspension.MAX_PER_HOUR] == 2
    clock.forward(600)
    waiting = items(attention, AttentionKind.UNKNOWN_WITHHOLD)
    assert [item.biz_order_no for item in waiting] == ["DK3", "DK4"]
    assert ended_by(ask(queue)) == []
    assert ended_by(ask_for(queue, clock, 4)) == [RefusalRule.MESSAGE] * 2
    assert queue.count_suspensions()["acme", Suspension.MAX_PER_HOUR] == 0
    assert attention.list(AttentionFilter(), limit=10) == []


def test_no_more_orders_end_than_allowed_however_many_are_refused_at_once(
    store: LedgerStore, withholds: Withholds
) -> None:
    keys = [send(store, withholds, f"DK{number}") for number in range(12)]

    def settle(key: OrderKey) -> None:
        withholds.settle(key, WithholdOutcome.UNKNOWN, refusal_message=EMPTY)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(settle, keys))
    assert [believed(store, key) for key in keys].count(ENDED) == RULES.max_per_hour


def test_a_claim_that_comes_at_the_same_moment_as_the_refusal_is_never_lost(
    store: LedgerStore, make_withholds: MakeWithholds, clock: Clock
) -> None:
    withholds = make_withholds(
        RefusalRules(messages=[EMPTY], not_found_times=None, not_found_hours=24, max_per_hour=99)
    )
    keys = [send(store, withholds, f"DK{number}") for number in range(12)]

    def both(key: OrderKey) -> None:
        with ThreadPoolExecutor(2) as threads:
            refused = threads.submit(withholds.settle, key, WithholdOutcome.UNKNOWN, refusal_message=EMPTY)
            store.record([a_claim(OrderStatus.SUCCEEDED, Trust.CAPABILITY, order=key.biz_order_no)])
            refused.result()

    for key in keys:
        both(key)
    for key in keys:
        verdicts = [claim.verdict for claim in store.order_history(key).claims]
        # The first is the success, which stops the rule; or the rule's, and the success is a reason to ask.
        assert len(verdicts) == (2 if believed(store, key) == ENDED else 1)
        inquiry = store.load_inquiry(key)
        assert inquiry is not None
        assert inquiry.reasons & InquiryReason.UNCONFIRMED
