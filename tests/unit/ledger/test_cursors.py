"""A cursor leads back to the place that it was made for, and to no other."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from service.ledger.attention import AttentionPlace
from service.ledger.cursors import next_cursor, read_cursor, write_cursor
from service.ledger.endpoints import DeliveryPlace
from service.ledger.feed import FeedPlace
from service.ledger.orders import OrderPlace, OrderRecord

TIMES = st.datetimes(timezones=st.just(UTC))
# The ledger stores no NUL and no lone surrogate.
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=128)
PLACES = st.one_of(
    st.builds(OrderPlace, TIMES, NAMES, NAMES),
    st.builds(AttentionPlace, TIMES, NAMES),
    st.builds(DeliveryPlace, TIMES, NAMES, NAMES, st.integers(0, 2**31 - 1), NAMES),
    st.builds(FeedPlace, st.integers(0, 2**63 - 1), NAMES, NAMES, st.integers(0, 2**31 - 1)),
)
KINDS = (OrderPlace, AttentionPlace, DeliveryPlace, FeedPlace)


@given(place=PLACES)
def test_a_cursor_names_the_place_that_it_was_made_for(place: tuple[Any, ...]) -> None:
    assert read_cursor(type(place), write_cursor(place)) == place


def test_a_full_page_leads_to_the_one_after_its_last_item() -> None:
    time = datetime(2026, 1, 5, 12, tzinfo=UTC)
    page = [OrderRecord(merchant="acme", biz_order_no=no, created_at=time, updated_at=time) for no in ("DK1", "DK2")]
    cursor = next_cursor(page, limit=2)
    assert cursor is not None
    assert read_cursor(OrderPlace, cursor) == OrderPlace(updated_at=time, merchant="acme", biz_order_no="DK2")
    assert next_cursor(page, limit=3) is None


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(max_size=60))
def test_any_other_text_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(ValidationError):
        read_cursor(kind, text)


@pytest.mark.parametrize("content", [b'["2026-01-05T12:00:00", "a", "b"]', b'["x", "a", "b"]', b'["a"]', b"[" * 10_000])
def test_a_text_that_only_resembles_a_cursor_is_refused(content: bytes) -> None:
    with pytest.raises(ValidationError):
        read_cursor(OrderPlace, base64.urlsafe_b64encode(content).decode().rstrip("="))


@pytest.mark.parametrize(
    "place",
    [
        FeedPlace(txid=2**63, merchant="a", biz_order_no="b", sequence=1),
        FeedPlace(txid=1, merchant="a", biz_order_no="b", sequence=2**31),
        FeedPlace(txid=-1, merchant="a", biz_order_no="b", sequence=1),
        FeedPlace(txid=1, merchant="a\0", biz_order_no="b", sequence=1),
    ],
)
def test_a_place_that_no_ledger_has_is_refused(place: FeedPlace) -> None:
    with pytest.raises(ValidationError):
        read_cursor(FeedPlace, write_cursor(place))
