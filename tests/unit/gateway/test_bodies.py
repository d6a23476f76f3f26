"""Bodies that carry a correctly signed callback in the wrappings that gateways send it in."""

import bz2
import gzip
import json
import lzma
import subprocess
import zlib
from collections.abc import Callable
from functools import partial
from hashlib import md5
from itertools import permutations, product
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from service.gateway.bodies import BodyKind, NumberToken, read_body
from service.gateway.errors import CallbackRefused, Refusal, SignMismatch
from service.gateway.json_dialects import find_dialect
from service.gateway.signature import DEGENERATE_SIGNS, sign_callback, verify_callback, verify_readings

FIELDS = {
    "biz_order_no": "DK1",
    "pay_order_no": "P1",
    "order_type": "single_withhold",
    "pay_type": "baofoo_001",
    "pay_status": "success",
    "pay_time": "2026-07-01 12:00:00",
    "channel_response": "余额+100% & <a=b>/",
}
MULTIPART = "multipart/form-data; boundary=b0undary"


def signed(fields: Any = FIELDS, sign: Any = None) -> Any:
    return {**fields, "sign": sign or sign_callback(fields, find_dialect("php"))}


def as_json(fields: Any, **options: Any) -> Any:
    return json.dumps(fields, ensure_ascii=False, **options)


def multipart(fields: Any, *, boundary: str = "b0undary", headers: str = "") -> str:
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n{headers}\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return f"{''.join(parts)}--{boundary}--\r\n"


def literal_plus(fields: Any) -> Any:
    return "&".join(f"{name}={quote(value, safe='+')}" for name, value in fields.items())


#: How each reading's sender writes it, with the Content-Type that it sends.
WRAPPED: dict[str, tuple[BodyKind, str | None, Callable[..., Any]]] = {
    "json": (BodyKind.JSON, None, as_json),
    "form": (BodyKind.FORM, None, urlencode),
    "form with & at both ends": (BodyKind.FORM, None, lambda fields: f"&{urlencode(fields)}&"),
    "form with literal +": (BodyKind.FORM_WITH_PLUS, None, literal_plus),
    "multipart": (BodyKind.MULTIPART, MULTIPART, multipart),
    "multipart of Apache's HttpClient": (
        BodyKind.MULTIPART,
        'Multipart/Form-Data; charset=UTF-8; boundary="b0undary"',
        lambda fields: multipart(
            fields, headers="Content-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
        ),
    ),
    "multipart with bare names": (
        BodyKind.MULTIPART,
        MULTIPART,
        lambda fields: multipart(fields).replace('name="', "name=").replace('"\r\n', "\r\n"),
    ),
    "json as the only key": (BodyKind.JSON_IN_FORM, None, lambda fields: f"{quote_plus(as_json(fields))}="),
    "json as the only key, without =": (BodyKind.JSON_IN_FORM, None, lambda fields: quote(as_json(fields))),
    "json as the only key, not encoded": (BodyKind.JSON_IN_FORM, None, lambda fields: f"{as_json(fields)}="),
    "json as the only value": (BodyKind.JSON_IN_FORM, None, lambda fields: urlencode({"data": as_json(fields)})),
    "json as the only value, with & at its end": (
        BodyKind.JSON_IN_FORM,
        None,
        lambda fields: urlencode({"data": as_json(fields)}) + "&",
    ),
    "json as the only value, with %20": (BodyKind.JSON_IN_FORM, None, lambda fields: f"data={quote(as_json(fields))}"),
    "json as the only value, with literal +": (
        BodyKind.JSON_IN_FORM,
        None,
        lambda fields: f"data={quote(as_json(fields), safe='+/:,')}",
    ),
    "json as the only value, not encoded": (BodyKind.JSON_IN_FORM, None, lambda fields: f"data={as_json(fields)}"),
    "json in json": (BodyKind.JSON_IN_JSON, None, lambda fields: json.dumps(as_json(fields))),
    "json in json with spaces": (
        BodyKind.JSON_IN_JSON,
        None,
        lambda fields: f" {as_json(as_json(fields, indent=1))}\n",
    ),
    "a list with the one object": (BodyKind.JSON_LIST, None, lambda fields: as_json([fields])),
    "an indented list": (BodyKind.JSON_LIST, None, lambda fields: as_json([fields], indent=2)),
}
wrapped = pytest.mark.parametrize(("kind", "content_type", "wrap"), WRAPPED.values(), ids=WRAPPED)


