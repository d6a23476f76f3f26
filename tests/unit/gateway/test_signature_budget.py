"""The work on one body's sign is limited by counting, whatever the body holds."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings, target
from hypothesis import strategies as st

from service.gateway.errors import CallbackRefused, SignMismatch
from service.gateway.json_dialects import JsonWriter
from service.gateway.signature import MAX_BYTES_PER_BYTE, MAX_TEXTS, MIN_BODY_BYTES, Budget, verify_callback
from tests.support.costly_bodies import COSTLY_CONTENT_TYPE, LARGEST_BODY_BYTES, costly_bodies


class Written:
    """How many bytes the writers have written."""

    def __init__(self, monkeypatch: Any) -> None:
        self.bytes = 0
        write_members = JsonWriter.write_members

        def counting(writer: Any, values: Any, nested_order: Any) -> Any:
            members = write_members(writer, values, nested_order)
            self.bytes += sum(len(member.encode("utf-8", "backslashreplace")) for member in members.values())
            return members

        monkeypatch.setattr(JsonWriter, "write_members", counting)


@pytest.fixture(scope="module")
def written() -> Iterator[Written]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Written(monkeypatch)


def cost(body: Any, written: Any) -> Any:
    """How many different texts were hashed, and how many bytes were written, joined or hashed."""
    before = written.bytes
    with pytest.raises(CallbackRefused) as refused:
        verify_callback(body, COSTLY_CONTENT_TYPE)
    hashed = {tried.canonical for tried in refused.value.tried} if isinstance(refused.value, SignMismatch) else set()
    return len(hashed), written.bytes - before + 2 * sum(map(len, hashed))


# Every level of objects copies what the inner ones have written.
NESTED = {"sign": "a" * 32, "f": {"b": "\u2028" * 1666, "a": [None]}}


@settings(max_examples=300)
@given(body=costly_bodies())
@example(body=json.dumps(NESTED, ensure_ascii=False).encode())
@example(body=json.dumps(NESTED | {"g": {"h": {"i": {"j": NESTED}}}}, ensure_ascii=False).encode())
def test_no_body_costs_more_than_its_share_of_texts_and_bytes(written: Written, body: Any) -> None:
    texts, spent = cost(body, written)
    target(float(texts), label="texts")
    target(spent / max(len(body), MIN_BODY_BYTES), label="bytes written or hashed for each byte of the body")
    assert texts <= MAX_TEXTS
    assert spent <= MAX_BYTES_PER_BYTE * max(len(body), MIN_BODY_BYTES)


@pytest.mark.parametrize("filling", ["\b\x7f\f\x01\\", "\b\x7f\f\x01\\+", "\x80</", "a" * 40 + "\u2028</", "a", "中/"])
def test_a_form_of_full_size_stays_within_its_bounds_whatever_it_is_filled_with(written: Written, filling: Any) -> None:
    start = f"sign={'a' * 32}&channel_response="
    body = (start + filling * LARGEST_BODY_BYTES).encode()[:LARGEST_BODY_BYTES].decode(errors="ignore").encode()
    texts, spent = cost(body, written)
    assert texts <= MAX_TEXTS
    assert spent <= MAX_BYTES_PER_BYTE * LARGEST_BODY_BYTES


def test_a_body_of_an_ordinary_size_is_tried_to_the_end() -> None:
    fields = {
        "biz_order_no": "DK/1",
        "pay_order_no": "P1",
        "order_type": "single_withhold",
        "pay_type": "baofoo_001",
        "pay_status": "success",
        "pay_time": "2026-07-01 12:00:00",
        "amount": "1.00",
        "channel_response": "余额不足，“<b>51</b>”" * 3,
        "sign": "a" * 32,
    }
    for body in (json.dumps(fields), json.dumps(fields, ensure_ascii=False, indent=1), urlencode(fields)):
        with pytest.raises(SignMismatch) as refused:
            verify_callback(body.encode(), None)
        assert {"php", "python+recursive"} <= {tried.dialect for tried in refused.value.tried}
        assert "its size" not in str(refused.value)


def test_the_refusal_says_that_not_every_dialect_was_tried() -> None:
    body = b"sign=" + b"a" * 32 + b"&x=" + b"\x01" * 60_000
    with pytest.raises(SignMismatch, match="more are not tried on a body of its size"):
        verify_callback(body, None)


@given(size=st.integers(0, 70_000), readings=st.integers(1, 9))
def test_the_shares_of_all_readings_make_no_more_than_the_whole(size: int, readings: int) -> None:
    share = Budget.of_body(size, readings=readings)
    assert share.texts * readings <= MAX_TEXTS
    assert share.bytes * readings <= MAX_BYTES_PER_BYTE * max(size, MIN_BODY_BYTES)


def test_a_step_beyond_the_budget_is_left_out_and_marked() -> None:
    budget = Budget(texts=1, bytes=10)
    assert budget.pay_writing(8)
    assert not budget.pay_text(2)
    assert (budget.exceeded, budget.texts, budget.bytes) == (True, 1, 2)
    assert budget.pay_text(1)
    assert not budget.pay_text(0)
