"""Which order numbers may be bank card numbers."""

import pytest

from service.domain.order_numbers import may_be_card_number


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",
        "5500000000000004",
        "2223000048400011",
        "6222021234561236",
        "6212345678900000003",
        "378282246310005",
        "30569309025904",
    ],
)
def test_a_number_of_an_issuer_with_the_right_check_digit_may_be_a_card_number(number: str) -> None:
    assert may_be_card_number(number)


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111112",  # another check digit
        "1745678901234567897",  # a snowflake id: no issuer's range
        "2026010512000001",
        "411111111111",  # 12 digits
        "41111111111111111111",  # 20 digits
        "A4111111111111111",
        "４１１１１１１１１１１１１１１１",
        "",
    ],
)
def test_other_numbers_are_order_numbers(number: str) -> None:
    assert not may_be_card_number(number)
