import json
from hashlib import md5
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gateway.bodies import BodyKind, NumberToken, read_object
from service.gateway.cipher import RequestDialect, SignCase
from service.gateway.errors import CallbackRefused, DialectInvalid, Refusal, RequestRefused, SignMismatch
from service.gateway.json_dialects import DIALECTS, find_dialect
from service.gateway.requests import sign_request, verify_request
from service.gateway.signature import sign_callback, verify_callback

FIELDS = {
    "biz_order_no": "DK/1",
    "pay_order_no": "P1",
    "order_type": "single_withhold",
    "pay_type": "baofoo_001",
    "pay_status": "fail",
    "pay_time": "",
    "channel_response": "余额<不足>/\x7f",
}
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=10)
FLAT_FIELDS = st.dictionaries(TEXTS.filter(lambda name: name != "sign"), TEXTS, min_size=1, max_size=6)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@settings(max_examples=20)
@given(fields=FLAT_FIELDS)
def test_what_the_sandbox_signs_in_any_dialect_is_verified_in_any_encoding(dialect: Any, fields: Any) -> None:
    signed = {**fields, "sign": sign_callback(fields, dialect)}

    for body in (json.dumps(signed), json.dumps(signed, ensure_ascii=False, indent=1), urlencode(signed)):
        assert dict(verify_callback(body.encode(), None).fields) == fields


def test_the_dialect_that_matched_is_returned() -> None:
    sign = sign_callback(FIELDS, find_dialect("gson+utf16"))
    rewritten = json.dumps({**FIELDS, "sign": sign}, ensure_ascii=False).encode()
    own_text = '{"b":"\\u003c","a":1}'
    own = own_text[:-1] + ',"sign":"' + md5(b'{"a":1,"b":"\\u003c"}').hexdigest() + '"}'

    assert verify_callback(rewritten, None).dialect == "gson+utf16"
    assert verify_callback(own.encode(), None).dialect == "spliced"


def test_the_encoding_of_the_body_is_returned() -> None:
    sign = sign_callback(FIELDS, find_dialect("php"))

    assert verify_callback(json.dumps({**FIELDS, "sign": sign}).encode(), None).kind is BodyKind.JSON
    assert verify_callback(urlencode({**FIELDS, "sign": sign}).encode(), None).kind is BodyKind.FORM


def test_a_sign_in_upper_case_is_taken_and_kept_in_lower_case() -> None:
    sign = sign_callback(FIELDS, find_dialect("php"))
    body = json.dumps({**FIELDS, "sign": sign.upper()}).encode()

    assert verify_callback(body, None).sign == sign


def test_a_byte_order_mark_and_white_space_around_the_body_are_passed_over() -> None:
    body = json.dumps({**FIELDS, "sign": sign_callback(FIELDS, find_dialect("php"))}).encode()

    assert verify_callback(b"\xef\xbb\xbf \r\n" + body + b"\n", None).fields == FIELDS


def test_indented_json_is_verified_whether_it_was_signed_so_or_compact() -> None:
    indented = '{\n  "a": 1,\n  "b": 2\n}'
    for signed in (indented, '{"a":1,"b":2}'):
        body = indented.replace("\n}", f',\n  "sign": "{md5(signed.encode()).hexdigest()}"\n}}')
        assert verify_callback(body.encode(), None).fields == {"a": NumberToken("1"), "b": NumberToken("2")}


def test_a_form_that_leaves_out_a_signed_null_is_verified_without_that_field() -> None:
    signed = '{"biz_order_no":"1","channel_response":null,"order_type":null,"pay_order_no":"2","pay_status":"fail",'
    signed += '"pay_time":null,"pay_type":"b"}'
    sign = md5(signed.encode()).hexdigest()
    verified = verify_callback(f"biz_order_no=1&pay_order_no=2&pay_status=fail&pay_type=b&sign={sign}".encode(), None)
    assert verified.dialect == "php+nulls"
    assert verified.fields == {"biz_order_no": "1", "pay_order_no": "2", "pay_status": "fail", "pay_type": "b"}


@pytest.mark.parametrize(("signed", "said"), [("null", None), ('"null"', "null")])
def test_null_in_a_form_is_text_or_null_as_it_was_signed(signed: str, said: str | None) -> None:
    text = f'{{"biz_order_no":"1","order_type":"w","pay_order_no":"2","pay_status":"fail","pay_time":{signed},'
    text += f'"pay_type":{signed},"channel_response":"x"}}'
    sign = sign_callback(read_object(text).values, find_dialect("php"))
    form = "biz_order_no=1&order_type=w&pay_order_no=2&pay_status=fail&pay_time=null&pay_type=null&channel_response=x"
    fields = verify_callback(f"{form}&sign={sign}".encode(), None).fields
    assert (fields["pay_type"], fields["pay_time"]) == (said, said)


def test_a_missing_field_of_json_is_not_read_as_null() -> None:
    signed = '{"biz_order_no":"1","channel_response":null,"order_type":null,"pay_order_no":null,"pay_status":"fail",'
    signed += '"pay_time":null,"pay_type":null}'
    sign = md5(signed.encode()).hexdigest()
    with pytest.raises(SignMismatch):
        verify_callback(f'{{"biz_order_no":"1","pay_status":"fail","sign":"{sign}"}}'.encode(), None)


