"""Which texts and times are escaped, and which cannot be stored."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.errors import ClaimUnstorable
from service.ledger.sanitizing import escaped, sanitized
from tests.support.claims import a_claim


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_any_text_becomes_one_that_every_database_stores(text: str) -> None:
    stored = escaped(text)
    assert "\x00" not in stored
    assert stored.encode().decode() == stored


def test_an_ordinary_claim_stays_as_it_is() -> None:
    claim = a_claim(channel_response="余额不足")
    assert sanitized(claim) == claim


@pytest.mark.parametrize("field", ["pay_order_no", "order_type", "pay_type", "quarantine", "traceparent", "reason"])
def test_a_nul_is_escaped_in_every_text(field: str) -> None:
    said: dict[str, Any] = {field: "a\x00"}
    assert getattr(sanitized(a_claim(**said)), field) == "a\\u0000"


@pytest.mark.parametrize(
    "time",
    [
        datetime(2026, 1, 5),  # noqa: DTZ001 - naive is the point
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-8))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=8))),
    ],
)
def test_a_time_without_a_place_in_utc_cannot_be_stored(time: datetime) -> None:
    with pytest.raises(ClaimUnstorable):
        sanitized(a_claim(paid_at=time))


def test_a_far_time_in_utc_can_be_stored() -> None:
    assert sanitized(a_claim(paid_at=datetime.max.replace(tzinfo=UTC))).paid_at is not None
