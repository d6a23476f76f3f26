"""Invalid personal and card numbers are refused before anything is sent to a gateway."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import luhn

from service.gateway.arguments import check_arguments
from service.gateway.errors import MessageInvalid
from service.gateway.requests import ConfirmTiedCardArgs, PreTiedCardArgs

ARGS = PreTiedCardArgs(
    id_card_number="11010519491231002X",
    bank_card_number="6222021234567890128",
    mobile="13800138000",
    name="张三",
    pay_type="baofoo_001",
)


def problems(**changes: Any) -> Any:
    try:
        check_arguments("pre-tied-card", replace(ARGS, **changes), pay_types={"baofoo_001"})
    except MessageInvalid as error:
        return {problem.field: problem.text for problem in error.problems}
    return {}


def test_arguments_that_can_be_right_are_let_through() -> None:
    assert problems() == {}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("11010519491231002x", "17 digits and then a digit or a capital X"),
        ("110105 19491231002X", "17 digits and then a digit or a capital X"),
        ("１1010519491231002X", "17 digits and then a digit or a capital X"),
        ("", "17 digits"),
        ("110105194912310021", "check digit does not fit"),
        ("110105199913310024", "date of birth does not exist"),
        ("130503670401001", "first-generation number, void since 2013"),
    ],
)
def test_an_invalid_id_number_is_refused_and_not_quoted(number: str, text: str) -> None:
    found = problems(id_card_number=number)
    assert list(found) == ["id_card_number"]
    assert text in found["id_card_number"]
    assert not number or number not in found["id_card_number"]


@pytest.mark.parametrize("place", ["810000", "820000", "830000"])
def test_residents_from_hong_kong_macao_and_taiwan_have_id_numbers_too(place: str) -> None:
    last = {"810000": "0", "820000": "1", "830000": "2"}
    number = f"{place}19900307{'00' + last[place]}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    check = "10X98765432"[sum(int(digit) * weight for digit, weight in zip(number, weights, strict=True)) % 11]
    assert problems(id_card_number=number + check) == {}


@given(st.integers(min_value=10**11, max_value=10**18 - 1).map(str))
def test_cards_of_12_to_19_digits_need_their_check_digit(number: Any) -> None:
    right = number + luhn.calc_check_digit(number)
    wrong = number + str((int(luhn.calc_check_digit(number)) + 1) % 10)
    assert problems(bank_card_number=right) == {}
    assert "check digit does not fit" in problems(bank_card_number=wrong)["bank_card_number"]


@pytest.mark.parametrize("number", ["", "00000000000", "6222 0212 3456 7890 128", "62220212345678901280000", "６2"])
def test_an_invalid_card_number_is_refused(number: str) -> None:
    assert "12 to 19 digits" in problems(bank_card_number=number)["bank_card_number"]


@pytest.mark.parametrize("number", ["", "12800138000", "+8613800138000", "138001380001", "138 0013 8000"])
def test_an_invalid_mobile_number_is_refused(number: str) -> None:
    assert "11 digits" in problems(mobile=number)["mobile"]


def test_a_pay_type_of_another_merchant_is_refused_with_the_allowed_ones() -> None:
    assert problems(pay_type="other_001") == {"pay_type": "not this merchant's; expected baofoo_001"}


def test_all_problems_are_reported_at_once() -> None:
    assert problems(id_card_number="1", bank_card_number="2", mobile="3", pay_type="4").keys() == {
        "id_card_number",
        "bank_card_number",
        "mobile",
        "pay_type",
    }


def test_only_what_a_message_has_is_checked() -> None:
    args = ConfirmTiedCardArgs(
        verification_code="1", unique_code="2", bank_card_number="6222021234567890128", pay_type="baofoo_001"
    )
    check_arguments("confirm-tied-card", args, pay_types={"baofoo_001"})


@pytest.mark.parametrize("name", ["王芳", "欧阳测试", "阿卜杜勒·买买提", "O'Neill", "x" * 64])
def test_a_name_is_what_people_are_called(name: Any) -> None:
    assert problems(name=name) == {}


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\x00b", "a\nb", "\ud800", "a\u202eb"])
def test_an_impossible_name_is_refused(name: Any) -> None:
    assert list(problems(name=name)) == ["name"]