def test_a_null_that_the_document_does_not_name_cannot_be_left_out_of_the_sign() -> None:
    sign = sign_callback({"biz_order_no": "1"}, find_dialect("gson+utf16"))
    documented = json.dumps({"biz_order_no": "1", "pay_time": None, "sign": sign})

    assert verify_callback(documented.encode(), None).sign == sign
    for stranger in ('"x":null', '"pay_time":{"x":null}', '"pay_time":[null]'):
        with pytest.raises(SignMismatch):
            verify_callback(documented.replace('"pay_time": null', stranger).encode(), None)


def test_a_mismatch_carries_every_text_that_was_tried() -> None:
    body = json.dumps({**FIELDS, "sign": "A" * 32}).encode()

    with pytest.raises(SignMismatch) as refused:
        verify_callback(body, None)

    assert refused.value.received_sign == "a" * 32
    assert {"spliced", "php", "python+recursive"} <= {tried.dialect for tried in refused.value.tried}
    assert all(md5(tried.canonical).hexdigest() == tried.sign for tried in refused.value.tried)


def test_a_refusal_quotes_nothing_of_the_body() -> None:
    for body in (
        json.dumps({**FIELDS, "sign": "a" * 32}),
        json.dumps({**FIELDS, "sign": "secret"}),
        '{"name":"secret"',
        "secret&name=secret",
        '{"secret":1,"secret":2}',
    ):
        with pytest.raises(CallbackRefused) as refused:
            verify_callback(body.encode(), None)
        assert "secret" not in str(refused.value)
        assert "DK/1" not in str(refused.value)


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"", None, Refusal.NOT_AN_OBJECT),
        (b"", "application/x-www-form-urlencoded", Refusal.MISSING_SIGN),
        (b"success", "application/x-www-form-urlencoded", Refusal.NOT_A_FORM),
        (b"success", "application/json", Refusal.NOT_AN_OBJECT),
        (b"[]", "application/json", Refusal.NOT_AN_OBJECT),
        (b'{"a":"\xd3\xe0"}', "application/json", Refusal.BAD_UTF8),
        (b'{"a":"\xed\xa0\x80"}', "application/json", Refusal.BAD_UTF8),
        (b"a=%D3%E0&sign=1", None, Refusal.BAD_UTF8),
        (b"a=1&a=2&sign=1", None, Refusal.DUPLICATE_KEY),
        (b"a=1&b", None, Refusal.NOT_A_FORM),
        (b"&".join([b"a%d=1" % n for n in range(600)]), None, Refusal.TOO_MANY_VALUES),
        (b'{"biz_order_no":"1"}', None, Refusal.MISSING_SIGN),
        (b'{"biz_order_no":"1","sign":null}', None, Refusal.MISSING_SIGN),
        (b"biz_order_no=1&sign=", None, Refusal.MISSING_SIGN),
        (b'{"sign":1}', None, Refusal.MALFORMED_SIGN),
        (b'{"sign":["' + b"a" * 32 + b'"]}', None, Refusal.MALFORMED_SIGN),
        (b'{"sign":"' + b"a" * 33 + b'"}', None, Refusal.MALFORMED_SIGN),
        (b'{"sign":"' + b"a" * 32 + b'\\n"}', None, Refusal.MALFORMED_SIGN),
        ('{"sign":"' + "１" * 32 + '"}', None, Refusal.MALFORMED_SIGN),
    ],
)
def test_a_body_without_a_readable_sign_is_refused_with_its_reason(
    body: Any, content_type: str | None, reason: Any
) -> None:
    with pytest.raises(CallbackRefused) as refused:
        verify_callback(body if isinstance(body, bytes) else body.encode(), content_type)

    assert refused.value.reason is reason


@pytest.mark.parametrize("filling", ["中", "\x7f中", "𠮷", "<", "/", "\\\\", "\\u001f", "\\ud800", "[{,"])
def test_a_body_of_full_size_is_refused_like_any_other_whatever_it_is_filled_with(filling: str) -> None:
    start = f'{{"sign":"{"a" * 32}","x":"'
    filled = start + filling * ((65_000 - len(start)) // len(filling.encode())) + '"}'

    with pytest.raises(SignMismatch):
        verify_callback(filled.encode(), None)


@given(body=st.binary(max_size=80) | st.text(alphabet='{}[]":,=&%\\ signab01', max_size=60).map(str.encode))
def test_no_body_raises_anything_but_a_refusal(body: Any) -> None:
    with pytest.raises(CallbackRefused):
        verify_callback(body, None)


def test_a_request_sign_of_another_method_key_or_args_is_refused() -> None:
    good = {"ua": "LOAN_APP", "key": "1234567890abcdef", "method": "single-withhold", "args": "LP/+"}
    dialect = RequestDialect()
    sign = sign_request(**good, dialect=dialect)

    verify_request(sign=sign, **good, dialect=dialect)
    for name in good:
        with pytest.raises(RequestRefused):
            verify_request(sign=sign, **{**good, name: "other"}, dialect=dialect)


def test_a_request_sign_takes_a_separator_and_either_case() -> None:
    dialect = RequestDialect(sign_separator="|", sign_case=SignCase.UPPER)
    sign = sign_request(ua="a", key="b", method="c", args="d", dialect=dialect)

    assert sign == md5(b"a|b|c|d").hexdigest().upper()


def test_an_unknown_dialect_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(DialectInvalid, match="'perl' is not a JSON dialect; allowed are php, "):
        find_dialect("perl")
