"""Histories: all that happened around one order, for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from service.domain.claims import OrderKey, OrderStatus
from service.domain.events import EventType
from service.ledger import orders
from service.ledger.claim_rows import ClaimRecord, any_claim, load_claims
from service.ledger.inquiries import InquiryRecord, load_inquiry
from service.ledger.orders import OrderRecord
from service.ledger.questions import AskedQuestion, load_asked
from service.ledger.tables import deliveries, events
from service.ledger.withholds import WithholdRecord, load_withhold


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """How far one event has come on its way to one endpoint."""

    endpoint: str
    #: "open", "delivered" or "parked".
    state: str
    attempts: int
    #: When it is tried next, while open.
    due_at: datetime
    settled_at: datetime | None
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An event and its deliveries."""

    id: str
    sequence: int
    type: EventType
    status: OrderStatus
    created_at: datetime
    #: The CloudEvent as it is sent.
    body: bytes
    deliveries: tuple[DeliveryRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderHistory:
    """What is known around an order; `order` is None where no claim about it was ever believed."""

    order: OrderRecord | None
    #: In the order in which they were decided: all that counted, and the newest of the others.
    claims: Sequence[ClaimRecord]
    events: Sequence[EventRecord]
    inquiry: InquiryRecord | None
    #: What the gateway was asked, oldest first.
    questions: Sequence[AskedQuestion]
    #: None where it was not sent to the gateway from here.
    withhold: WithholdRecord | None = None
    #: How many older claims that never counted there are besides.
    claims_left_out: int = 0

    @property
    def known(self) -> bool:
        """Whether anybody ever spoke of the order, believed or not."""
        return self.order is not None or bool(self.claims)


def load_history(connection: Connection, key: OrderKey) -> OrderHistory:
    """The order's history; empty where nobody ever spoke of it."""
    claims, left_out = load_claims(connection, key)
    return OrderHistory(
        order=orders.load(connection, key),
        claims=claims,
        events=_events(connection, key),
        inquiry=load_inquiry(connection, key),
        questions=load_asked(connection, key),
        withhold=load_withhold(connection, key),
        claims_left_out=left_out,
    )


def is_known(connection: Connection, key: OrderKey) -> bool:
    """Whether anybody ever spoke of the order, believed or not; as quick under a flood of claims as without."""
    return orders.load(connection, key) is not None or any_claim(connection, key)


def _events(connection: Connection, key: OrderKey) -> Sequence[EventRecord]:
    of_order = select(events).where(events.c.merchant == key.merchant, events.c.biz_order_no == key.biz_order_no)
    sent = _deliveries(connection, key)
    return [
        EventRecord(
            id=row.id,
            sequence=row.sequence,
            type=EventType(row.type),
            status=OrderStatus(row.status),
            created_at=row.created_at,
            body=row.body,
            deliveries=tuple(sent.get(row.sequence, ())),
        )
        for row in connection.execute(of_order.order_by(events.c.sequence))
    ]


def _deliveries(connection: Connection, key: OrderKey) -> dict[int, list[DeliveryRecord]]:
    query = (
        select(deliveries)
        .where(deliveries.c.merchant == key.merchant, deliveries.c.biz_order_no == key.biz_order_no)
        .order_by(deliveries.c.endpoint)
    )
    by_sequence: dict[int, list[DeliveryRecord]] = {}
    for row in connection.execute(query):
        by_sequence.setdefault(row.sequence, []).append(
            DeliveryRecord(
                endpoint=row.endpoint,
                state=row.state,
                attempts=row.attempts,
                due_at=row.due_at,
                settled_at=row.settled_at,
                last_error=row.last_error,
            )
        )
    return by_sequence
