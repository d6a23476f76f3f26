import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gateway import json_dialects as writers
from service.gateway.bodies import JsonValue, NumberToken
from service.gateway.errors import DialectInvalid
from service.gateway.json_dialects import KeyOrder, find_writer, max_bytes

ALL_WRITERS = [value for value in vars(writers).values() if isinstance(value, writers.JsonWriter)]
TRAPS = st.text(alphabet="ab/\\\"'<>&=\b\f\n\r\t\x00\x01\x1f\x7f\x80\u2028\u2029\ufeff中\uffee𠮷u0062", max_size=12)
TEXTS = TRAPS | st.text(max_size=12)
ANY_TEXTS = TEXTS | st.text(alphabet=st.characters(categories=["Cs"]), max_size=3)
VALUES = st.recursive(
    ANY_TEXTS | st.none() | st.booleans() | st.integers().map(lambda number: NumberToken(str(number))),
    lambda nested: st.lists(nested, max_size=3) | st.dictionaries(ANY_TEXTS, nested, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("writer", ALL_WRITERS, ids=lambda writer: writer.name)
@settings(max_examples=30)
@given(text=TEXTS)
def test_every_writer_writes_json_with_the_same_values(writer: Any, text: Any) -> None:
    assert json.loads(writer.write_string(text)) == text


@pytest.mark.parametrize("writer", ALL_WRITERS, ids=lambda writer: writer.name)
@settings(max_examples=30)
@given(value=VALUES)
def test_no_writer_writes_more_bytes_than_are_reckoned_with(writer: Any, value: Any) -> None:
    assert len(writer.write(value).encode("utf-8", "backslashreplace")) <= max_bytes(value)


@given(text=TEXTS)
def test_python_is_imitated_exactly(text: Any) -> None:
    assert writers.PYTHON.write_string(text) == json.dumps(text)
    assert writers.PYTHON_UNICODE.write_string(text) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize(
    ("writer", "text", "written"),
    [
        (writers.PHP, "a/中\x7f\u2028\x0b", r'"a\/\u4e2d' + "\x7f" + r'\u2028\u000b"'),
        (writers.PHP_SLASHES, "a/中", r'"a/\u4e2d"'),
        (writers.PHP_UNICODE, "a/中\u2028\u2029", r'"a\/中\u2028\u2029"'),
        (writers.PHP_UNICODE_SLASHES, "a/中\u2028", r'"a/中\u2028"'),
        (writers.PHP, "\\u007f\x7f", '"\\\\u007f\x7f"'),
        (writers.UNICODE, "\x7f\u2028/<", '"\x7f\u2028/<"'),
        (writers.JACKSON, "\x0b\x1f中", r'"\u000B\u001F中"'),
        (writers.JACKSON_ASCII, "中𠮷\n\\u00ab", r'"\u4E2D\uD842\uDFB7\n\\u00ab"'),
        (writers.GSON, "<a>&='中", r'"\u003ca\u003e\u0026\u003d\u0027中"'),
        (writers.GSON_NO_HTML, "<=\u2028", r'"<=\u2028"'),
        (writers.ORG_JSON, "\x7f\x80\x9f\xa0", '"\x7f\\u0080\\u009f\xa0"'),
        (writers.ORG_JSON, "中\u1fff\u2000\u2026\u20ff\u2100", '"中\u1fff\\u2000\\u2026\\u20ff\u2100"'),
        (writers.ORG_JSON, '/</a></\b\f\n\r\t"\\\x0b', r'"/<\/a><\/\b\f\n\r\t\"\\\u000b"'),
        (writers.JSON_SIMPLE, "\x7f\x80\x9f\xa0", '"\\u007F\\u0080\\u009F\xa0"'),
        (writers.JSON_SIMPLE, "中\u1fff\u2000\u2026\u20ff\u2100", '"中\u1fff\\u2000\\u2026\\u20FF\u2100"'),
        (writers.JSON_SIMPLE, '/</a\b\f\n\r\t"\\\x0b\\u00ab', r'"\/<\/a\b\f\n\r\t\"\\\u000B\\u00ab"'),
        (writers.GO, "<>&='\b\f\n\u2029", r'"\u003c\u003e\u0026=' + "'" + r'\u0008\u000c\n\u2029"'),
        (writers.GO_NO_ESCAPE, "<&\\b\b", '"<&\\\\b\\u0008"'),
        (writers.PYTHON, "中\x7f", r'"\u4e2d\u007f"'),
    ],
)
def test_the_known_traps_are_written_as_the_runtime_writes_them(writer: Any, text: str, written: Any) -> None:
    assert writer.write_string(text) == written


def test_numbers_are_written_as_their_token() -> None:
    assert writers.PHP.write({"a": NumberToken("1.50"), "b": [NumberToken("1E2")]}) == '{"a":1.50,"b":[1E2]}'


def test_empty_lists_and_empty_objects_stay_apart() -> None:
    assert writers.PHP.write({"a": [], "b": {}}) == '{"a":[],"b":{}}'


def test_gson_leaves_out_nulls_at_every_level_unless_serialize_nulls_is_set() -> None:
    value: JsonValue = {"a": None, "b": {"c": None, "d": [None]}}

    assert writers.GSON.write(value) == '{"b":{"d":[null]}}'
    assert writers.GSON_NULLS.write(value) == '{"a":null,"b":{"c":null,"d":[null]}}'


def test_nested_objects_are_sorted_only_where_asked() -> None:
    value: JsonValue = {"b": {"z": True, "a": False}}

    assert writers.PHP.write(value) == '{"b":{"z":true,"a":false}}'
    assert writers.PHP.write(value, KeyOrder.BYTES) == '{"b":{"a":false,"z":true}}'


def test_an_unknown_writer_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(
        DialectInvalid, match=r"'perl' is not a JSON writer; allowed are php, .*, python-compact-unicode"
    ):
        find_writer("perl")
