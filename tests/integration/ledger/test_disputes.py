"""What a dispute about a payment's identity leaves in the database and tells downstream, on both databases."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Table

from service.config.settings import AmountField, MerchantSettings
from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.money import Money
from service.domain.order_state import Dispute, Verdict
from service.gateway.bodies import BodyKind
from service.gateway.order_claims import claim_from_callback
from service.gateway.signature import VerifiedCallback
from service.ledger.announcements import Announcement
from service.ledger.claims import Resolution
from service.ledger.decisions import EndpointRules
from service.ledger.errors import AnnouncementDiffers
from service.ledger.inquiries import InquiryReason
from service.ledger.orders import OrderRecord
from service.ledger.store import LedgerStore
from service.ledger.tables import claims
from tests.support.claims import NOON, a_claim
from tests.support.ledger import Clock, MakeStore

KEY = OrderKey("acme", "DK1")
ANNOUNCED = Announcement(
    merchant="acme", biz_order_no="DK1", amount="100.00", amount_unit="yuan", pay_type="baofoo_001"
)
EVERYTHING = (EndpointRules(name="books", types=frozenset(EventType)),)
CENT = Money("0.01", "yuan")


def bodies(store: LedgerStore) -> Sequence[Mapping[str, Any]]:
    return [json.loads(event.body) for event in store.order_history(KEY).events]


def order_of(store: LedgerStore) -> OrderRecord:
    order = store.load_order(KEY)
    assert order is not None
    return order


def test_another_pay_type_than_announced_is_told_as_a_conflict_with_both_values(make_store: MakeStore) -> None:
    store = make_store(endpoints=EVERYTHING)
    store.announce(ANNOUNCED)
    assert store.record([a_claim(pay_type="kuaiqian_002")]) == [Verdict.CONFLICT]
    [event] = bodies(store)
    assert event["type"] == "payment.conflicted"
    assert (event["data"]["status"], event["data"]["pay_type"]) == ("initial", "baofoo_001")
    assert event["data"]["disputed"] == {"pay_type": {"stands": "baofoo_001", "other": "kuaiqian_002"}}
    inquiry = store.load_inquiry(KEY)
    assert inquiry is not None
    assert InquiryReason.CONFLICT in inquiry.reasons


def test_an_answer_settles_the_pay_type_and_both_values_stay_recorded(make_store: MakeStore) -> None:
    store = make_store(endpoints=EVERYTHING)
    store.announce(ANNOUNCED)
    store.record([a_claim(pay_type="kuaiqian_002"), a_claim(trust=Trust.QUERIED, minute=1, pay_type="kuaiqian_002")])
    assert [(event["type"], event["data"]["pay_type"]) for event in bodies(store)] == [
        ("payment.conflicted", "baofoo_001"),
        ("payment.succeeded", "kuaiqian_002"),
    ]
    order = order_of(store)
    assert (order.state.pay_type, order.state.announced_pay_type) == ("kuaiqian_002", "baofoo_001")
    assert (order.state.disputed, order.disputed_fields) == ((), frozenset({"pay_type"}))
    assert store.announce(ANNOUNCED) == order
    with pytest.raises(AnnouncementDiffers, match="pay_type"):
        store.announce(replace(ANNOUNCED, pay_type="kuaiqian_002"))


def test_a_false_amount_waits_for_an_operator_and_the_gateway_is_not_asked_for_it(make_store: MakeStore) -> None:
    store = make_store(endpoints=EVERYTHING)
    store.announce(replace(ANNOUNCED, pay_type=""))
    store.record([a_claim(amount=CENT), a_claim(trust=Trust.QUERIED, minute=1)])
    order = order_of(store)
    assert (order.state.status, order.amount, order.state.disputed) == (
        OrderStatus.INITIAL,
        "100.00",
        (Dispute("amount", "0.01"),),
    )
    inquiry = store.load_inquiry(KEY)
    assert inquiry is not None
    assert inquiry.reasons == InquiryReason.OVERDUE
    store.resolve(
        Resolution(order=KEY, status=OrderStatus.SUCCEEDED, stated_by="Li", reason="the bank has it", amount=CENT)
    )
    assert [(event["type"], event["data"]["amount"]) for event in bodies(store)] == [
        ("payment.conflicted", "100.00"),
        ("payment.succeeded", "0.01"),
    ]
    order = order_of(store)
    assert (order.amount, order.announced_amount, order.state.conflicted) == ("0.01", "100.00", False)


def test_the_amount_of_an_order_that_was_never_announced_goes_out_as_claimed(make_store: MakeStore) -> None:
    store = make_store(endpoints=EVERYTHING)
    store.record([a_claim(amount=CENT)])
    [event] = bodies(store)
    assert (event["data"]["amount"], event["data"]["amount_unit"]) == ("0.01", "yuan")
    [claim] = store.order_history(KEY).claims
    assert (claim.amount, claim.amount_unit) == ("0.01", "yuan")


def test_a_later_announcement_opens_the_dispute_and_overwrites_nothing(make_store: MakeStore, clock: Clock) -> None:
    store = make_store(endpoints=EVERYTHING)
    store.record([a_claim(pay_type="kuaiqian_002", traceparent="00-trace")])
    clock.forward(60)
    order = store.announce(ANNOUNCED)
    assert order == order_of(store)
    assert (order.state.pay_type, order.state.announced_pay_type) == ("kuaiqian_002", "baofoo_001")
    _, event = bodies(store)
    assert event["type"] == "payment.conflicted"
    assert event["data"]["disputed"] == {"pay_type": {"stands": "kuaiqian_002", "other": "baofoo_001"}}
    assert (event["data"]["sequence"], event["time"]) == (2, "2026-01-05T12:01:00+00:00")
    [_, told] = store.order_history(KEY).events
    assert [delivery.endpoint for delivery in told.deliveries] == ["books"]
    inquiry = store.load_inquiry(KEY)
    assert inquiry is not None
    assert inquiry.reasons == InquiryReason.CONFLICT
    assert store.announce(ANNOUNCED) == order
    assert len(bodies(store)) == 2


def test_an_endpoint_without_conflicts_learns_of_another_payment_though_the_status_stays(store: LedgerStore) -> None:
    store.record(
        [
            a_claim(pay_type="baofoo_001"),
            a_claim(minute=1, pay_type="kuaiqian_002"),
            a_claim(trust=Trust.QUERIED, minute=2, pay_type="kuaiqian_002"),
        ]
    )
    sent = [
        (event.type, [delivery.endpoint for delivery in event.deliveries]) for event in store.order_history(KEY).events
    ]
    assert sent == [(EventType.SUCCEEDED, ["books"]), (EventType.CONFLICTED, []), (EventType.CORRECTED, ["books"])]


def old_success(*, mapped: bool, amount: str, minute: int) -> Claim:
    """A success as the receiver reads it, before or after its merchant's amount was mapped."""
    fields = {
        "biz_order_no": "DK1",
        "pay_order_no": "P1",
        "order_type": "single_withhold",
        "pay_type": "baofoo_001",
        "pay_status": "success",
        "pay_time": "2019-07-01 12:00:05",
        "channel_response": "",
        "total": amount,
    }
    return claim_from_callback(
        VerifiedCallback(fields=fields, sign="a" * 32, dialect="spliced", kind=BodyKind.JSON),
        merchant=MerchantSettings(
            slug="acme",
            pay_types=frozenset({"baofoo_001"}),
            amount_unit="yuan",
            amount_field=AmountField(name="total", unit="yuan") if mapped else None,
        ),
        trust=Trust.CAPABILITY,
        received_at=NOON + timedelta(minutes=minute),
        traceparent=None,
    )


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_an_old_success_repeated_after_a_correction_and_an_upgrade_changes_nothing(
    make_store: MakeStore, count: Callable[[Table], int], clock: Clock, mapped: bool, pruned: bool
) -> None:
    before = make_store(endpoints=EVERYTHING)
    before.record([old_success(mapped=False, amount="100.00", minute=0)])
    before.record([a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=1, pay_type="", order_type="")])
    told = bodies(before)
    assert [event["type"] for event in told] == ["payment.succeeded", "payment.corrected"]
    if pruned:
        before.prune(before=clock.now + timedelta(days=1))

    upgraded = make_store(endpoints=EVERYTHING, amount_field="total" if mapped else "")
    repeated = old_success(mapped=mapped, amount="100.00", minute=9)
    assert upgraded.record([repeated, a_claim(order="DK2", amount=CENT)]) == [Verdict.DUPLICATE, Verdict.APPLIED]

    assert bodies(upgraded) == told
    order = order_of(upgraded)
    assert (order.state.status, order.state.conflicted) == (OrderStatus.FAILED, False)
    assert count(claims) == 3


def test_an_old_callback_with_another_amount_is_no_repeat(make_store: MakeStore) -> None:
    make_store().record([old_success(mapped=False, amount="100.00", minute=0)])
    upgraded = make_store(amount_field="total")
    assert upgraded.record([old_success(mapped=True, amount="0.01", minute=9)]) == [Verdict.DUPLICATE]
    assert len(upgraded.order_history(KEY).claims) == 2
    assert upgraded.record([old_success(mapped=True, amount="100.00", minute=9)]) == [Verdict.DUPLICATE]
    assert len(upgraded.order_history(KEY).claims) == 2
