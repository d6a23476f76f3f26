"""Explaining why a sign fits or does not: by the receiver's own check, without quoting personal data."""

import json
from hashlib import md5
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.bodies import BodyKind, read_body
from service.gateway.errors import CallbackRefused, SignMismatch
from service.gateway.json_dialects import DIALECTS
from service.gateway.sign_explanation import Mismatch, describe_dialect, describe_kind, explain, find_traits
from service.gateway.signature import Budget, VerifiedCallback, canonical_texts, verify_callback
from tests.support.gateway import load_vectors

FIELDS = {
    "biz_order_no": "DK1",
    "pay_order_no": "P1",
    "order_type": "single_withhold",
    "pay_type": "baofoo_001",
    "pay_status": "fail",
    "pay_time": "",
    "channel_response": "余额不足",
}
WRONG = "0" * 31 + "1"


def php(fields: Any) -> Any:
    return json.dumps(dict(sorted(fields.items())), separators=(",", ":")).replace("/", "\\/")


def body(fields: Any, signed: Any = None) -> bytes:
    sign = WRONG if signed is None else md5(php(signed).encode()).hexdigest()
    return json.dumps({**fields, "sign": sign}, ensure_ascii=False).encode()


def traits(**fields: Any) -> Any:
    return {(trait.field, trait.what): trait.spellings for trait in find_traits(fields)}


def bodies() -> Any:
    wires = ("wire_json_same_flags", "wire_json_default_flags", "wire_form")
    found = [vector[wire] for vector in load_vectors("callback") for wire in wires if vector.get(wire)]
    # Every fifth is enough: the check itself is tested on all of them.
    return found[::5]


def judged(check: Any, wire: Any) -> Any:
    try:
        return check(wire)
    except SignMismatch as mismatch:
        return mismatch.received_sign
    except CallbackRefused as refusal:
        return refusal.reason


def test_real_callbacks_are_explained_as_the_receiver_judges_them() -> None:
    assert len(bodies()) > 100
    for wire in bodies():
        explained = judged(explain, wire)
        assert judged(lambda wire: verify_callback(wire, None), wire) == (
            explained.received_sign if isinstance(explained, Mismatch) else explained
        )


def test_every_dialect_that_is_tried_has_a_description() -> None:
    names = {dialect.name for dialect in DIALECTS}
    for wire in (body(FIELDS), b"a=1&sign=2"):
        (read,) = read_body(wire, None).bodies
        names |= {text.dialect for text in canonical_texts(read, Budget.of_body(len(wire), readings=1))}
    assert {"spliced", "php+numbers", "php+nulls"} <= names
    for name in names:
        assert describe_dialect(name)
    for kind in BodyKind:
        assert describe_kind(kind)


def test_a_mismatch_has_every_text_that_was_tried() -> None:
    explained = explain(body(FIELDS))
    assert isinstance(explained, Mismatch)
    assert explained.received_sign == WRONG
    assert explained.fields == list(FIELDS)
    assert [candidate.sign for candidate in explained.candidates] == [
        md5(candidate.canonical.encode()).hexdigest() for candidate in explained.candidates
    ]
    names = [name for candidate in explained.candidates for name in candidate.dialects]
    assert {dialect.name for dialect in DIALECTS} <= set(names)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("a/b", "the character /"),
        ("余额", "characters beyond ASCII"),
        ("😀", "characters beyond the first plane"),
        ("\u2028", "a line or paragraph separator"),
        ("\x7f", "U+007F"),
        ("\b", "U+0008"),
        ("<", "the character <"),
        ("\ud800", "a lone surrogate"),
    ],
)
def test_characters_that_languages_write_differently_are_listed(value: str, what: str) -> None:
    found = [trait for (field, trait_text), trait in traits(channel_response=value).items() if what in trait_text]
    assert len(found) == 1
    assert len(found[0]) > 1


def test_plain_text_has_nothing_that_languages_write_differently() -> None:
    assert traits(pay_status="success", pay_time="2026-07-01 12:00:00") == {}


def test_null_is_listed_with_the_writers_that_leave_it_out() -> None:
    ((_, spellings),) = traits(pay_time=None).items()
    assert "gson" in spellings["left out"]
    assert "php" in spellings["null"]


@pytest.mark.parametrize(
    ("text", "what"),
    [("1.50", "a fraction"), ("-1", "a sign"), ("1", "signed as a string"), ("[]", "PHP writes")],
)
def test_types_that_languages_write_differently_are_listed(text: str, what: str) -> None:
    explained = explain(f'{{"a":{text},"sign":"{WRONG}"}}'.encode())
    assert isinstance(explained, Mismatch)
    assert any(what in trait.what for trait in explained.traits)


def test_keys_that_languages_sort_differently_are_listed() -> None:
    assert any(field == "" for field, _ in traits(**{"10": "a", "9": "b"}))


@given(st.text(alphabet="张三娜", min_size=1))
def test_no_letter_of_a_name_is_quoted(name: Any) -> None:
    for trait in find_traits({"name": name}):
        assert not set(name) & set(trait.what + "".join(trait.spellings))


@pytest.mark.parametrize(
    ("sent", "signed", "what"),
    [
        ({**FIELDS, "gateway_version": "2"}, FIELDS, "the field gateway_version was not signed"),
        (FIELDS, {name: value for name, value in FIELDS.items() if value}, "empty were left out"),
        ({**FIELDS, "pay_time": None}, FIELDS, "null was signed as an empty string"),
        ({**FIELDS, "amount": "100"}, {**FIELDS, "amount": 100}, "digits in quotes were signed as numbers"),
        ({**FIELDS, "amount": 100}, {**FIELDS, "amount": "100"}, "numbers were signed as strings"),
        ({**FIELDS, "extra": {}}, {**FIELDS, "extra": []}, "an empty object was signed as []"),
        ({**FIELDS, "channel_response": " x "}, {**FIELDS, "channel_response": "x"}, "white space at the ends"),
        ({**FIELDS, "channel_response": "a b"}, {**FIELDS, "channel_response": "a+b"}, "a + was signed"),
    ],
)
def test_a_change_under_which_the_sign_would_fit_is_named(sent: Any, signed: Any, what: str) -> None:
    explained = explain(body(sent, signed))
    assert isinstance(explained, Mismatch)
    assert explained.guess is not None
    assert what in explained.guess.what
    assert explained.guess.dialect == "php"


def test_a_body_that_fits_is_returned_as_verified() -> None:
    assert isinstance(explain(body(FIELDS, FIELDS)), VerifiedCallback)