def refusal(body: Any, content_type: Any = None) -> Any:
    with pytest.raises(CallbackRefused) as refused:
        verify_callback(body if isinstance(body, bytes) else body.encode(), content_type)
    return refused.value


@wrapped
def test_a_signed_callback_is_verified_in_every_wrapping(kind: Any, content_type: Any, wrap: Any) -> None:
    verified = verify_callback(wrap(signed()).encode(), content_type)
    assert (verified.fields, verified.kind) == (FIELDS, kind)


@wrapped
def test_a_changed_field_is_refused_in_every_wrapping(kind: Any, content_type: Any, wrap: Any) -> None:
    changed = wrap({**signed(), "biz_order_no": "DK2"})
    assert refusal(changed, content_type).reason is Refusal.SIGN_MISMATCH


@wrapped
@pytest.mark.parametrize("sign", sorted(DEGENERATE_SIGNS))
def test_the_sign_of_nothing_is_refused_in_every_wrapping(kind: Any, content_type: Any, wrap: Any, sign: Any) -> None:
    for fields in (FIELDS, {}):
        assert refusal(wrap(signed(fields, sign)), content_type).reason is Refusal.DEGENERATE_SIGN


@wrapped
def test_a_missing_sign_is_reported_in_every_wrapping(kind: Any, content_type: Any, wrap: Any) -> None:
    assert refusal(wrap(FIELDS), content_type).reason is Refusal.MISSING_SIGN


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([[signed()]]),
        json.dumps([json.dumps(signed())]),
        json.dumps(json.dumps(json.dumps(signed()))),
        json.dumps(json.dumps([signed()])),
        urlencode({"data": json.dumps([signed()])}),
        urlencode({"data": json.dumps(json.dumps(signed()))}),
        urlencode({"data": urlencode({"data": json.dumps(signed())})}),
        json.dumps(urlencode(signed())),
        json.dumps({"data": signed()}),
        multipart({"data": json.dumps(signed())}),
        multipart({"data": urlencode(signed())}),
    ],
)
def test_nothing_is_unwrapped_twice(body: Any) -> None:
    for content_type in (None, MULTIPART):
        refusal(body, content_type)


def test_a_second_wrapping_has_a_reason_of_its_own() -> None:
    in_a_list, in_a_string = [signed()], as_json(signed())
    for wrapped_once in (in_a_list, in_a_string):
        text = json.dumps(wrapped_once)
        for body in (
            json.dumps([wrapped_once]),
            json.dumps(text),
            urlencode({"data": text}),
            f"{quote(text)}=",
            multipart({"data": text}),
        ):
            assert refusal(body, MULTIPART).reason is Refusal.WRAPPED_TWICE


@pytest.mark.parametrize("count", [0, 2])
def test_a_list_of_none_or_several_is_refused(count: int) -> None:
    assert refusal(json.dumps([signed()] * count)).reason is Refusal.NOT_AN_OBJECT


def test_json_beside_another_field_is_not_taken_out_of_a_form() -> None:
    refusal(urlencode({"data": json.dumps(signed()), "more": "1"}))
    refusal(urlencode({"more": "1", json.dumps(signed()): ""}))


