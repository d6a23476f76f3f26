"""Notices: events and whom they go to, recorded together with the change that they tell of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from service.event_schemas import write_event
from service.events import PaymentEvent
from service.ledger.inserts import insert_new
from service.ledger.tables import deliveries, events


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An event, and the names of the endpoints that receive it."""

    event: PaymentEvent
    endpoints: tuple[str, ...]


def enqueue(connection: Connection, notices: Sequence[Notice], *, now: datetime) -> None:
    """Record each event, and one delivery of it per endpoint, due at once."""
    due = [_delivery_row(notice.event, name, now) for notice in notices for name in notice.endpoints]
    insert_new(connection, events, [_event_row(notice.event, now) for notice in notices])
    insert_new(connection, deliveries, due)


def _event_row(event: PaymentEvent, now: datetime) -> dict[str, Any]:
    return {
        "merchant": event.merchant,
        "biz_order_no": event.biz_order_no,
        "sequence": event.sequence,
        "id": event.id,
        "type": event.type.value,
        "status": event.status.value,
        "order_type": event.order_type,
        "body": write_event(event),
        "traceparent": event.traceparent,
        "observed_at": event.observed_at,
        "created_at": now,
    }


def _delivery_row(event: PaymentEvent, endpoint: str, now: datetime) -> dict[str, Any]:
    return {
        "merchant": event.merchant,
        "biz_order_no": event.biz_order_no,
        "endpoint": endpoint,
        "sequence": event.sequence,
        "state": "open",
        "due_at": now,
        "attempts": 0,
        "fence": 0,
        "last_error": "",
        "created_at": now,
        "settled_at": None,
    }
