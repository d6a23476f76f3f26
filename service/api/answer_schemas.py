"""What callers are answered; also what the command line prints as JSON."""

from marshmallow import Schema, fields

from service.api import fields as api
from service.domain.claims import ClaimSource, OrderStatus
from service.domain.events import EventType
from service.domain.order_state import Verdict
from service.ledger.claims import MOST_UNCOUNTED
from service.ledger.inquiries import InquiryState
from service.ledger.questions import QuestionOutcome
from service.ledger.withholds import WithholdOutcome


class OrderSchema(Schema):
    """What is believed of an order."""

    merchant = api.merchant(required=True)
    biz_order_no = api.order_number(required=True)
    status = fields.Enum(OrderStatus, by_value=True, required=True, attribute="state.status")
    trust = api.TrustName(required=True, allow_none=True, attribute="state.trust")
    conflicted = fields.Boolean(
        required=True,
        attribute="state.conflicted",
        metadata={"description": "Whether trusted claims contradict each other, and nothing has settled it yet."},
    )
    pay_order_no = fields.String(required=True, allow_none=True, attribute="state.pay_order_no")
    sequence = fields.Integer(required=True, metadata={"description": "The number of its last event, 0 for none."})
    order_type = fields.String(required=True)
    pay_type = fields.String(required=True)
    paid_at = api.time("When the money moved.", required=True, allow_none=True)
    amount = api.amount(required=True, allow_none=True)
    amount_unit = fields.String(required=True, allow_none=True, metadata={"enum": ["yuan", "fen", None]})
    announced_at = api.time("None where it is known by its callbacks alone.", required=True, allow_none=True)
    answer_due_at = api.time("When it is asked for, if no end is known by then.", required=True, allow_none=True)
    created_at = api.time("When it became known.", required=True)
    updated_at = api.time("When it changed last.", required=True)


class AnnouncedSchema(Schema):
    """An order that is known now."""

    order = fields.Nested(OrderSchema, required=True)
    notify_url = fields.String(
        required=True,
        metadata={
            "format": "uri",
            "description": "To be given to the gateway as `notify_url`. Secret: whoever has it can claim anything "
            "about this order.",
        },
    )


class AnnouncedOrdersSchema(Schema):
    """One entry for each order of the request, in its order."""

    orders = fields.List(fields.Nested(AnnouncedSchema), required=True)


class WithholdRecordSchema(Schema):
    """The one sending of an order to the gateway."""

    outcome = fields.Enum(
        WithholdOutcome,
        by_value=True,
        required=True,
        metadata={
            "description": "`accepted` says nothing of its being paid. `unknown`, and `sending` where nobody is about "
            "it any more: the gateway is asked; never send it again under another number."
        },
    )
    sent_by = fields.String(required=True, metadata={"description": "The name of the API token, or of the command."})
    sent_at = api.time("When it was sent.", required=True)
    settled_at = api.time("When the outcome became known here.", required=True, allow_none=True)
    detail = api.MaskedText(required=True)
    request_id = fields.String(required=True, metadata={"description": "To be named to the gateway's people."})


class SentSchema(Schema):
    """What is known of an order that was sent, now or before."""

    outcome = fields.String(
        required=True,
        attribute="withhold.outcome",
        metadata={"enum": [outcome.value for outcome in WithholdOutcome if outcome is not WithholdOutcome.NOT_DONE]},
    )
    order = fields.Nested(OrderSchema, required=True, attribute="announced.order")
    withhold = fields.Nested(WithholdRecordSchema, required=True)


class BindingSchema(Schema):
    """A binding that waits for its owner's code."""

    unique_code = fields.String(required=True)


class BoundCardSchema(Schema):
    """A bound card."""

    protocol_no = fields.String(required=True)


