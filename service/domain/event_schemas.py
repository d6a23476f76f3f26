"""The schemas of events, from which the contracts for consumers are made.

They describe events and do not write them: marshmallow takes 50 µs per event, and `json` takes 6. Tests validate every
kind of event against these schemas.
"""

from typing import Any

from marshmallow import INCLUDE, Schema, fields

from service.domain.claims import IdentityField, OrderStatus, Trust
from service.domain.events import TEST_NOTE, TEST_TYPE, EventType
from service.domain.order_state import STATUS

_SLUG = "[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?"


def _time(description: str, **options: Any) -> fields.AwareDateTime:
    return fields.AwareDateTime(format="iso", required=True, metadata={"description": description}, **options)


def _text(description: str, *, example: str, **more: Any) -> fields.String:
    nullable = more.pop("allow_none", False)
    metadata = {"description": description, "examples": [example], **more}
    return fields.String(required=True, allow_none=nullable, metadata=metadata)


def _always(value: str, description: str) -> fields.Constant[str]:
    return fields.Constant(
        value, required=True, metadata={"type": "string", "enum": [value], "description": description}
    )


def _status(description: str) -> fields.Enum[OrderStatus]:
    return fields.Enum(
        OrderStatus, by_value=True, required=True, metadata={"type": "string", "description": description}
    )


class DisputedValuesSchema(Schema):
    """The two values of a field in dispute."""

    class Meta:
        """Open, as the event is."""

        unknown = INCLUDE

    stands = _text("The value that the event carries, and that is to be kept for now.", example="baofoo_001")
    other = _text("The value that contradicts it. An amount is in `amount_unit`.", example="kuaiqian_002")


class PaymentDataSchema(Schema):
    """The order as it is after the change."""

    class Meta:
        """Open, as the envelope is: a further field is no breach of the contract."""

        unknown = INCLUDE

    merchant = _text("The merchant's slug.", example="acme", pattern=f"^{_SLUG}$")
    biz_order_no = _text(
        "The merchant's own number of the order.", example="DK20190701000001", minLength=1, maxLength=128
    )
    pay_order_no = _text(
        "The gateway's number for the payment; null where it gave none.",
        example="P2019070112000000012345",
        allow_none=True,
    )
    order_type = _text("The gateway's word, as sent; may be empty.", example="single_withhold")
    pay_type = _text("The gateway's word for the merchant number in use; may be empty.", example="baofoo_001")
    status = _status("The order's status from now on.")
    previous_status = _status("The order's status up to now.")
    sequence = fields.Integer(
        required=True,
        metadata={
            "description": "1, 2, 3 … per order, without gaps; whoever filters by type or routing key sees gaps. The "
            "event with the highest one says what holds.",
            "minimum": 1,
            "examples": [2],
        },
    )
    paid_at = _time(
        "When the money moved, as far as the gateway said so; RFC 3339, in the merchant's time zone.", allow_none=True
    )
    amount = _text(
        "Exact, in `amount_unit`; never a JSON number. As announced; if it was never announced, as the gateway stated "
        "it; after a dispute, as an operator settled it. Null where nobody stated one.",
        example="100.00",
        allow_none=True,
        pattern=r"^[0-9]+(\.[0-9]{1,2})?$",
    )
    amount_unit = _text(
        "What `amount` counts; null where there is none.", example="yuan", allow_none=True, enum=["yuan", "fen", None]
    )
    channel_response = _text(
        "The payment channel's own words, for people; personal numbers are masked. May be empty.", example="交易成功"
    )
    trust = fields.String(
        required=True,
        metadata={
            "description": "How far the status is proven, from least to most; never less than the merchant requires.",
            "enum": [trust.word for trust in Trust],
        },
    )
    observed_at = _time("When the statement behind the event was made; RFC 3339 with its zone.")
    disputed = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(DisputedValuesSchema),
        metadata={
            "description": "Only in `payment.conflicted`: both values of each field in which claims contradict each "
            f"other or the announcement, by the field's name: {', '.join([STATUS, *IdentityField])}. Further fields "
            "may be compared one day."
        },
    )


class PaymentEventSchema(Schema):
    """One status change of one order, as a CloudEvent 1.0 in structured JSON."""

    class Meta:
        """Open: a further field is no breach of the contract."""

        unknown = INCLUDE

    specversion = _always("1.0", "The version of CloudEvents.")
    id = _text(
        "`<merchant>/<biz_order_no, percent-encoded>/<sequence>`: the same however often the event is sent. "
        "Dedupe by it.",
        example="acme/DK20190701000001/2",
        pattern=f"^{_SLUG}/(?:[A-Za-z0-9_~-]|%[0-9A-F]{{2}})+/[1-9][0-9]*$",
    )
    source = _text("`/merchants/<merchant>`.", example="/merchants/acme", pattern=f"^/merchants/{_SLUG}$")
    type = fields.Enum(
        EventType, by_value=True, required=True, metadata={"type": "string", "description": "What has happened."}
    )
    subject = fields.String(
        required=True, metadata={"description": "`data.biz_order_no`, once more.", "minLength": 1, "maxLength": 128}
    )
    time = _time("`data.observed_at`, once more.")
    datacontenttype = _always("application/json", "What `data` is.")
    data = fields.Nested(PaymentDataSchema, required=True)
    traceparent = fields.String(
        metadata={
            "description": "W3C Trace Context (CloudEvents' distributed tracing extension), where one is known.",
            "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        }
    )


class EndpointTestDataSchema(Schema):
    """Whom the test is for. No merchant, no order and no status are in here."""

    class Meta:
        """Open, as events are."""

        unknown = INCLUDE

    endpoint = _text("The endpoint's name in the operator's settings.", example="shop")
    note = _always(TEST_NOTE, "For people who find it in a log.")


class EndpointTestSchema(Schema):
    """A test that an operator has sent, as a CloudEvent 1.0 in structured JSON: answer it as taken, and do nothing."""

    class Meta:
        """Open, as events are."""

        unknown = INCLUDE

    specversion = _always("1.0", "The version of CloudEvents.")
    id = _text(
        "`test:<endpoint>:<number>`; no payment event has such an id.",
        example="test:shop:5d0c3a1e9b7f4c52",
        pattern=f"^test:{_SLUG}:[0-9a-z]+$",
    )
    source = _text("`/endpoints/<endpoint>`.", example="/endpoints/shop", pattern=f"^/endpoints/{_SLUG}$")
    type = _always(TEST_TYPE, "What tells it from every payment event.")
    time = _time("When it was sent; RFC 3339 with its zone.")
    datacontenttype = _always("application/json", "What `data` is.")
    data = fields.Nested(EndpointTestDataSchema, required=True)
