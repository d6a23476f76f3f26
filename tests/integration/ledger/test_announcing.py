"""Orders that are announced before they are sent."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.claims import OrderKey, OrderStatus
from service.ledger.announcements import Announcement
from service.ledger.errors import AnnouncementDiffers, ClaimUnstorable, UnknownMerchant
from service.ledger.inquiries import InquiryReason, InquiryState
from service.ledger.orders import OrderFilter
from service.ledger.store import LedgerStore
from tests.support.claims import NOON, a_claim

KEY = OrderKey("acme", "DK1")
ANNOUNCED = Announcement(merchant="acme", biz_order_no="DK1", amount="10.50", amount_unit="yuan", pay_type="bank")


def test_an_announced_order_is_known_and_nobody_has_spoken_of_it(store: LedgerStore) -> None:
    store.announce(ANNOUNCED)
    order = store.load_order(KEY)
    assert order is not None
    assert (order.state.status, order.state.trust) == (OrderStatus.INITIAL, None)
    assert (order.amount, order.amount_unit) == ("10.50", "yuan")


def test_announcing_the_same_again_is_harmless(store: LedgerStore) -> None:
    assert store.announce(ANNOUNCED) == store.announce(ANNOUNCED)


@pytest.mark.parametrize("fields", [{"amount": "10.51"}, {"amount_unit": "fen", "pay_type": "other"}])
def test_announcing_other_values_says_which_differ(store: LedgerStore, fields: dict[str, Any]) -> None:
    store.announce(ANNOUNCED)
    with pytest.raises(AnnouncementDiffers) as caught:
        store.announce(replace(ANNOUNCED, **fields))
    assert caught.value.fields == tuple(fields)


def test_a_merchant_that_is_not_configured_cannot_announce(store: LedgerStore) -> None:
    with pytest.raises(UnknownMerchant):
        store.announce(replace(ANNOUNCED, merchant="nobody"))


@pytest.mark.parametrize("fields", [{"biz_order_no": "x" * 129}, {"biz_order_no": ""}, {"pay_type": "\x00"}])
def test_an_announcement_that_cannot_be_stored_is_refused(store: LedgerStore, fields: dict[str, Any]) -> None:
    with pytest.raises(ClaimUnstorable):
        store.announce(replace(ANNOUNCED, **fields))


def test_the_announced_amount_goes_out_with_the_event(store: LedgerStore) -> None:
    store.announce(ANNOUNCED)
    store.record([a_claim()])
    (event,) = store.order_history(KEY).events
    assert b'"amount":"10.50","amount_unit":"yuan"' in event.body


def test_an_announcement_that_a_callback_overtook_fills_in_the_amount(store: LedgerStore) -> None:
    store.record([a_claim()])
    order = store.announce(ANNOUNCED)
    assert (order.amount, order.state.status) == ("10.50", OrderStatus.SUCCEEDED)
    assert store.load_order(KEY) == order


def test_an_announced_order_is_asked_for_when_its_answer_is_due(store: LedgerStore) -> None:
    due = NOON + timedelta(minutes=3)
    store.announce(replace(ANNOUNCED, answer_due_at=due))
    inquiry = store.order_history(KEY).inquiry
    assert inquiry is not None
    assert (inquiry.state, inquiry.reasons, inquiry.due_at) == (InquiryState.OPEN, InquiryReason.OVERDUE, due)


def test_a_success_closes_the_inquiry_of_an_announced_order(store: LedgerStore) -> None:
    store.announce(ANNOUNCED)
    store.record([a_claim()])
    inquiry = store.order_history(KEY).inquiry
    assert inquiry is not None
    assert inquiry.state is InquiryState.ANSWERED


def test_orders_are_listed_by_what_is_asked_for(store: LedgerStore) -> None:
    store.announce(ANNOUNCED)
    store.record([a_claim(order="DK2"), a_claim(order="DK3"), a_claim(OrderStatus.FAILED, order="DK3", minute=1)])

    def listed(chosen: OrderFilter) -> set[str]:
        return {order.biz_order_no for order in store.list_orders(chosen, limit=10)}

    assert listed(OrderFilter()) == {"DK1", "DK2", "DK3"}
    assert listed(OrderFilter(merchant="acme", status=OrderStatus.INITIAL)) == {"DK1"}
    assert listed(OrderFilter(conflicted=True)) == {"DK3"}
    assert listed(OrderFilter(status=OrderStatus.SUCCEEDED, conflicted=False)) == {"DK2"}
    assert listed(OrderFilter(updated_before=NOON)) == set()
