"""`payment-callbacks sign explain`: what it prints, and what it masks."""

import gzip
import json
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.cli.sign import first_difference
from service.gateway.sign_explanation import mask_signed_text

CARD = "6222021234567890128"
FIELDS = {
    "biz_order_no": "DK1",
    "pay_order_no": "P1",
    "pay_status": "fail",
    "channel_response": f"卡{CARD}余额不足/51",
    "mobile": "none",
    "name": "欧阳娜娜",
}


def explain(body: Any, *options: Any) -> Any:
    return CliRunner().invoke(main, ["sign", "explain", *options], input=body)


def sent(sign: Any) -> bytes:
    return json.dumps({**FIELDS, "sign": sign}).encode()


WRONG = sent("0" * 31 + "1")


def test_a_sign_that_fits_is_printed_with_its_dialect_in_plain_words() -> None:
    canonical = json.dumps(dict(sorted(FIELDS.items())), separators=(",", ":"), ensure_ascii=False)
    result = explain(sent(md5(canonical.encode()).hexdigest()))
    assert result.exit_code == 0
    assert "The sign fits." in result.output
    assert "JSON_UNESCAPED_UNICODE" in result.output
    assert "does not prove who sent it" in result.output


def test_a_sign_that_fits_nothing_ends_with_1_and_marks_where_the_texts_part() -> None:
    result = explain(WRONG)
    assert result.exit_code == 1
    assert "The sign does not fit." in result.output
    assert "characters beyond ASCII" in result.output
    assert "»" in result.output
    assert "\x1b[" not in result.output


@pytest.mark.parametrize("options", [(), ("--full",)], ids=str)
def test_personal_data_is_masked_in_every_text_however_it_is_escaped(options: Any) -> None:
    output = explain(WRONG, *options).output
    assert "6222****0128" in output
    for private in (CARD, CARD[4:-4], "欧阳", "\\u6b27\\u9633", "\\u6B27"):
        assert private not in output


def test_personal_data_is_printed_on_request() -> None:
    output = explain(WRONG, "--unmasked", "--full").output
    assert CARD in output
    assert "欧阳娜娜" in output


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "\x9b31m", "a\u202eb"])
def test_a_name_that_a_sender_made_up_moves_no_cursor(name: str) -> None:
    fields = {**FIELDS, name: "é/"}
    unsigned = {**FIELDS, name: "left out of the sign"}
    sign = md5(json.dumps(dict(sorted(FIELDS.items())), separators=(",", ":")).encode()).hexdigest()
    for body in ({**fields, "sign": "1" * 32}, {**unsigned, "sign": sign}):
        result = explain(json.dumps(body).encode(), "--full")
        assert result.exit_code == 1
        assert repr(name)[1:-1] in result.output
        assert [character for character in result.output if not character.isprintable() and character != "\n"] == []


def test_every_text_is_printed_in_full_on_request() -> None:
    briefly, fully = explain(WRONG).output, explain(WRONG, "--full").output
    assert fully.count("md5 ") > briefly.count("md5 ")


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "not-an-object"), (b'{"a":1}', "missing-sign"), (b'{"a":1,"a":2}', "duplicate-key"), (b"\xff", "bad-utf8")],
)
def test_a_refusal_before_signs_are_compared_is_printed(body: bytes, reason: str) -> None:
    result = explain(body)
    assert result.exit_code == 1
    assert reason in result.output


PART = '--X1\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
MULTIPART = "".join(PART.format(name, value) for name, value in json.loads(WRONG).items()) + "--X1--\r\n"


@pytest.mark.parametrize("options", [(), ("--content-type", "multipart/form-data; boundary=X1")], ids=str)
def test_a_multipart_form_is_explained_with_its_header_or_without(options: Any) -> None:
    result = explain(MULTIPART.encode(), *options)
    assert result.exit_code == 1
    assert "The body is a multipart form; its sign is" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" + WRONG + b"]", "a JSON list with the one object in it"),
        (json.dumps(WRONG.decode()).encode(), "a JSON string that holds the JSON"),
        (b"data=" + WRONG, "a form with the JSON as its only key or value"),
        (gzip.compress(WRONG), "compressed with gzip"),
        (json.dumps(json.loads(WRONG), ensure_ascii=False).encode("gbk"), "it can be read as GBK"),
        (WRONG.decode().encode("utf-16"), "UTF-16"),
        (b"[" + WRONG + b"," + WRONG + b"]", "a list with exactly one object"),
        (b"<xml/>", "it looks like XML or HTML"),
    ],
)
def test_what_a_body_is_wrapped_in_is_named(body: Any, said: str) -> None:
    result = explain(body)
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())


def test_a_sign_over_numbers_of_a_form_is_described_in_plain_words() -> None:
    sign = md5(b'{"a":1,"b":"x"}').hexdigest()
    result = explain(f"a=1&b=x&sign={sign}".encode())
    assert result.exit_code == 0
    assert "php+numbers" in result.output
    assert "signed as one, without quotes" in result.output


def test_texts_of_another_reading_are_printed_with_its_name() -> None:
    result = explain(b"a=1+2&sign=" + b"1" * 32)
    assert "php (form-with-plus)" in result.output


def test_a_file_is_read_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(WRONG)
    assert CliRunner().invoke(main, ["sign", "explain", str(file)]).output == explain(WRONG).output


@pytest.mark.parametrize(
    ("left", "right", "marked"),
    [
        ("abc", "abd", ("ab»c", "ab»d")),
        ("ab", "abc", ("ab»(its end)", "ab»c")),
        ("a" * 30 + "b", "a" * 30 + "c", ("…" + "a" * 20 + "»b", "…" + "a" * 20 + "»c")),
    ],
)
def test_the_first_difference_is_marked_on_both_sides(left: Any, right: Any, marked: Any) -> None:
    difference = first_difference(left, right)
    assert difference is not None
    assert (difference.left.plain, difference.right.plain) == marked


def test_equal_texts_have_no_difference() -> None:
    assert first_difference("a", "a") is None


def test_what_cannot_be_seen_is_made_visible() -> None:
    assert mask_signed_text('{"a":"\x7f\u2028"}\n') == '{"a":"\\x7f\\u2028"}\\n'
