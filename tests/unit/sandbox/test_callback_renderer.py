"""What the sandbox writes, the receiver's own check accepts: in every dialect, as JSON and as a form."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.gateway.errors import SignMismatch
from service.gateway.json_dialects import DIALECTS
from service.gateway.signature import verify_callback
from service.sandbox.callback_plan import Address, PlannedCallback, Sender
from service.sandbox.callback_renderer import CallbackRenderer
from service.sandbox.orders import SandboxOrder
from service.sandbox.script import PayStatus, Script
from service.sandbox.settings import CallbackStyle

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
ORDER = SandboxOrder(
    ua="ACME",
    biz_order_no="单/号 <&'\"\\> é 😀 \x7f",
    pay_order_no="SB1",
    pay_type="baofoo_001",
    amount="10.00",
    notify_url="https://pay.example.com/notify/acme/k1.b3JkZXI.c2VjcmV0",
    script=Script(ending=PayStatus.FAIL),
    accepted_at=NOON,
    settles_at=NOON,
)
CALLBACK = PlannedCallback(
    order=ORDER,
    sender=Sender.GATEWAY,
    address=Address.OWN,
    pay_status=PayStatus.FAIL,
    pay_order_no="SB1",
    delay_seconds=0.0,
)


def verified(style: Any) -> Any:
    rendered = CallbackRenderer(style).render(CALLBACK, other_order=None)
    return verify_callback(rendered.body, rendered.content_type)


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize("upper_case_sign", [False, True], ids=["lower", "upper"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_callback_in_any_dialect_is_verified(dialect: Any, form: bool, upper_case_sign: bool) -> None:
    style = CallbackStyle(signed_as=dialect.name, form=form, upper_case_sign=upper_case_sign)
    fields = verified(style).fields
    assert fields["biz_order_no"] == ORDER.biz_order_no
    assert fields["channel_response"] == "余额不足"


@pytest.mark.parametrize("sent_as", sorted({dialect.writer.name for dialect in DIALECTS}))
def test_a_callback_whose_body_another_writer_wrote_is_verified(sent_as: Any) -> None:
    assert verified(CallbackStyle(sent_as=sent_as)).fields["biz_order_no"] == ORDER.biz_order_no


def test_one_changed_word_is_refused() -> None:
    rendered = CallbackRenderer(CallbackStyle()).render(CALLBACK, other_order=None)
    with pytest.raises(SignMismatch):
        verify_callback(rendered.body.replace(b'"fail"', b'"success"'), rendered.content_type)


def test_the_sign_does_not_depend_on_where_it_is_sent() -> None:
    elsewhere = replace(CALLBACK, address=Address.WITHOUT_TOKEN)
    renderer = CallbackRenderer(CallbackStyle())
    assert renderer.render(CALLBACK, other_order=None).body == renderer.render(elsewhere, other_order=None).body
