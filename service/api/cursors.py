"""Cursors: where a page of a list ends, as a text that callers hand back and need not understand."""

import base64
import json
from datetime import UTC, datetime

from marshmallow import ValidationError

from service.ledger.orders import OrderPlace, OrderRecord


def write_cursor(order: OrderRecord) -> str:
    """The cursor behind `order`."""
    place = [order.updated_at.isoformat(), order.merchant, order.biz_order_no]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def read_cursor(text: str) -> OrderPlace:
    """The place that a cursor names. Raises ValidationError for what is none of ours."""
    try:
        place = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        updated_at, merchant, biz_order_no = map(str, place)
        time = datetime.fromisoformat(updated_at)
        time.astimezone(UTC)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ValidationError("is no cursor; allowed is the `next` of an earlier answer", "after") from error
    if time.tzinfo is None or time.isoformat() != updated_at:
        raise ValidationError("is no cursor; allowed is the `next` of an earlier answer", "after")
    return OrderPlace(updated_at=time, merchant=merchant, biz_order_no=biz_order_no)
