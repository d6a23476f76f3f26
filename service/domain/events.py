"""Events: what downstream systems receive, as CloudEvents 1.0.

`PaymentEvent` declares the members of `data`, and `write_event` writes them. `service/contracts` makes the published
schemas from the declaration.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from service.domain.claims import IdentityField, OrderKey, OrderStatus, Trust
from service.domain.refused_withholds import RefusalRule


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


#: A merchant's or an endpoint's name, as a pattern of JSON Schema.
SLUG = "[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?"


class Described:
    """In `Annotated`: the attribute is a member of the event. Says what the contract says of it beyond its type."""

    def __init__(self, text: str, **keywords: Any) -> None:
        """`text` is for consumers; `keywords` are those of JSON Schema, such as `pattern`."""
        self.keywords = {"description": text, **keywords}


class DisputedValues(NamedTuple):
    """The two values of a field in dispute, as text."""

    stands: Annotated[
        str,
        Described("The value that the event carries, and that is to be kept for now.", examples=["baofoo_001"]),
    ]
    other: Annotated[
        str,
        Described("The value that contradicts it. An amount is in `amount_unit`.", examples=["kuaiqian_002"]),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEvent:
    """One status change of one order. A member of `data` that has a default is left out where it is empty."""

    type: EventType
    merchant: Annotated[str, Described("The merchant's slug.", examples=["acme"], pattern=f"^{SLUG}$")]
    biz_order_no: Annotated[
        str,
        Described("The merchant's own number of the order.", examples=["DK20190701000001"], minLength=1, maxLength=128),
    ]
    pay_order_no: Annotated[
        str | None,
        Described(
            "The gateway's number for the payment; null where it gave none.", examples=["P2019070112000000012345"]
        ),
    ]
    order_type: Annotated[str, Described("The gateway's word, as sent; may be empty.", examples=["single_withhold"])]
    pay_type: Annotated[
        str,
        Described("The gateway's word for the merchant number in use; may be empty.", examples=["baofoo_001"]),
    ]
    status: Annotated[OrderStatus, Described("The order's status from now on.")]
    previous_status: Annotated[OrderStatus, Described("The order's status up to now.")]
    sequence: Annotated[
        int,
        Described(
            "1, 2, 3 … per order, without gaps; whoever filters by type or routing key sees gaps. The event with the "
            "highest one says what holds.",
            minimum=1,
            examples=[2],
        ),
    ]
    #: Aware.
    paid_at: Annotated[
        datetime | None,
        Described("When the money moved, as far as the gateway said so; RFC 3339, in the merchant's time zone."),
    ]
    amount: Annotated[
        str | None,
        Described(
            "Exact, in `amount_unit`; never a JSON number. As announced; if it was never announced, as the gateway "
            "stated it; after a dispute, as an operator settled it. Null where nobody stated one.",
            examples=["100.00"],
            pattern=r"^[0-9]+(\.[0-9]{1,2})?$",
        ),
    ]
    amount_unit: Annotated[
        str | None,
        Described("What `amount` counts; null where there is none.", examples=["yuan"], enum=["yuan", "fen", None]),
    ]
    channel_response: Annotated[
        str,
        Described(
            "The payment channel's own words, for people; personal numbers are masked. May be empty.",
            examples=["交易成功"],
        ),
    ]
    trust: Annotated[
        Trust,
        Described(
            "How far the status is proven, from least to most; never less than the merchant requires, but where a "
            "`rule` has ended the order.",
            enum=[trust.word for trust in Trust],
        ),
    ]
    #: Aware.
    observed_at: Annotated[datetime, Described("When the statement behind the event was made; RFC 3339 with its zone.")]
    rule: Annotated[
        str,
        Described(
            "Only where the gateway refused the withhold, and a rule of the operator's has taken that for the end: "
            "which rule. The gateway has not said that it failed; a `payment.corrected` may follow.",
            enum=[rule.value for rule in RefusalRule],
        ),
    ] = ""
    disputed: Annotated[
        Mapping[str, DisputedValues],
        Described(
            "Only in `payment.conflicted`: both values of each field in which claims contradict each other or the "
            f"announcement, by the field's name: {', '.join(['status', *IdentityField])}. Further fields may be "
            "compared one day."
        ),
    ] = field(default_factory=dict)
    #: W3C traceparent of the callback that caused it. It stands beside `data`.
    traceparent: str | None = None

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
    if event.rule:
        data["rule"] = event.rule
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
