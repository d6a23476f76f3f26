"""A resolution outranks every other claim, and is kept with its author and reason."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from service.domain.claims import ClaimSource, OrderKey, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import Verdict
from service.ledger.announcements import Announcement
from service.ledger.claims import Resolution
from service.ledger.errors import OrderChanged, OrderUnknown, UnknownMerchant
from service.ledger.inquiries import InquiryState
from service.ledger.proposals import ProposalRecord
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim

KEY = OrderKey("acme", "DK1")
PAID = Resolution(order=KEY, status=OrderStatus.SUCCEEDED, stated_by="Li (command line)", reason="the bank has it")


def test_an_operators_word_settles_a_conflict_and_closes_its_inquiry(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.FAILED), a_claim(OrderStatus.SUCCEEDED, minute=1)])
    assert store.resolve(PAID) is Verdict.CORRECTED
    history = store.order_history(KEY)
    assert history.order is not None
    assert (history.order.state.status, history.order.state.trust) == (OrderStatus.SUCCEEDED, Trust.OPERATOR)
    assert not history.order.state.conflicted
    assert history.events[-1].type is EventType.CORRECTED
    assert history.inquiry is not None
    assert history.inquiry.state is InquiryState.ANSWERED


def test_who_decided_and_why_is_kept(store: LedgerStore) -> None:
    store.announce(Announcement(merchant="acme", biz_order_no="DK1"))
    store.resolve(PAID)
    (claim,) = store.order_history(KEY).claims
    assert (claim.source, claim.stated_by, claim.reason) == (ClaimSource.OPERATOR, PAID.stated_by, PAID.reason)


def test_what_an_operator_says_twice_is_there_twice_and_tells_downstream_once(store: LedgerStore) -> None:
    store.announce(Announcement(merchant="acme", biz_order_no="DK1"))
    assert [store.resolve(PAID), store.resolve(PAID)] == [Verdict.APPLIED, Verdict.DUPLICATE]
    history = store.order_history(KEY)
    assert (len(history.claims), len(history.events)) == (2, 1)


def test_an_order_that_nobody_believes_in_can_be_resolved(store: LedgerStore) -> None:
    store.record([a_claim(trust=Trust.CHECKSUM)])
    assert store.resolve(PAID) is Verdict.APPLIED


def test_a_slip_of_the_pen_makes_no_payment(store: LedgerStore) -> None:
    with pytest.raises(OrderUnknown):
        store.resolve(PAID)
    assert not store.order_history(KEY).known


def test_a_merchant_that_is_not_configured_has_nothing_to_resolve(store: LedgerStore) -> None:
    with pytest.raises(UnknownMerchant):
        store.resolve(replace(PAID, order=OrderKey("nobody", "DK1")))


def test_of_two_people_who_saw_the_same_order_only_the_first_decides(store: LedgerStore) -> None:
    store.announce(Announcement(merchant="acme", biz_order_no="DK1"))
    decisions = [replace(PAID, seen_sequence=0), replace(PAID, seen_sequence=0, status=OrderStatus.FAILED)] * 4

    def decide(resolution: Resolution) -> Verdict | ProposalRecord | int:
        try:
            return store.resolve(resolution)
        except OrderChanged as error:
            return error.sequence

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(decide, decisions))
    assert sorted(results, key=str) == [1] * 7 + [Verdict.APPLIED]
    history = store.order_history(KEY)
    assert (len(history.claims), len(history.events)) == (1, 1)


def test_a_person_who_saw_the_last_change_decides(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim(OrderStatus.FAILED, minute=1)])
    assert store.resolve(replace(PAID, seen_sequence=2)) is Verdict.CORRECTED
