import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gateway.bodies import MAX_DEPTH, MAX_NUMBER_CHARACTERS, MAX_VALUES, NumberToken, read_object
from service.gateway.errors import CallbackRefused, Refusal

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(min_value=-(10**30), max_value=10**30),
    lambda nested: st.lists(nested, max_size=4) | st.dictionaries(st.text(), nested, max_size=4),
    max_leaves=20,
)


def _with_plain_numbers(value: Any) -> Any:
    match value:
        case NumberToken():
            return int(value.text)
        case list():
            return [_with_plain_numbers(item) for item in value]
        case dict():
            return {name: _with_plain_numbers(item) for name, item in value.items()}
    return value


@settings(max_examples=50)
@given(
    fields=st.dictionaries(st.text(), JSON_VALUES, max_size=6),
    indent=st.none() | st.integers(0, 3),
    ascii=st.booleans(),
)
def test_an_object_reads_as_the_standard_library_reads_it(fields: Any, indent: Any, ascii: bool) -> None:
    text = json.dumps(fields, indent=indent, ensure_ascii=ascii)

    assert _with_plain_numbers(dict(read_object(text).values)) == fields


@settings(max_examples=50)
@given(fields=st.dictionaries(st.text(), JSON_VALUES, max_size=6))
def test_the_raw_tokens_put_together_again_are_the_text(fields: Any) -> None:
    text = json.dumps(fields)
    raw = read_object(text)

    members = [f"{member.key_token}{member.colon}{member.value_token}" for member in raw.members]
    assert raw.opening + raw.comma.join(members) + raw.closing == text


@given(text=st.text(alphabet='{}[]",:\\u0123456789eE+-. \nabtrufalsn', max_size=40))
def test_whatever_is_read_the_standard_library_reads_too(text: str) -> None:
    try:
        raw = read_object("{" + text)
    except CallbackRefused:
        return
    json.loads("{" + text)
    assert set(raw.values) == set(json.loads("{" + text))


def test_numbers_keep_their_text() -> None:
    raw = read_object('{"a":1.50,"b":-0,"c":1E+2,"d":9007199254740993}')

    assert list(raw.values.values()) == [
        NumberToken("1.50"),
        NumberToken("-0"),
        NumberToken("1E+2"),
        NumberToken("9007199254740993"),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Refusal.NOT_AN_OBJECT),
        ("[1]", Refusal.NOT_AN_OBJECT),
        ('"text"', Refusal.NOT_AN_OBJECT),
        ("{", Refusal.NOT_JSON),
        ('{"a"', Refusal.NOT_JSON),
        ('{"a":', Refusal.NOT_JSON),
        ('{"a":1', Refusal.NOT_JSON),
        ('{"a":1,', Refusal.NOT_JSON),
        ('{"a":1,}', Refusal.NOT_JSON),
        ('{,"a":1}', Refusal.NOT_JSON),
        ('{"a" 1}', Refusal.NOT_JSON),
        ('{"a":1 "b":2}', Refusal.NOT_JSON),
        ("{a:1}", Refusal.NOT_JSON),
        ("{1:1}", Refusal.NOT_JSON),
        ("{'a':1}", Refusal.NOT_JSON),
        ('{"a":01}', Refusal.NOT_JSON),
        ('{"a":+1}', Refusal.NOT_JSON),
        ('{"a":.5}', Refusal.NOT_JSON),
        ('{"a":"\n"}', Refusal.NOT_JSON),
        ('{"a":"\\x"}', Refusal.NOT_JSON),
        ('{"a":1} x', Refusal.NOT_JSON),
        ('{"a":1}{"a":1}', Refusal.NOT_JSON),
        ('{"a":\u00a01}', Refusal.NOT_JSON),
        ('{"a":１}', Refusal.NOT_JSON),
        ('{"a":1,"a":1}', Refusal.DUPLICATE_KEY),
        ('{"a":1,"\\u0061":2}', Refusal.DUPLICATE_KEY),
        ('{"a":{"b":1,"b":2}}', Refusal.DUPLICATE_KEY),
        ('{"a":NaN}', Refusal.NAN),
        ('{"a":[Infinity]}', Refusal.NAN),
        ('{"a":-Infinity}', Refusal.NAN),
        ('{"a":1e400}', Refusal.HUGE_NUMBER),
        ('{"a":' + "9" * (MAX_NUMBER_CHARACTERS + 1) + "}", Refusal.HUGE_NUMBER),
        ('{"a":0.' + "9" * MAX_NUMBER_CHARACTERS + "}", Refusal.HUGE_NUMBER),
        ('{"a":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", Refusal.TOO_DEEP),
        ('{"a":' * 20_000, Refusal.TOO_DEEP),
        ("{" + "[" * 60_000, Refusal.TOO_DEEP),
        ('{"a":[' + ",".join("1" * (MAX_VALUES + 1)) + "]}", Refusal.TOO_MANY_VALUES),
        ("{" + ",".join(f'"{n}":1' for n in range(MAX_VALUES + 1)) + "}", Refusal.TOO_MANY_VALUES),
    ],
)
def test_what_two_readers_could_understand_differently_is_refused(text: Any, reason: Any) -> None:
    with pytest.raises(CallbackRefused) as refused:
        read_object(text)

    assert refused.value.reason is reason


def test_the_bounds_are_not_tripped_by_what_stands_in_strings() -> None:
    text = json.dumps({"a": '[{,\\"' * 2_000})

    assert read_object(text).values == json.loads(text)


def test_the_bounds_themselves_are_allowed() -> None:
    deep = '{"a":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}"
    wide = "{" + ",".join(f'"{n}":1' for n in range(MAX_VALUES)) + "}"

    assert read_object(deep).members
    assert len(read_object(wide).members) == MAX_VALUES


@pytest.mark.parametrize(
    "text",
    [
        '{"' + '\\"' * 32_000,
        '{"a":"' + "[" * 40 + '\\"' * 32_000,
        '{"a":"' + "\\" * 65_000,
        "{" + " " * 65_000,
        '{"a"' + " " * 65_000 + "x",
        '{"a":"' + "x" * 65_000,
    ],
    ids=["escaped quotes", "brackets, then escaped quotes", "backslashes", "spaces", "spaces after a key", "open"],
)
def test_a_body_made_to_be_slow_is_refused_like_any_other(text: Any) -> None:
    with pytest.raises(CallbackRefused) as refused:
        read_object(text)

    assert refused.value.reason is Refusal.NOT_JSON
