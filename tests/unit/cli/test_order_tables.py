"""What `orders show` prints."""

import pytest

from service.cli.order_tables import show_history
from service.ledger.histories import OrderHistory


def a_history(*, claims_left_out: int) -> OrderHistory:
    return OrderHistory(order=None, claims=(), events=(), inquiry=None, questions=(), claims_left_out=claims_left_out)


def test_claims_that_are_left_out_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    show_history(a_history(claims_left_out=1234))
    assert "1234 older claims that never counted are left out." in capsys.readouterr().out


def test_nothing_is_said_of_claims_where_none_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_history(a_history(claims_left_out=0))
    assert "left out" not in capsys.readouterr().out
