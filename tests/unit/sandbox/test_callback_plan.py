from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.config.secrets import Secret
from service.config.settings import TokenKey
from service.gateway.errors import CallbackRefused, DialectInvalid
from service.gateway.notify_addresses import NotifyTokens
from service.sandbox.callback_plan import FORGED_PREFIX, Address, PlannedCallback, Sender, plan_callbacks
from service.sandbox.callback_renderer import CallbackRenderer, address_of, pay_time
from service.sandbox.orders import SandboxOrder
from service.sandbox.script import CallbackMode, PayStatus, Script
from service.sandbox.settings import CallbackStyle, Misbehaviour

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
TOKENS = NotifyTokens(merchant="acme", keys=[TokenKey(kid="k1", key=Secret("x" * 32))])


def order(
    biz_order_no: str = "T1", *, settles_after: float | None = 0.5, notify: bool = True, **script: Any
) -> SandboxOrder:
    settles_at = None if settles_after is None else NOON + timedelta(seconds=settles_after)
    return SandboxOrder(
        ua="ACME",
        biz_order_no=biz_order_no,
        pay_order_no=f"SB-{biz_order_no}",
        pay_type="baofoo_001",
        amount="10.00",
        notify_url=f"https://pay.example.com/notify/acme/{TOKENS.mint(biz_order_no)}" if notify else "",
        script=Script(**script),
        accepted_at=NOON,
        settles_at=settles_at,
    )


def plan(of: Any, *, strict_wait_pay: bool = True, **odds: Any) -> Any:
    return plan_callbacks(of, odds=Misbehaviour(**odds), seed=1, strict_wait_pay=strict_wait_pay)


def said(callbacks: Any) -> Any:
    return [(callback.sender, callback.pay_status) for callback in callbacks]


def test_an_order_is_called_back_pending_and_then_terminal() -> None:
    assert said(plan(order())) == [(Sender.GATEWAY, PayStatus.PENDING), (Sender.GATEWAY, PayStatus.SUCCESS)]


def test_an_order_that_is_terminal_at_once_has_one_callback() -> None:
    assert said(plan(order(settles_after=0.0))) == [(Sender.GATEWAY, PayStatus.SUCCESS)]


def test_an_order_that_never_ends_is_called_back_pending_only() -> None:
    assert said(plan(order(settles_after=None))) == [(Sender.GATEWAY, PayStatus.PENDING)]


def test_an_initial_order_is_called_back_as_initial() -> None:
    assert said(plan(order(waiting=PayStatus.INITIAL))) == [
        (Sender.GATEWAY, PayStatus.INITIAL),
        (Sender.GATEWAY, PayStatus.SUCCESS),
    ]


@pytest.mark.parametrize(("strict", "status"), [(True, PayStatus.PENDING), (False, PayStatus.WAIT_PAY)])
def test_a_callback_states_wait_pay_only_if_the_document_is_not_followed(strict: bool, status: Any) -> None:
    waiting = order(settles_after=None, waiting=PayStatus.WAIT_PAY)
    assert said(plan(waiting, strict_wait_pay=strict)) == [(Sender.GATEWAY, status)]


def test_no_terminal_callback_comes_before_the_order_is_terminal() -> None:
    for number in range(50):
        callbacks = plan(order(f"T{number}"), delay_share=0.5, reorder_share=0.5, repeat_share=0.5)
        terminal = [callback for callback in callbacks if callback.pay_status is PayStatus.SUCCESS]
        assert all(callback.delay_seconds >= 0.5 for callback in terminal)


def test_a_reordered_pending_comes_after_the_terminal_one() -> None:
    assert [status for _, status in said(plan(order(), reorder_share=1.0))] == [PayStatus.SUCCESS, PayStatus.PENDING]


def test_without_a_notify_url_nobody_sends_callbacks() -> None:
    assert plan(order(notify=False), forge_share=1.0) == []


def test_an_order_without_callbacks_is_forged_too() -> None:
    callbacks = plan(order(callbacks=CallbackMode.SILENT), forge_share=1.0, forgeries_per_order=4)
    assert [callback.sender for callback in callbacks] == [Sender.FORGER] * 4


def test_a_false_callback_of_the_gateway_uses_the_orders_own_address() -> None:
    liar = plan(order(callbacks=CallbackMode.LYING))[-1]
    assert (liar.sender, liar.pay_status, liar.address) == (Sender.LIAR, PayStatus.FAIL, Address.OWN)


def test_every_forgery_is_false_in_status_or_number_and_never_on_the_own_address() -> None:
    of = order()
    forgeries = [
        callback for callback in plan(of, forge_share=1.0, forgeries_per_order=200) if callback.sender is Sender.FORGER
    ]
    true_words = {(PayStatus.PENDING, of.pay_order_no), (PayStatus.SUCCESS, of.pay_order_no)}
    assert not true_words & {(forgery.pay_status, forgery.pay_order_no) for forgery in forgeries}
    assert {forgery.address for forgery in forgeries} == set(Address) - {Address.OWN}
    assert any(forgery.pay_order_no.startswith(FORGED_PREFIX) for forgery in forgeries)
    assert any(forgery.pay_order_no == of.pay_order_no for forgery in forgeries)


def test_the_same_seed_plans_the_same() -> None:
    odds: dict[str, Any] = {"delay_share": 0.5, "reorder_share": 0.5, "repeat_share": 0.5, "forge_share": 0.5}
    assert plan(order(), **odds) == plan(order(), **odds)


def forged_address(address: Any, other_order: Any = None) -> Any:
    callback = PlannedCallback(
        order=order(),
        sender=Sender.FORGER,
        address=address,
        pay_status=PayStatus.FAIL,
        pay_order_no="X",
        delay_seconds=0.0,
    )
    return address_of(callback, other_order)


def test_an_address_without_its_token_ends_at_the_merchant() -> None:
    assert forged_address(Address.WITHOUT_TOKEN) == "https://pay.example.com/notify/acme"


@pytest.mark.parametrize("address", [Address.WRONG_TOKEN, Address.OTHER_TOKEN])
def test_a_made_up_token_is_well_formed_and_refused(address: Any) -> None:
    token = forged_address(address).rpartition("/")[2]
    with pytest.raises(CallbackRefused, match="forged-token"):
        TOKENS.read_order_no(token)


def test_another_orders_token_is_that_orders_own() -> None:
    other_order = order("T2")
    assert forged_address(Address.OTHER_TOKEN, other_order) == other_order.notify_url


def test_the_time_of_payment_is_written_as_in_shanghai_and_only_on_success() -> None:
    assert pay_time(PayStatus.SUCCESS, NOON) == "2026-01-01 20:00:00"
    assert pay_time(PayStatus.FAIL, NOON) == pay_time(PayStatus.SUCCESS, None) == ""


def test_an_unknown_style_is_refused_at_once() -> None:
    with pytest.raises(DialectInvalid):
        CallbackRenderer(CallbackStyle(signed_as="cobol"))
