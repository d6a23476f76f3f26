"""Events: what downstream systems receive, as CloudEvents 1.0."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote

from service.domain.claims import OrderKey, OrderStatus, Trust


class EventType(StrEnum):
    """CloudEvents `type`; what endpoints filter by."""

    PROCESSING = "payment.processing"
    SUCCEEDED = "payment.succeeded"
    FAILED = "payment.failed"
    #: Replaces an earlier event's status of the order, which `previous_status` names.
    CORRECTED = "payment.corrected"
    #: The order's claims contradict each other; only endpoints that ask for this type receive it.
    CONFLICTED = "payment.conflicted"


#: What an endpoint receives that names no types.
DEFAULT_EVENT_TYPES = frozenset(EventType) - {EventType.CONFLICTED}

#: CloudEvents `type` of what `payment-callbacks endpoints test` sends. It is no `EventType`: it reports no payment, and
#: an endpoint cannot ask for it.
TEST_TYPE = "payment.test"

#: What a test says about itself, for people who find it in a log.
TEST_NOTE = "A test. It tells of no payment."

#: The content type of an event on either wire.
CONTENT_TYPE = "application/cloudevents+json"


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


class DisputedValues(NamedTuple):
    """The two values of a field in dispute, as text."""

    #: The one that the event carries.
    stands: str
    #: The one that contradicts it.
    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEvent:
    """One status change of one order."""

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
    #: An exact string in `amount_unit` ("yuan" or "fen"): as announced or, where it never was, as claimed; both None
    #: where nobody stated one.
    amount: str | None
    amount_unit: str | None
    #: The channel's response, masked.
    channel_response: str
    trust: Trust
    #: When the claim behind the event was stated, aware.
    observed_at: datetime
    traceparent: str | None = None
    #: Of a conflict: the fields in dispute, an `IdentityField` or "status" each. Empty for every other type.
    disputed: Mapping[str, DisputedValues] = field(default_factory=dict)

    @property
    def order(self) -> OrderKey:
        """The order that changed."""
        return OrderKey(self.merchant, self.biz_order_no)

    @property
    def id(self) -> str:
        """`<merchant>/<biz_order_no, percent-encoded>/<sequence>`: the same at every try.

        It is ASCII without blanks or dots: webhooks sign `id.timestamp.body`, and an order number may be any text.
        """
        order = quote(self.biz_order_no, safe="").replace(".", "%2E")
        return f"{self.merchant}/{order}/{self.sequence}"

    @property
    def source(self) -> str:
        """CloudEvents `source`."""
        return f"/merchants/{self.merchant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTest:
    """A test event, with which an operator checks that an endpoint accepts events. It reports no payment."""

    endpoint: str
    #: Unique per test; letters and digits.
    number: str
    #: Aware.
    sent_at: datetime

    @property
    def id(self) -> str:
        """`test:<endpoint>:<number>`. No payment event has such an id, since no merchant's slug has a colon."""
        return f"test:{self.endpoint}:{self.number}"

    @property
    def source(self) -> str:
        """CloudEvents `source`."""
        return f"/endpoints/{self.endpoint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SerializedEvent:
    """An event as it is sent: its bytes, and what a sink routes by."""

    event_id: str
    #: CloudEvents `type`.
    type: str
    merchant: str
    #: The gateway's word, as sent; any text.
    order_type: str
    #: An `OrderStatus`; "test" for a test.
    status: str
    #: CloudEvents 1.0, structured JSON, UTF-8; the same bytes at every try and for every endpoint.
    body: bytes
    #: W3C traceparent of the callback that caused it; None where there is none.
    traceparent: str | None = None
    #: A queue drops the event after this time; None: never. Webhooks have no such limit.
    expires_after_seconds: float | None = None


def write_event(event: PaymentEvent) -> bytes:
    """The event in CloudEvents' structured JSON, UTF-8; the same bytes however often it is written."""
    observed_at = _time_text(event.observed_at)
    data: dict[str, object] = {
        "merchant": event.merchant,
        "biz_order_no": event.biz_order_no,
        "pay_order_no": event.pay_order_no,
        "order_type": event.order_type,
        "pay_type": event.pay_type,
        "status": event.status,
        "previous_status": event.previous_status,
        "sequence": event.sequence,
        "paid_at": None if event.paid_at is None else _time_text(event.paid_at),
        "amount": event.amount,
        "amount_unit": event.amount_unit,
        "channel_response": event.channel_response,
        "trust": event.trust.word,
        "observed_at": observed_at,
    }
    if event.type is EventType.CONFLICTED:
        data["disputed"] = {field: values._asdict() for field, values in event.disputed.items()}
    envelope: dict[str, object] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.biz_order_no,
        "time": observed_at,
        "datacontenttype": "application/json",
        "data": data,
    }
    if event.traceparent:  # CloudEvents, section 3.1: an attribute without a value is left out
        envelope["traceparent"] = event.traceparent
    return _write(envelope)


def write_test(test: EndpointTest) -> bytes:
    """The test in CloudEvents' structured JSON, UTF-8."""
    return _write(
        {
            "specversion": "1.0",
            "id": test.id,
            "source": test.source,
            "type": TEST_TYPE,
            "time": _time_text(test.sent_at),
            "datacontenttype": "application/json",
            "data": {"endpoint": test.endpoint, "note": TEST_NOTE},
        }
    )


def _time_text(time: datetime) -> str:
    """An aware time in RFC 3339."""
    text = time.isoformat()
    # Before about 1900, zones have offsets with seconds (local mean time), which RFC 3339 cannot express.
    return text if text[-6] in "+-" else time.astimezone(UTC).isoformat()


def _write(envelope: Mapping[str, object]) -> bytes:
    return _JSON.encode(envelope).encode()
