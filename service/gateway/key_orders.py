"""The orders in which languages sort the keys of what they sign.

They agree on ASCII words without digits, which is all the document names; they part on numbers and rare characters.
"""

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import cmp_to_key

_JS_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_JS_LARGEST_INDEX = 2**32 - 2
_PHP_SPACE = r"[ \t\n\r\v\f]*+"
_PHP_NUMBER = re.compile(rf"{_PHP_SPACE}([+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?){_PHP_SPACE}")
#: A longer key is compared as text: no field name is that long a number.
_PHP_LONGEST_NUMBER = 64


class KeyOrder(StrEnum):
    """A way of sorting keys."""

    #: PHP's ksort with SORT_STRING, Go's maps, Python's sort_keys.
    BYTES = "bytes"
    #: Java's TreeMap and JavaScript's sort.
    UTF16 = "utf16"
    #: JavaScript's objects: what looks like an array index first, by number, the rest by UTF-16 units.
    JAVASCRIPT = "javascript"
    #: PHP's plain ksort since 8.2: numbers among themselves by value, anything else as text.
    PHP = "php"
    #: Not sorted at all.
    AS_SENT = "as-sent"

    def sort(self, names: Iterable[str]) -> list[str]:
        """The names in this order; sorting is stable."""
        return _SORTS[self](names)


def _by_utf16(names: Iterable[str]) -> list[str]:
    return sorted(names, key=_utf16_units)


def _utf16_units(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _like_javascript(names: Iterable[str]) -> list[str]:
    def rank(name: str) -> tuple[int, int, bytes]:
        if _JS_INDEX.fullmatch(name) and int(name) <= _JS_LARGEST_INDEX:
            return 0, int(name), b""
        return 1, 0, _utf16_units(name)

    return sorted(names, key=rank)


def _like_php(names: Iterable[str]) -> list[str]:
    # Compared pair by pair, as PHP does: whether "10" is a number to "9.5" or text to "9a" depends on the other one.
    numbers = {name: _php_number(name) for name in names}

    def compare(left: str, right: str) -> int:
        left_number, right_number = numbers[left], numbers[right]
        if left_number is not None and right_number is not None:
            return (left_number > right_number) - (left_number < right_number)
        return (left > right) - (left < right)

    return sorted(numbers, key=cmp_to_key(compare))


def _php_number(name: str) -> int | float | None:
    match = _PHP_NUMBER.fullmatch(name) if len(name) <= _PHP_LONGEST_NUMBER else None
    if match is None:
        return None
    text = match.group(1)
    return int(text) if text.lstrip("+-").isdigit() else float(text)


# Python compares strings by code points, which is the order of their UTF-8 bytes.
_SORTS: dict[KeyOrder, Callable[[Iterable[str]], list[str]]] = {
    KeyOrder.BYTES: sorted,
    KeyOrder.UTF16: _by_utf16,
    KeyOrder.JAVASCRIPT: _like_javascript,
    KeyOrder.PHP: _like_php,
    KeyOrder.AS_SENT: list,
}
