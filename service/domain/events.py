"""Events: what downstream is told. `service.domain.event_schemas` writes them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote

from service.domain.claims import OrderKey, OrderStatus, Trust


class EventType(StrEnum):
    """CloudEvents `type`; what endpoints filter by."""

    PROCESSING = "payment.processing"
    SUCCEEDED = "payment.succeeded"
    FAILED = "payment.failed"
    #: Replaces what an earlier event said of the order; `previous_status` names it.
    CORRECTED = "payment.corrected"
    #: The order's claims contradict each other; sent to endpoints that name it, and to no other.
    CONFLICTED = "payment.conflicted"


#: What an endpoint receives that names no types of its own.
DEFAULT_EVENT_TYPES = frozenset(EventType) - {EventType.CONFLICTED}

#: CloudEvents `type` of what `payment-callbacks endpoints test` sends. Not an `EventType`: it tells of no payment, no
#: endpoint asks for it, and none is told it but by an operator's hand.
TEST_TYPE = "payment.test"

#: The content type of an event on either wire.
CONTENT_TYPE = "application/cloudevents+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEvent:
    """One status change of one order, as downstream gets it."""

    type: EventType
    merchant: str
    biz_order_no: str
    #: 1, 2, 3 ... per order, without gaps.
    sequence: int
    status: OrderStatus
    previous_status: OrderStatus
    pay_order_no: str | None
    order_type: str
    pay_type: str
    paid_at: datetime | None
    #: The announced amount, an exact string in `amount_unit` ("yuan" or "fen"); both None where never announced.
    amount: str | None
    amount_unit: str | None
    #: The channel's words, masked.
    channel_response: str
    trust: Trust
    #: When the claim behind the event was stated, aware.
    observed_at: datetime
    traceparent: str | None = None

    @property
    def order(self) -> OrderKey:
        """The order that changed."""
        return OrderKey(self.merchant, self.biz_order_no)

    @property
    def id(self) -> str:
        """`<merchant>/<biz_order_no, percent-encoded>/<sequence>`: the same however often it is sent.

        ASCII without blanks or dots: webhooks sign `id.timestamp.body`, and an order number is somebody else's text.
        """
        order = quote(self.biz_order_no, safe="").replace(".", "%2E")
        return f"{self.merchant}/{order}/{self.sequence}"

    @property
    def source(self) -> str:
        """CloudEvents `source`."""
        return f"/merchants/{self.merchant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTest:
    """What an operator has sent to see whether an endpoint takes events. It tells of no payment."""

    endpoint: str
    #: Tells this test from every other; letters and digits.
    number: str
    #: Aware.
    sent_at: datetime

    @property
    def id(self) -> str:
        """`test:<endpoint>:<number>`. No event has such an id: a colon is in no merchant's slug."""
        return f"test:{self.endpoint}:{self.number}"

    @property
    def source(self) -> str:
        """CloudEvents `source`."""
        return f"/endpoints/{self.endpoint}"