def test_all_fields_are_read_in_the_same_encoding() -> None:
    fields = {**FIELDS, "channel_response": "a b", "pay_time": "a+b"}
    form = urlencode(signed(fields)).replace("a%2Bb", "a+b")
    assert form.count("a+b") == 2
    assert refusal(form).reason is Refusal.SIGN_MISMATCH


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (multipart(FIELDS).replace("--b0undary--", ""), Refusal.NOT_MULTIPART),
        (f"before\r\n{multipart(FIELDS)}", Refusal.NOT_MULTIPART),
        (f"{multipart(FIELDS)}after", Refusal.NOT_MULTIPART),
        (multipart(FIELDS).replace("\r\n", "\n"), Refusal.NOT_MULTIPART),
        (multipart(FIELDS, headers="Content-Transfer-Encoding: base64\r\n"), Refusal.NOT_MULTIPART),
        (multipart(FIELDS, headers="Content-Disposition: form-data; name=b\r\n"), Refusal.NOT_MULTIPART),
        (multipart(FIELDS).replace("; name=", "; other="), Refusal.NOT_MULTIPART),
        (multipart(FIELDS, boundary="another"), Refusal.NOT_MULTIPART),
        ("--b0undary--", Refusal.NOT_MULTIPART),
        (multipart(signed()).replace('"pay_time"', '"pay_time"; filename="a"'), Refusal.FILE_IN_FORM),
        (multipart(signed()).replace('"pay_time"', "\"pay_time\"; filename*=UTF-8''a"), Refusal.FILE_IN_FORM),
        (multipart(signed()).replace('"pay_time"', '"pay_type"'), Refusal.DUPLICATE_KEY),
        (multipart({str(number): "" for number in range(300)}), Refusal.TOO_MANY_VALUES),
    ],
)
def test_a_multipart_body_that_two_readers_could_understand_differently_is_refused(body: Any, reason: Any) -> None:
    assert refusal(body, MULTIPART).reason is reason


@pytest.mark.parametrize(
    "content_type", [None, "multipart/form-data", "multipart/mixed; boundary=b0undary", "text/plain"]
)
def test_a_multipart_body_without_a_boundary_in_its_header_is_refused_with_its_reason(content_type: Any) -> None:
    found = refusal(multipart(signed()), content_type)
    assert found.reason is Refusal.NOT_MULTIPART
    assert "names no boundary" in found.detail


def test_a_multipart_value_keeps_its_line_ends_and_its_boundary_like_text() -> None:
    fields = {**FIELDS, "channel_response": "\r\na\n--b0undary\r\n\r\n--b0\r\n"}
    assert verify_callback(multipart(signed(fields)).encode(), MULTIPART).fields == fields


@given(values=st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), min_size=7, max_size=7))
def test_what_urllib3_writes_as_multipart_is_verified(values: Any) -> None:
    fields = dict(zip(FIELDS, values, strict=True))
    body, content_type = encode_multipart_formdata(signed(fields))
    assert verify_callback(body, content_type).fields == fields


def test_what_node_writes_as_multipart_is_verified() -> None:
    script = """
        const form = new FormData();
        for (const [name, value] of Object.entries(JSON.parse(process.argv[1]))) form.append(name, value);
        const sent = new Response(form);
        sent.arrayBuffer().then((body) => {
            process.stdout.write(sent.headers.get("content-type") + "\\n");
            process.stdout.write(Buffer.from(body));
        });
    """
    made = subprocess.run(["node", "-e", script, json.dumps(signed())], capture_output=True, check=True)
    content_type, _, body = made.stdout.partition(b"\n")
    assert verify_callback(body, content_type.decode()).fields == FIELDS


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("json_encode($f)", BodyKind.JSON),
        ("http_build_query($f)", BodyKind.FORM),
        ("http_build_query($f, '', '&', PHP_QUERY_RFC3986)", BodyKind.FORM),
        ("implode('&', array_map(fn($n) => $n . '=' . str_replace('%2B', '+', rawurlencode($f[$n])), array_keys($f)))",
         BodyKind.FORM_WITH_PLUS),
        ("http_build_query(['data' => json_encode($f)])", BodyKind.JSON_IN_FORM),
        ("http_build_query([json_encode($f) => ''])", BodyKind.JSON_IN_FORM),
        ("'data=' . json_encode($f, JSON_UNESCAPED_UNICODE)", BodyKind.JSON_IN_FORM),
        ("json_encode(json_encode($f))", BodyKind.JSON_IN_JSON),
        ("json_encode([$f])", BodyKind.JSON_LIST),
    ],
)  # fmt: skip
def test_what_php_signs_and_wraps_is_verified(expression: str, kind: Any) -> None:
    script = f"$f = json_decode($argv[1], true); ksort($f); $f['sign'] = md5(json_encode($f)); echo {expression};"
    made = subprocess.run(["php", "-r", script, json.dumps(FIELDS)], capture_output=True, check=True)
    verified = verify_callback(made.stdout, "application/x-www-form-urlencoded")
    assert (verified.fields, verified.kind) == (FIELDS, kind)


