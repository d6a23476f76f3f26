from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.json_dialects import KeyOrder

WORDS = ["pay_type", "payType", "Zone", "pay", "biz_order_no", "_x"]


@pytest.mark.parametrize("order", [order for order in KeyOrder if order is not KeyOrder.AS_SENT])
def test_all_orders_agree_on_words(order: Any) -> None:
    assert order.sort(WORDS) == ["Zone", "_x", "biz_order_no", "pay", "payType", "pay_type"]


def test_bytes_and_utf16_units_part_on_characters_beyond_the_first_plane() -> None:
    names = ["\uffee", "😀"]

    assert KeyOrder.BYTES.sort(names) == ["\uffee", "😀"]
    assert KeyOrder.UTF16.sort(names) == ["😀", "\uffee"]


def test_javascript_puts_array_indexes_first_and_by_number() -> None:
    names = ["a", "10", "9", "01", "4294967294", "4294967295", "-1"]

    assert KeyOrder.JAVASCRIPT.sort(names) == ["9", "10", "4294967294", "-1", "01", "4294967295", "a"]


def test_php_sorts_numeric_strings_by_value_and_leaves_equal_ones_as_they_came() -> None:
    assert KeyOrder.PHP.sort(["010", "9.5", "10", "1e2", "abc"]) == ["9.5", "010", "10", "1e2", "abc"]
    assert KeyOrder.PHP.sort(["10", "010"]) == ["10", "010"]


def test_as_sent_is_no_order_at_all() -> None:
    assert KeyOrder.AS_SENT.sort(["b", "a"]) == ["b", "a"]


@pytest.mark.parametrize("order", KeyOrder)
@given(names=st.lists(st.text(alphabet="0123456789.eE+- abcé\ud800😀", max_size=80), unique=True, max_size=8))
def test_sorting_loses_and_adds_no_key(order: Any, names: Any) -> None:
    assert sorted(order.sort(names)) == sorted(names)
