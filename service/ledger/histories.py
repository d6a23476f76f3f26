"""Order histories: all that is recorded about one order, for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, select

from service.domain.claims import OrderKey, OrderStatus
from service.domain.events import EventType
from service.ledger import orders
from service.ledger.audit import AuditRecord, load_changes
from service.ledger.claims import ClaimRecord, any_claim, load_claims
from service.ledger.delivery_log import LoggedStep, read_log
from service.ledger.inquiries import InquiryRecord, load_inquiry
from service.ledger.inquiry_questions import AskedQuestion, load_asked
from service.ledger.orders import OrderRecord
from service.ledger.proposals import ProposalRecord, load_proposals
from service.ledger.tables import about_order, deliveries, events, to_record
from service.ledger.withholds import WithholdRecord, load_withhold


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """The delivery of one event to one endpoint."""

    endpoint: str
    #: "open", "delivered" or "parked".
    state: str
    attempts: int
    #: When it is tried next, while it is open.
    due_at: datetime
    settled_at: datetime | None
    last_error: str
    #: Its failed tries and its replays, oldest first: the first one and the newest.
    log: Sequence[LoggedStep]


_Delivery = TypeVar("_Delivery", bound=DeliveryRecord)


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
    """What is known of an order; `order` is None where no claim about it was ever believed."""

    order: OrderRecord | None
    #: All that counted and the newest of the others, in the order in which they were decided.
    claims: Sequence[ClaimRecord]
    events: Sequence[EventRecord]
    inquiry: InquiryRecord | None
    #: What the gateway was asked about it, oldest first.
    questions: Sequence[AskedQuestion]
    #: The resolutions that needed a second person, oldest first.
    proposals: Sequence[ProposalRecord] = ()
    #: Who had the gateway asked, or acknowledged that somebody is on it, oldest first. Decisions are above.
    changes: Sequence[AuditRecord] = ()
    #: None where we did not send the order to the gateway.
    withhold: WithholdRecord | None = None
    #: The number of older claims that never counted and are not in `claims`.
    claims_left_out: int = 0

    @property
    def known(self) -> bool:
        """Whether it was announced or any claim about it was recorded, believed or not."""
        return self.order is not None or bool(self.claims)


def load_history(connection: Connection, key: OrderKey) -> OrderHistory:
    """The order's history; empty where nothing is known of it."""
    claims, left_out = load_claims(connection, key)
    return OrderHistory(
        order=orders.load(connection, key),
        claims=claims,
        events=_events(connection, key),
        inquiry=load_inquiry(connection, key),
        questions=load_asked(connection, key),
        proposals=load_proposals(connection, key),
        changes=load_changes(connection, key),
        withhold=load_withhold(connection, key),
        claims_left_out=left_out,
    )


def to_delivery(record: type[_Delivery], row: Row[Any]) -> _Delivery:
    """The record of a row that has all columns of deliveries."""
    return to_record(record, row, log=read_log(row.log))


def is_known(connection: Connection, key: OrderKey) -> bool:
    """Whether it was announced or any claim about it was recorded; as fast with many claims as with few."""
    return orders.load(connection, key) is not None or any_claim(connection, key)


def _events(connection: Connection, key: OrderKey) -> Sequence[EventRecord]:
    of_order = select(events).where(about_order(events, key))
    sent = _deliveries(connection, key)
    return [
        to_record(EventRecord, row, deliveries=tuple(sent.get(row.sequence, ())))
        for row in connection.execute(of_order.order_by(events.c.sequence))
    ]


def _deliveries(connection: Connection, key: OrderKey) -> dict[int, list[DeliveryRecord]]:
    query = select(deliveries).where(about_order(deliveries, key)).order_by(deliveries.c.endpoint)
    by_sequence: dict[int, list[DeliveryRecord]] = {}
    for row in connection.execute(query):
        by_sequence.setdefault(row.sequence, []).append(to_delivery(DeliveryRecord, row))
    return by_sequence
