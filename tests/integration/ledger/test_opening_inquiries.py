"""When an inquiry is opened, and when nothing is left to ask."""

from datetime import timedelta

from sqlalchemy import Engine, update

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.order_state import Verdict
from service.ledger.inquiries import InquiryReason, InquiryRecord, InquiryState
from service.ledger.store import LedgerStore
from service.ledger.tables import inquiries
from tests.support.claims import NOON, a_claim
from tests.support.ledger import Count, MakeStore

KEY = OrderKey("acme", "DK1")


def inquiry_of(store: LedgerStore) -> InquiryRecord:
    inquiry = store.order_history(KEY).inquiry
    assert inquiry is not None
    return inquiry


def test_a_pending_order_is_asked_for_when_its_answer_is_overdue(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.PROCESSING)])
    inquiry = inquiry_of(store)
    assert inquiry.reasons is InquiryReason.OVERDUE
    assert inquiry.due_at == NOON + timedelta(seconds=600)


def test_an_unconfirmed_claim_is_asked_about_at_once(store: LedgerStore) -> None:
    store.record([a_claim(trust=Trust.CHECKSUM)])
    inquiry = inquiry_of(store)
    assert (inquiry.reasons, inquiry.due_at) == (InquiryReason.UNCONFIRMED, NOON)


def test_a_claim_that_nobody_can_read_is_asked_about_at_once_whoever_made_it(store: LedgerStore) -> None:
    store.record([a_claim(None, Trust.CHECKSUM, quarantine="unknown pay_status")])
    inquiry = inquiry_of(store)
    assert (inquiry.reasons, inquiry.due_at) == (InquiryReason.UNREADABLE, NOON)


def test_several_reasons_make_one_question_due_at_the_earliest(store: LedgerStore, count: Count) -> None:
    store.record([a_claim(OrderStatus.PROCESSING)])
    store.record([a_claim(trust=Trust.CHECKSUM)])
    store.record([a_claim(None, quarantine="unknown pay_status")])
    inquiry = inquiry_of(store)
    assert inquiry.reasons == InquiryReason.OVERDUE | InquiryReason.UNCONFIRMED | InquiryReason.UNREADABLE
    assert inquiry.due_at == NOON
    assert count(inquiries) == 1


def test_a_success_closes_what_was_open(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.PROCESSING)])
    store.record([a_claim()])
    assert inquiry_of(store).state is InquiryState.ANSWERED


def test_a_success_in_the_same_batch_leaves_nothing_to_ask(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim()])
    assert store.order_history(KEY).inquiry is None


def test_a_conflict_opens_an_inquiry_and_its_answer_closes_it(store: LedgerStore) -> None:
    store.record([a_claim(), a_claim(OrderStatus.FAILED, minute=1)])
    assert inquiry_of(store).reasons is InquiryReason.CONFLICT
    store.record([a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=2)])
    assert inquiry_of(store).state is InquiryState.ANSWERED


def test_a_forged_copy_of_what_is_known_asks_nothing(store: LedgerStore) -> None:
    store.record([a_claim()])
    store.record([a_claim(trust=Trust.CHECKSUM)])
    assert store.order_history(KEY).inquiry is None


def test_a_gateway_that_cannot_be_asked_is_not_asked(make_store: MakeStore, count: Count) -> None:
    store = make_store(can_ask=False)
    store.record([a_claim(OrderStatus.PROCESSING), a_claim(trust=Trust.CHECKSUM, order="DK2")])
    assert not store.inquire(KEY, InquiryReason.OPERATOR)
    assert count(inquiries) == 0


def test_a_person_or_a_lost_withhold_can_have_an_order_asked_about(store: LedgerStore) -> None:
    assert store.inquire(KEY, InquiryReason.UNKNOWN_OUTCOME)
    assert store.inquire(KEY, InquiryReason.OPERATOR)
    assert inquiry_of(store).reasons == InquiryReason.UNKNOWN_OUTCOME | InquiryReason.OPERATOR


def test_a_new_reason_never_asks_before_the_limits_allow(store: LedgerStore, ledger_engine: Engine) -> None:
    store.inquire(KEY, InquiryReason.OPERATOR)
    allowed = NOON + timedelta(hours=2)
    with ledger_engine.begin() as connection:
        connection.execute(update(inquiries).values(state="answered", not_before=allowed, attempts=4))
    store.record([a_claim(trust=Trust.CHECKSUM)])
    inquiry = inquiry_of(store)
    assert (inquiry.state, inquiry.due_at, inquiry.attempts) == (InquiryState.OPEN, allowed, 0)
    assert inquiry.reasons is InquiryReason.UNCONFIRMED


def test_a_reason_that_comes_while_the_gateway_is_asked_waits_for_the_answer(
    store: LedgerStore, ledger_engine: Engine
) -> None:
    store.inquire(KEY, InquiryReason.OPERATOR)
    with ledger_engine.begin() as connection:
        connection.execute(update(inquiries).values(state="asking"))
        store_raised = connection.execute(inquiries.select()).one().raised
    store.record([a_claim(trust=Trust.CHECKSUM)])
    with ledger_engine.connect() as connection:
        row = connection.execute(inquiries.select()).one()
    assert (row.state, row.raised) == ("asking", store_raised + 1)


def test_an_answer_that_says_what_is_known_leaves_a_doubt_that_came_after_it_was_asked_for(store: LedgerStore) -> None:
    store.record([a_claim()])
    store.record([a_claim(OrderStatus.FAILED, Trust.CHECKSUM, minute=5)])
    store.record([a_claim(trust=Trust.QUERIED, minute=4)])
    assert inquiry_of(store).state is InquiryState.OPEN


def test_a_parked_inquiry_is_closed_by_the_callback_that_came_after_all(
    store: LedgerStore, ledger_engine: Engine
) -> None:
    store.record([a_claim(OrderStatus.PROCESSING)])
    with ledger_engine.begin() as connection:
        connection.execute(update(inquiries).values(state="parked"))
    store.record([a_claim()])
    assert inquiry_of(store).state is InquiryState.ANSWERED


def test_a_callback_that_repeats_what_the_order_was_corrected_from_is_a_reason_to_ask_again(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.SUCCEEDED)])
    store.record([a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=1)])
    assert store.record([a_claim(OrderStatus.SUCCEEDED, minute=2)]) == [Verdict.DUPLICATE]
    inquiry = inquiry_of(store)
    assert (inquiry.state, inquiry.reasons) == (InquiryState.OPEN, InquiryReason.DOUBTED)


def test_a_callback_that_repeats_what_still_stands_asks_nothing(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.SUCCEEDED)])
    store.record([a_claim(OrderStatus.SUCCEEDED, minute=2)])
    assert store.order_history(KEY).inquiry is None
