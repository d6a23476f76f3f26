import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.claims import Claim, ClaimSource, OrderStatus, Trust
from service.domain.money import Money
from service.messaging.codec import CLAIM_V1, decode_claim, encode_claim
from service.messaging.errors import UndecodableMessage
from service.messaging.interface import Message

_CLAIM = Claim(
    merchant="acme",
    biz_order_no="D2026 0001/ä",
    trust=Trust.CAPABILITY,
    source=ClaimSource.CALLBACK,
    status=OrderStatus.SUCCEEDED,
    pay_order_no="P1",
    order_type="withhold",
    pay_type="yeepay",
    paid_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=8))),
    channel_response="余额不足",
    stated_at=datetime(2026, 1, 2, 3, 4, 6, 789, tzinfo=UTC),
    digest="ab" * 32,
    unknown_fields={"extra": "1", "lone": "\ud800"},
    traceparent="00-1-2-01",
)

_texts = st.text(max_size=20)
_filled_texts = st.text(min_size=1, max_size=20)
# With the offset of their zone then, not the zone: a local time that a clock shows twice equals nothing but itself, and
# one that it skips is no moment.
_moments = st.datetimes(timezones=st.timezones(), allow_imaginary=False).map(
    lambda local: local.replace(tzinfo=timezone(local.utcoffset() or timedelta()))
)
_claims = st.builds(
    Claim,
    merchant=_filled_texts,
    biz_order_no=_filled_texts,
    trust=st.sampled_from(Trust),
    source=st.sampled_from(ClaimSource),
    status=st.none() | st.sampled_from(OrderStatus),
    pay_order_no=st.none() | _texts,
    order_type=_texts,
    pay_type=_texts,
    amount=st.none() | st.builds(Money, st.integers(min_value=0, max_value=10**15).map(str), st.just("fen")),
    paid_at=st.none() | _moments,
    channel_response=_texts,
    stated_at=_moments,
    digest=_filled_texts,
    digest_without_amount=st.none() | _filled_texts,
    quarantine=st.none() | _texts,
    unknown_fields=st.dictionaries(_texts, _texts, max_size=3),
    missing_fields=st.lists(_filled_texts, max_size=3).map(tuple),
    traceparent=st.none() | _filled_texts,
    stated_by=_texts,
    reason=_texts,
)


def _altered(**changes: Any) -> Message:
    message = encode_claim(_CLAIM)
    body = json.loads(message.body) | changes
    return replace(message, body=json.dumps(body).encode())


@given(_claims)
def test_every_claim_comes_back_as_it_went(claim: Claim) -> None:
    assert decode_claim(encode_claim(claim)) == claim


def test_a_claim_goes_to_its_merchant_with_its_version_and_trace() -> None:
    message = encode_claim(_CLAIM)

    assert (message.exchange, message.routing_key, message.type) == ("payment.callbacks", "acme", CLAIM_V1)
    assert message.headers == {"traceparent": "00-1-2-01"}


def test_the_bytes_of_a_message_are_those_of_every_release() -> None:
    full = replace(
        _CLAIM,
        trust=Trust.QUERIED,
        source=ClaimSource.QUERY,
        status=OrderStatus.FAILED,
        paid_at=datetime(1900, 1, 1, tzinfo=timezone(timedelta(hours=8, minutes=5, seconds=43))),
        channel_response='余额不足 "\\\u2028\x7f\x00\ud800',
        quarantine="unknown status",
        unknown_fields={"b": "1", "a": "/"},
        stated_by="li",
        reason="bank\nstatement",
    )
    assert encode_claim(full).body == (
        rb'{"merchant":"acme","biz_order_no":"D2026 0001/\u00e4","trust":"query","source":"query","status":"failed",'
        rb'"pay_order_no":"P1","order_type":"withhold","pay_type":"yeepay","paid_at":"1900-01-01T00:00:00+08:05:43",'
        rb'"channel_response":"\u4f59\u989d\u4e0d\u8db3 \"\\\u2028\u007f\u0000\ud800",'
        rb'"stated_at":"2026-01-02T03:04:06.000789+00:00",'
        rb'"digest":"abababababababababababababababababababababababababababababababab",'
        rb'"quarantine":"unknown status","unknown_fields":{"b":"1","a":"/"},"stated_by":"li",'
        rb'"reason":"bank\nstatement"}'
    )
    least = Claim(
        merchant="acme",
        biz_order_no="DK1",
        trust=Trust.CHECKSUM,
        source=ClaimSource.CALLBACK,
        status=None,
        stated_at=datetime(2026, 1, 5, 12, tzinfo=UTC),
        digest="0",
    )
    assert encode_claim(least).body == (
        b'{"merchant":"acme","biz_order_no":"DK1","trust":"checksum","source":"callback","status":null,'
        b'"pay_order_no":null,"order_type":"","pay_type":"","paid_at":null,"channel_response":"",'
        b'"stated_at":"2026-01-05T12:00:00+00:00","digest":"0","quarantine":null,"unknown_fields":{},"stated_by":"",'
        b'"reason":""}'
    )


