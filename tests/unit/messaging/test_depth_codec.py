import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.depths import DepthReport
from service.messaging.codec import DEPTH_V1, decode_depth, encode_depth
from service.messaging.errors import UndecodableMessage

_NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
_REPORT = DepthReport(
    reporter="spool-1", name="spool receiver-0:/data/spool.sqlite3", messages=3, oldest_at=_NOON, reported_at=_NOON
)
_times = st.datetimes(timezones=st.just(UTC))
_reports = st.builds(
    DepthReport,
    reporter=st.text(min_size=1, max_size=5),
    name=st.text(min_size=1, max_size=5),
    messages=st.integers(min_value=0, max_value=2**63 - 1),
    oldest_at=st.none() | _times,
    reported_at=_times,
)


def _altered(**fields: object) -> Any:
    message = encode_depth(_REPORT)
    return replace(message, body=json.dumps({**json.loads(message.body), **fields}).encode())


@given(_reports)
def test_a_report_comes_out_of_a_message_as_it_went_in(report: DepthReport) -> None:
    assert decode_depth(encode_depth(report)) == report


def test_the_message_says_its_version_and_no_merchants_routing_key() -> None:
    message = encode_depth(_REPORT)
    assert (message.exchange, message.routing_key, message.type) == ("payment.callbacks", "receiver.depth", DEPTH_V1)


def test_another_version_is_not_guessed_at() -> None:
    with pytest.raises(UndecodableMessage, match=r"depth\.v2"):
        decode_depth(replace(encode_depth(_REPORT), type="payment-callbacks.depth.v2"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reporter", ""),
        ("name", None),
        ("messages", -1),
        ("messages", True),
        ("messages", "3"),
        ("messages", 2**63),
        ("oldest_at", "2026-01-05T12:00:00"),
        ("reported_at", None),
        ("reported_at", "noon"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(UndecodableMessage, match=f"'{field}' must be"):
        decode_depth(_altered(**{field: value}))