ONE, OTHER = {"biz_order_no": "1", "pay_status": "fail"}, {"biz_order_no": "2", "pay_status": "fail"}


def two_in_one_form(first: Any, second: Any) -> Any:
    return f"{quote(json.dumps(signed(first)))}={quote(json.dumps(signed(second)))}", None


def test_a_body_that_is_two_callbacks_that_differ_is_ambiguous() -> None:
    body, _ = two_in_one_form(ONE, OTHER)
    assert refusal(body).reason is Refusal.AMBIGUOUS


def test_a_body_that_is_the_same_callback_twice_is_not() -> None:
    body, _ = two_in_one_form(ONE, ONE)
    assert verify_callback(body.encode(), None).fields == ONE


def test_of_two_callbacks_in_a_body_the_one_with_a_wrong_sign_does_not_count() -> None:
    body, _ = two_in_one_form(ONE, OTHER)
    wrong = signed(OTHER)["sign"]
    assert verify_callback(body.replace(wrong, "a" * 32).encode(), None).fields == ONE


def test_a_json_object_in_which_a_form_hides_another_callback_is_ambiguous() -> None:
    # No sign of the JSON that is a form's only value covers the value's name: here it holds the object's own sign.
    inner = f'{{"biz_order_no":"1","pay_status":"fail","sign":"{signed({**ONE, "z": ""})["sign"]}","z":"'
    outer = {"a": f"={quote(inner, safe='')}"}
    body = json.dumps({"sign": signed(outer)["sign"], **outer}, separators=(",", ":"))
    assert refusal(body).reason is Refusal.AMBIGUOUS


def test_a_multipart_body_in_whose_headers_a_form_hides_is_ambiguous() -> None:
    body = multipart(signed(ONE)).replace("\r\n\r\n", "\r\nX: &sign=HERE&x=\r\n\r\n", 1)
    (form,) = (read for read in read_body(body.encode(), None).bodies if read.kind is BodyKind.FORM)
    sign = sign_callback(form.values, find_dialect("php"))
    assert refusal(body.replace("HERE", sign), MULTIPART).reason is Refusal.AMBIGUOUS


@given(
    first=st.dictionaries(st.text("ab=+%&"), st.text('ab=+%&{"'), min_size=1, max_size=3),
    second=st.dictionaries(st.text("ab=+%&"), st.text('ab=+%&{"'), min_size=1, max_size=3),
    one_sign=st.booleans(),
)
def test_the_fields_that_are_accepted_do_not_depend_on_the_order_of_the_readings(
    first: Any, second: Any, one_sign: bool
) -> None:
    second = first if one_sign else second
    for body in (two_in_one_form(first, second)[0], urlencode(signed(first)), literal_plus(signed(first))):
        readings = read_body(body.encode(), None)
        outcomes = set()
        for order in permutations(readings.bodies):
            readings.bodies = list(order)
            try:
                outcomes.add(repr(sorted(verify_readings(readings, size_bytes=len(body)).fields.items(), key=str)))
            except CallbackRefused as refused:
                outcomes.add(refused.reason)
        assert len(outcomes) == 1


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, *(partial(zlib.compress, level=level) for level in range(10))],
)
def test_a_compressed_body_is_refused_with_its_reason(compress: Any) -> None:
    found = refusal(compress(json.dumps(signed()).encode()))
    assert found.reason is Refusal.COMPRESSED
    assert "compressed with" in found.detail


