"""What `orders show` prints."""

from dataclasses import replace

import pytest

from service.cli.order_tables import show_history
from service.domain.claims import ClaimSource, OrderStatus, Trust
from service.domain.order_state import OrderState, Verdict
from service.ledger.claims import ClaimRecord
from service.ledger.histories import OrderHistory
from service.ledger.orders import OrderRecord
from service.ledger.withholds import WithholdOutcome, WithholdRecord
from tests.support.claims import NOON


def a_history(*, claims_left_out: int) -> OrderHistory:
    return OrderHistory(order=None, claims=(), events=(), inquiry=None, questions=(), claims_left_out=claims_left_out)


def test_claims_that_are_left_out_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    show_history(a_history(claims_left_out=1234))
    assert "1234 older claims that never counted are left out." in capsys.readouterr().out


def test_fields_that_a_callback_lacked_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    claim = ClaimRecord(
        verdict=Verdict.APPLIED,
        trust=Trust.CAPABILITY,
        source=ClaimSource.CALLBACK,
        status=OrderStatus.SUCCEEDED,
        pay_order_no="P1",
        order_type="",
        pay_type="",
        amount=None,
        amount_unit=None,
        paid_at=None,
        channel_response="",
        unknown_fields={},
        missing_fields=("order_type", "pay_time"),
        stated_at=NOON,
        recorded_at=NOON,
        quarantine=None,
        stated_by="",
        reason="",
    )
    show_history(replace(a_history(claims_left_out=0), claims=[claim]))
    assert "without order_type, pay_time" in " ".join(capsys.readouterr().out.split())


def test_order_numbers_are_shown_and_free_text_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    order = OrderRecord(
        merchant="acme",
        biz_order_no="1745678901234567897",
        state=OrderState(pay_order_no="6222021234561233"),
        created_at=NOON,
        updated_at=NOON,
    )
    sent = WithholdRecord(
        outcome=WithholdOutcome.UNKNOWN,
        sent_by="api",
        sent_at=NOON,
        settled_at=None,
        request_id="1745678901234567",
        refused_at=None,
        ended_at=None,
        detail="卡号6222021234561233",
    )
    show_history(replace(a_history(claims_left_out=0), order=order, withhold=sent))
    shown = capsys.readouterr().out
    assert "1745678901234567897" in shown
    assert "1745678901234567 " in shown
    assert shown.count("6222021234561233") == 1
    assert "卡号6222****1233" in shown


def test_omitted_claims_are_not_mentioned_if_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    show_history(a_history(claims_left_out=0))
    assert "left out" not in capsys.readouterr().out
