"""What masking hides in free text, and what it leaves."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.domain.masking import mask_personal, mask_unknown_word


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("6222021234561234", "6222****1234"),
        ("卡号6222 0212 3456 1234余额不足", "卡号6222****1234余额不足"),
        ("6222-0212-3456-1234-567", "6222****4567"),
        ("身份证11010519491231002X有误", "身份证1101****002X有误"),
        ("11010519491231002x", "1101****002x"),
        ("110105194912310021", "1101****0021"),
        ("130503670401001", "1305****1001"),
        ("tel:13812345678.", "tel:138****5678."),
        ("138-1234-5678", "138****5678"),
        ("+8613812345678", "+8613****5678"),
        ("13812345678,13987654321", "138****5678,139****4321"),
        ("６２２２０２１２３４５６１２３４", "６２２２****１２３４"),
    ],
)
def test_personal_numbers_are_masked(text: str, masked: str) -> None:
    assert mask_personal(text) == masked


@pytest.mark.parametrize(
    "text", ["", "余额不足", "code 51", "12345678901", "2026-01-05 12:00:00", "100.00", "12345678901234567890"]
)
def test_other_text_is_left_alone(text: str) -> None:
    assert mask_personal(text) == text


@given(st.text(alphabet="0123456789 -X/张", max_size=60))
@example("000000000-13000000000")
def test_masking_twice_changes_nothing(text: str) -> None:
    once = mask_personal(text)
    assert mask_personal(once) == once


@given(st.integers(min_value=10**11, max_value=10**19 - 1), st.text(alphabet="张三, :", max_size=5))
def test_no_long_number_is_left_whole(number: int, around: str) -> None:
    assert str(number) not in mask_personal(f"{around}{number}{around}")


@pytest.mark.parametrize(
    ("word", "of_a_stranger", "of_a_gateway"),
    [
        ("", "", ""),
        ("odd", "****", "odd"),
        ("paid", "p****d", "paid"),
        ("refunded", "re****ed", "refunded"),
        ("baofoo_002", "ba****02", "baofoo_002"),
        ("ZhangSan", "Zh****an", "ZhangSan"),
        ("6222021234561234", "62****34", "6222****1234"),
        ("13812345678", "13****78", "138****5678"),
        ("11010519491231002X", "11****2X", "1101****002X"),
        ("张三", "****", "****"),
        ("欧阳娜娜欧阳娜娜", "****", "****"),
        ("Zhang San", "****", "****"),
        ("refunded 张三", "****", "****"),
        ("paid\n", "****", "****"),
        ("\ud800\x00", "****", "****"),
    ],
)
def test_of_a_word_that_nobody_knows_no_more_is_shown_than_names_nobody(
    word: str, of_a_stranger: str, of_a_gateway: str
) -> None:
    assert mask_unknown_word(word, from_stranger=True) == of_a_stranger
    assert mask_unknown_word(word, from_stranger=False) == of_a_gateway


@given(st.text())
def test_of_a_strangers_word_four_characters_are_shown_at_most(word: str) -> None:
    assert len(mask_unknown_word(word, from_stranger=True).replace("****", "")) <= 4