@pytest.mark.parametrize(
    "body",
    [
        as_json(signed()).encode("gbk"),
        urlencode(signed(), encoding="gbk").encode(),
        multipart(signed()).encode("gb18030"),
        f"data={quote(as_json(signed()), encoding='gbk')}".encode(),
    ],
)
def test_a_body_in_gbk_is_refused_with_its_reason_and_named(body: bytes) -> None:
    found = refusal(body, MULTIPART)
    assert found.reason is Refusal.BAD_UTF8
    assert "GBK" in found.detail


def test_a_body_in_utf16_is_refused_and_named() -> None:
    encodings = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
    for (_, content_type, wrap), encoding in product(WRAPPED.values(), encodings):
        found = refusal(wrap(signed()).encode(encoding), content_type)
        assert (found.reason, "UTF-16" in found.detail) == (Refusal.BAD_UTF8, True)


def test_what_is_no_callback_is_described() -> None:
    assert "XML" in refusal("<xml><sign>1</sign></xml>", "text/xml").detail
    assert "empty" in refusal("").detail


def test_half_of_a_character_in_json_in_json_is_refused() -> None:
    assert refusal('"{\\"a\\":\\"\\ud800\\",\\"sign\\":\\"' + "a" * 32 + '\\"}"').reason is Refusal.BAD_UTF8


@pytest.mark.parametrize(
    ("sent", "typed"),
    [
        ({"a": "1", "b": "x", "c": "1.50"}, {"a": NumberToken("1"), "b": "x", "c": NumberToken("1.50")}),
        ({"a": "true", "b": "False", "c": "-1E+2"}, {"a": True, "b": False, "c": NumberToken("-1E+2")}),
        ({"a": "0", "b": "00", "c": "+1"}, {"a": NumberToken("0"), "b": "00", "c": "+1"}),
    ],
)
@pytest.mark.parametrize("dialect", ["php", "python+recursive", "org-json+utf16"])
def test_numbers_and_booleans_in_a_form_may_have_been_signed_without_quotes(
    sent: dict[str, Any], typed: Any, dialect: str
) -> None:
    sign = sign_callback(typed, find_dialect(dialect))
    for body, content_type in ((urlencode(signed(sent, sign)), None), (multipart(signed(sent, sign)), MULTIPART)):
        verified = verify_callback(body.encode(), content_type)
        assert verified.fields == typed
        assert verified.dialect.endswith("+numbers")


def test_numbers_of_a_form_are_all_text_or_none_is() -> None:
    sign = sign_callback({"a": NumberToken("1"), "b": "2"}, find_dialect("php"))
    assert refusal(urlencode({"a": "1", "b": "2", "sign": sign})).reason is Refusal.SIGN_MISMATCH


def test_numbers_and_nulls_of_a_form_may_have_been_signed_so_at_once() -> None:
    text = '{"biz_order_no":"D1","channel_response":null,"order_type":null,"pay_order_no":7,"pay_status":"fail",'
    text += '"pay_time":null,"pay_type":null}'
    form = f"biz_order_no=D1&pay_order_no=7&pay_status=fail&sign={md5(text.encode()).hexdigest()}"
    verified = verify_callback(form.encode(), None)
    assert verified.dialect == "php+numbers+nulls"
    assert verified.fields == {"biz_order_no": "D1", "pay_order_no": NumberToken("7"), "pay_status": "fail"}


def test_a_mismatch_lists_every_reading_that_finds_a_sign() -> None:
    found = refusal(urlencode(signed(sign="a" * 32)))
    assert isinstance(found, SignMismatch)
    assert found.kind is BodyKind.FORM
    assert {tried.kind for tried in found.tried} == {BodyKind.FORM, BodyKind.FORM_WITH_PLUS}