def test_two_messages_of_one_claim_have_ids_of_their_own() -> None:
    assert encode_claim(_CLAIM).message_id != encode_claim(_CLAIM).message_id


def test_a_field_of_a_later_release_is_passed_over() -> None:
    assert decode_claim(_altered(of_tomorrow={"a": 1})) == _CLAIM


def test_fields_that_nothing_misses_leave_the_message_as_older_releases_made_it() -> None:
    assert "missing_fields" not in json.loads(encode_claim(_CLAIM).body)
    assert json.loads(encode_claim(replace(_CLAIM, missing_fields=("pay_time",))).body)["missing_fields"] == [
        "pay_time"
    ]


def test_an_amount_and_what_comes_with_it_are_in_the_message_only_where_there_is_one() -> None:
    plain = json.loads(encode_claim(_CLAIM).body)
    stated = replace(_CLAIM, amount=Money("100.00", "yuan"), digest_without_amount="cd")
    assert json.loads(encode_claim(stated).body) == {
        **plain,
        "amount": "100.00",
        "amount_unit": "yuan",
        "digest_without_amount": "cd",
    }


@pytest.mark.parametrize(("amount", "unit", "field"), [("1e2", "yuan", "amount"), ("1", "dollar", "amount_unit")])
def test_an_amount_that_no_release_writes_is_named(amount: str, unit: str, field: str) -> None:
    with pytest.raises(UndecodableMessage, match=f"field '{field}' must be"):
        decode_claim(_altered(amount=amount, amount_unit=unit))


def test_another_version_is_named() -> None:
    with pytest.raises(UndecodableMessage, match=r"type is 'payment-callbacks\.claim\.v2'"):
        decode_claim(replace(encode_claim(_CLAIM), type="payment-callbacks.claim.v2"))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_undecodable(body: bytes) -> None:
    with pytest.raises(UndecodableMessage, match="body is"):
        decode_claim(replace(encode_claim(_CLAIM), body=body))


@pytest.mark.parametrize("field", sorted(json.loads(encode_claim(_CLAIM).body)))
def test_a_missing_field_is_named(field: str) -> None:
    message = encode_claim(_CLAIM)
    body = {name: value for name, value in json.loads(message.body).items() if name != field}

    with pytest.raises(UndecodableMessage, match=f"field '{field}' is missing"):
        decode_claim(replace(message, body=json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("merchant", ""),
        ("merchant", None),
        ("biz_order_no", 7),
        ("trust", "absolute"),
        ("trust", 20),
        ("source", "rumour"),
        ("status", "success"),
        ("pay_order_no", 1),
        ("paid_at", "yesterday"),
        ("paid_at", "2026-01-02T03:04:05"),
        ("stated_at", None),
        ("unknown_fields", {"a": 1}),
        ("unknown_fields", []),
        ("digest", ""),
        ("digest_without_amount", ""),
        ("missing_fields", "pay_time"),
        ("missing_fields", [1]),
        ("missing_fields", None),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_without_its_value(field: str, value: object) -> None:
    with pytest.raises(UndecodableMessage, match=f"field '{field}' must be") as caught:
        decode_claim(_altered(**{field: value}))

    assert not value or str(value) not in str(caught.value)
