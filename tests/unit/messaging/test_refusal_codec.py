import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.refusals import RefusalCount
from service.messaging.codec import REFUSALS_V1, decode_refusals, encode_refusals
from service.messaging.errors import UndecodableMessage

_COUNT = RefusalCount(merchant="acme", day=date(2026, 7, 1), reason="sign-mismatch", process="p1", callbacks=3)
_counts = st.builds(
    RefusalCount,
    merchant=st.text(max_size=5),
    day=st.dates(),
    reason=st.text(min_size=1, max_size=5),
    process=st.text(min_size=1, max_size=5),
    callbacks=st.integers(min_value=1, max_value=2**63 - 1),
)


def _altered(**fields: object) -> Any:
    message = encode_refusals([_COUNT])
    body = json.loads(message.body)
    body["counts"][0].update(fields)
    return replace(message, body=json.dumps(body).encode())


@given(st.lists(_counts, max_size=4))
def test_counts_come_out_of_a_message_as_they_went_in(counts: Any) -> None:
    assert decode_refusals(encode_refusals(counts)) == counts


def test_the_message_says_its_version_and_no_merchants_routing_key() -> None:
    message = encode_refusals([_COUNT])
    assert (message.exchange, message.routing_key, message.type) == (
        "payment.callbacks",
        "receiver.refusals",
        REFUSALS_V1,
    )


def test_another_version_is_not_guessed_at() -> None:
    with pytest.raises(UndecodableMessage, match=r"refusals\.v2"):
        decode_refusals(replace(encode_refusals([_COUNT]), type="payment-callbacks.refusals.v2"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("merchant", None),
        ("day", "2026-7-1"),
        ("day", "20260701"),
        ("day", "2026-02-30"),
        ("reason", ""),
        ("process", ""),
        ("callbacks", 0),
        ("callbacks", True),
        ("callbacks", "3"),
        ("callbacks", 2**63),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(UndecodableMessage, match=f"'{field}' must be"):
        decode_refusals(_altered(**{field: value}))


def test_counts_that_are_no_objects_are_refused() -> None:
    with pytest.raises(UndecodableMessage, match="'counts' must be an array of objects"):
        decode_refusals(replace(encode_refusals([]), body=b'{"counts": [1]}'))
