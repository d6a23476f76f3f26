"""Amounts are exact, and what cannot be read is not guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.money import Money, read_money


@pytest.mark.parametrize(
    ("text", "unit", "read"),
    [
        ("100", "yuan", "100.00"),
        ("100.0", "yuan", "100.00"),
        ("0.01", "yuan", "0.01"),
        (" 5.000 ", "yuan", "5.00"),
        ("10000", "fen", "10000"),
        ("10000.00", "fen", "10000"),
    ],
)
def test_a_plain_decimal_number_is_read(text: str, unit: str, read: str) -> None:
    money = read_money(text, unit)
    assert money is not None
    assert (money.text, money.unit) == (read, unit)


@pytest.mark.parametrize(
    "text", ["", "abc", "1e2", "-1", "+1", "1,000.00", "¥5", "100.005", "１００", ".5", "5.", "0x10", "9" * 40]
)
def test_anything_else_is_unreadable(text: str) -> None:
    assert read_money(text, "yuan") is None


def test_a_fraction_of_a_fen_is_unreadable() -> None:
    assert read_money("0.5", "fen") is None
    assert read_money("1234567890123456.0000000001", "yuan") is None


@given(st.integers(min_value=0, max_value=10**17))
def test_an_amount_is_the_same_in_either_unit(fen: int) -> None:
    money = Money(str(fen), "fen")
    yuan = money.to("yuan")
    assert yuan == money
    assert hash(yuan) == hash(money)
    assert yuan.to("fen").text == str(fen)
    assert yuan == read_money(yuan.text, "yuan")
    assert yuan != Money(str(fen + 1), "fen")
