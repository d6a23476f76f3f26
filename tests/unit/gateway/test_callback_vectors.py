import json
import random
import re
from typing import Any

import pytest

from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.signature import DEGENERATE_SIGNS, verify_callback
from tests.support.gateway import load_vectors

SAME_WRITER = "wire_json_same_flags"
OTHER_WRITER = "wire_json_default_flags"
FORM = "wire_form"
WIRES = {
    SAME_WRITER: "application/json",
    OTHER_WRITER: "application/json",
    FORM: "application/x-www-form-urlencoded",
}

_NO_NESTING = "a form of nested values: what was a list, an object or empty cannot be recovered from it"
_NOT_UTF8 = "the form holds GBK bytes; PHP signed something else than them"
_NUMBER_REWRITTEN = "another writer's body, in which the number's text is not the one that was signed"
_NUMBER_OF_THE_FORM = "PHP writes this number into a form with other digits than into JSON"
_NUMERIC_CHECK = "JSON_NUMERIC_CHECK turned a string into a number in the signed text, and another writer did not"

#: What no receiver could reproduce, by wire, dialect ("" for every one) and case; each is asserted to be refused.
EXEMPT = {
    (FORM, "", "nested-unsorted"): _NO_NESTING,
    (FORM, "", "nested-list"): _NO_NESTING,
    (FORM, "", "nested-empty-array"): _NO_NESTING,
    (FORM, "", "nested-empty-object"): _NO_NESTING,
    (FORM, "", "nested-gap-keys"): _NO_NESTING,
    **{
        (FORM, dialect, case_id): _NUMBER_OF_THE_FORM
        for dialect in (
            "php-default",
            "php-unescaped-unicode",
            "php-unescaped-slashes",
            "php-unescaped-unicode-slashes",
        )
        for case_id in ("float-sum", "bigint-overflow")
    },
    (FORM, "php-default-precision-17", "float-99.9"): _NUMBER_OF_THE_FORM,
    (FORM, "php-default-precision-17", "float-sum"): _NUMBER_OF_THE_FORM,
    (FORM, "php-preserve-zero-fraction", "float-100.0"): _NUMBER_OF_THE_FORM,
    (FORM, "php-preserve-zero-fraction", "float-neg0"): _NUMBER_OF_THE_FORM,
    (FORM, "", "gbk-bytes"): _NOT_UTF8,
    (FORM, "php-numeric-check", "leading-zeros"): _NUMERIC_CHECK,
    (FORM, "php-numeric-check", "amount-string"): _NUMERIC_CHECK,
    (OTHER_WRITER, "php-numeric-check", "leading-zeros"): _NUMERIC_CHECK,
    (OTHER_WRITER, "php-numeric-check", "amount-string"): _NUMERIC_CHECK,
    (OTHER_WRITER, "php-preserve-zero-fraction", "float-100.0"): _NUMBER_REWRITTEN,
    (OTHER_WRITER, "php-preserve-zero-fraction", "float-neg0"): _NUMBER_REWRITTEN,
}


def _exemption(wire: Any, case: Any) -> Any:
    return EXEMPT.get((wire, case["dialect"], case["id"])) or EXEMPT.get((wire, "", case["id"]))


def _cases(wire: str, *, exempt: bool) -> list[Any]:
    return [case for case in load_vectors("callback") if wire in case and bool(_exemption(wire, case)) is exempt]


def _judge(body: bytes, wire: str) -> str | Refusal:
    """The sign that was verified, or why the body was refused."""
    try:
        return verify_callback(body, WIRES[wire]).sign
    except CallbackRefused as error:
        return error.reason


@pytest.mark.parametrize("wire", WIRES)
def test_a_real_runtimes_sign_is_verified(wire: str) -> None:
    cases = _cases(wire, exempt=False)
    judged = {case["case"]: _judge(case[wire], wire) for case in cases}
    assert judged == {case["case"]: case["expected_sign"].lower() for case in cases}


@pytest.mark.parametrize("wire", [OTHER_WRITER, FORM])
def test_an_exempt_body_is_really_beyond_reach(wire: str) -> None:
    cases = _cases(wire, exempt=True)
    judged = {case["case"]: _judge(case[wire], wire) for case in cases}
    assert judged == {
        case["case"]: Refusal.BAD_UTF8 if _exemption(wire, case) == _NOT_UTF8 else Refusal.SIGN_MISMATCH
        for case in cases
    }


def test_every_exemption_is_of_a_case_that_exists() -> None:
    cases = load_vectors("callback")

    for wire, dialect, case_id in EXEMPT:
        assert any(wire in case and case["id"] == case_id and dialect in ("", case["dialect"]) for case in cases)


@pytest.mark.parametrize("wire", WIRES)
def test_the_header_does_not_decide_what_a_body_is(wire: Any) -> None:
    for case in load_vectors("callback"):
        if wire in case and not _exemption(wire, case):
            misleading = WIRES[SAME_WRITER if wire == FORM else FORM]
            assert verify_callback(case[wire], misleading).sign == case["expected_sign"].lower()
            assert verify_callback(case[wire], None).sign == case["expected_sign"].lower()


@pytest.mark.parametrize("wire", WIRES)
def test_a_changed_byte_in_a_key_a_value_or_the_sign_is_refused(wire: str) -> None:
    verified = []
    for case in _cases(wire, exempt=False):
        body = case[wire]
        # The lowest bit of a letter or digit: always another character, never only another case.
        places = [match.start() for match in re.finditer(rb"[0-9A-Za-z]", body)]
        for place in random.Random(body).sample(places, 4):
            changed = bytearray(body)
            changed[place] ^= 1
            if not isinstance(_judge(bytes(changed), wire), Refusal):
                verified.append((case["case"], place))
    assert verified == []


@pytest.mark.parametrize("wire", WIRES)
def test_a_changed_byte_is_refused_wherever_it_is(wire: Any) -> None:
    case = next(case for case in load_vectors("callback") if case["case"].endswith("php-default/cjk-ext-b"))
    body = case[wire]
    for place in range(len(body)):
        if chr(body[place]).isalnum():
            changed = bytearray(body)
            changed[place] ^= 1
            with pytest.raises(CallbackRefused):
                verify_callback(bytes(changed), WIRES[wire])


def test_an_added_or_removed_field_is_refused() -> None:
    case = next(case for case in load_vectors("callback") if case["case"].endswith("php-default/ascii-success"))
    fields = json.loads(case[SAME_WRITER])

    for name in fields:
        fewer = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(CallbackRefused):
            verify_callback(json.dumps(fewer).encode(), None)
    with pytest.raises(CallbackRefused):
        verify_callback(json.dumps({**fields, "amount": "1.00"}).encode(), None)


@pytest.mark.parametrize("sign", sorted(DEGENERATE_SIGNS))
@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_a_degenerate_sign_is_refused_whatever_it_signs(sign: Any, spelling: Any) -> None:
    sign = spelling(sign)
    for body in (
        f'{{"sign":"{sign}"}}',
        f"sign={sign}",
        f'{{"biz_order_no":"1","sign":"{sign}"}}',
        f"biz_order_no=1&sign={sign}",
    ):
        with pytest.raises(CallbackRefused) as refused:
            verify_callback(body.encode(), None)

        assert refused.value.reason is Refusal.DEGENERATE_SIGN