class ClaimSchema(Schema):
    """What somebody said of an order, and what became of it."""

    source = fields.Enum(ClaimSource, by_value=True, required=True)
    trust = api.TrustName(required=True)
    verdict = fields.Enum(Verdict, by_value=True, required=True)
    status = fields.Enum(OrderStatus, by_value=True, required=True, allow_none=True)
    pay_order_no = fields.String(required=True, allow_none=True)
    order_type = api.ClaimedWord(required=True)
    pay_type = api.ClaimedWord(required=True)
    paid_at = api.time("When the money moved, by its word.", required=True, allow_none=True)
    channel_response = api.MaskedText(required=True)
    unknown_fields = fields.Dict(keys=fields.String(), values=api.MaskedText(), required=True)
    missing_fields = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "What the gateway's document requires and was left out; believed all the same."},
    )
    stated_at = api.time("When it was received, asked for or said.", required=True)
    recorded_at = api.time("When it was recorded.", required=True)
    quarantine = api.MaskedText(
        required=True, allow_none=True, metadata={"description": "Why a person has to look at it."}
    )
    stated_by = fields.String(required=True, metadata={"description": "An operator's name and way in, else empty."})
    reason = fields.String(required=True, metadata={"description": "An operator's reason, else empty."})


class InquirySchema(Schema):
    """The question that is or was due to the gateway."""

    state = fields.Enum(InquiryState, by_value=True, required=True)
    reasons = api.ReasonNames(required=True)
    due_at = api.time("When it is asked next, while it is open.", required=True)
    horizon_at = api.time("When it is given up and left to a person.", required=True)
    attempts = fields.Integer(required=True, metadata={"description": "Questions asked since it was opened last."})
    last_asked_at = api.time("When it was asked last.", required=True, allow_none=True)
    opened_at = api.time("When it was opened last.", required=True)


class QuestionSchema(Schema):
    """A question that the gateway was asked."""

    asked_at = api.time("When it was asked.", required=True)
    reasons = api.ReasonNames(required=True)
    outcome = fields.Enum(
        QuestionOutcome,
        by_value=True,
        required=True,
        allow_none=True,
        metadata={"description": "None while it is being asked, and for good where whoever asked has died."},
    )
    request_id = fields.String(required=True, metadata={"description": "To be named to the gateway's people."})
    seconds = fields.Float(required=True, allow_none=True, metadata={"description": "Until the answer."})
    detail = api.MaskedText(required=True, metadata={"description": "Why there was no answer, else empty."})


class DeliverySchema(Schema):
    """How far an event has come on its way to one endpoint."""

    endpoint = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": ["open", "delivered", "parked"]})
    attempts = fields.Integer(required=True)
    due_at = api.time("When it is tried next, while it is open.", required=True)
    settled_at = api.time("When it was delivered or parked.", required=True, allow_none=True)
    last_error = api.MaskedText(required=True)


class EventSchema(Schema):
    """What downstream was told or is yet to be told."""

    id = fields.String(required=True)
    sequence = fields.Integer(required=True)
    type = fields.Enum(EventType, by_value=True, required=True)
    status = fields.Enum(OrderStatus, by_value=True, required=True)
    created_at = api.time("When it was made.", required=True)
    deliveries = fields.List(fields.Nested(DeliverySchema), required=True)


class HistorySchema(Schema):
    """What happened around an order."""

    order = fields.Nested(
        OrderSchema,
        required=True,
        allow_none=True,
        metadata={"description": "None where nobody who is believed has spoken of it."},
    )
    withhold = fields.Nested(
        WithholdRecordSchema,
        required=True,
        allow_none=True,
        metadata={"description": "None where it was not sent from here."},
    )
    claims = fields.List(
        fields.Nested(ClaimSchema),
        required=True,
        metadata={
            "description": "In the order in which they were decided: all that counted, and of those that never did the "
            f"newest {MOST_UNCOUNTED}."
        },
    )
    claims_left_out = fields.Integer(
        required=True, metadata={"description": "How many older claims that never counted there are besides."}
    )
    inquiry = fields.Nested(InquirySchema, required=True, allow_none=True)
    questions = fields.List(
        fields.Nested(QuestionSchema), required=True, metadata={"description": "What the gateway was asked, in order."}
    )
    events = fields.List(fields.Nested(EventSchema), required=True)


class OrderListSchema(Schema):
    """A page of orders, those that changed last first."""

    orders = fields.List(fields.Nested(OrderSchema), required=True)
    next = fields.String(
        required=True, allow_none=True, metadata={"description": "The next page's `after`; none after the last page."}
    )


class ResolvedSchema(Schema):
    """What an operator's word has done."""

    verdict = fields.Enum(Verdict, by_value=True, required=True)
    order = fields.Nested(OrderSchema, required=True)
