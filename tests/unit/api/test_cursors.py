"""A cursor leads back to the place that it was made for, and to no other."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from service.api.request_schemas import read_cursor, write_cursor
from service.ledger.orders import OrderPlace, OrderRecord

TIMES = st.datetimes(timezones=st.just(UTC))


@given(time=TIMES, number=st.text(min_size=1, max_size=128))
def test_a_cursor_names_the_place_that_it_was_made_for(time: datetime, number: str) -> None:
    order = OrderRecord(merchant="acme", biz_order_no=number, created_at=time, updated_at=time)
    assert read_cursor(write_cursor(order)) == OrderPlace(updated_at=time, merchant="acme", biz_order_no=number)


@given(text=st.text(max_size=60))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        read_cursor(text)


@pytest.mark.parametrize("content", [b'["2026-01-05T12:00:00", "a", "b"]', b'["x", "a", "b"]', b'["a"]', b"[" * 10_000])
def test_a_text_that_only_resembles_a_cursor_is_refused(content: bytes) -> None:
    with pytest.raises(ValidationError):
        read_cursor(base64.urlsafe_b64encode(content).decode().rstrip("="))
