"""What the API responds, and what the command line prints as JSON."""

from marshmallow import Schema, fields

from service.api import fields as api
from service.domain.claims import ClaimSource, IdentityField, OrderStatus
from service.domain.events import EventType
from service.domain.order_state import STATUS, Verdict
from service.ledger.attention import AttentionKind
from service.ledger.audit import Action
from service.ledger.claims import MOST_UNCOUNTED
from service.ledger.dead_letters import DeadLetterAction
from service.ledger.endpoint_tests import EndpointTestState
from service.ledger.endpoints import DeliveryState
from service.ledger.inquiries import InquiryState
from service.ledger.inquiry_questions import QuestionOutcome
from service.ledger.replays import ReplayState
from service.ledger.withholds import WithholdOutcome

_DISPUTABLE = ", ".join(f"`{field}`" for field in (STATUS, *IdentityField))


class DisputedValuesSchema(Schema):
    """The two values of a field in dispute."""

    stands = fields.String(required=True, metadata={"description": "The value that the order has for now."})
    other = fields.String(required=True, metadata={"description": "The value that contradicts it."})


class OrderSchema(Schema):
    """The current state of an order."""

    merchant = api.merchant(required=True)
    biz_order_no = api.order_number(required=True)
    status = fields.Enum(OrderStatus, by_value=True, required=True, attribute="state.status")
    trust = api.TrustName(required=True, allow_none=True, attribute="state.trust")
    conflicted = fields.Boolean(
        required=True,
        attribute="state.conflicted",
        metadata={
            "description": "Whether trusted claims contradict each other or the announcement, and this is not settled."
        },
    )
    disputed = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(DisputedValuesSchema),
        required=True,
        attribute="state.disputed_values",
        metadata={"description": f"While it is conflicted: both values of each of {_DISPUTABLE} that is in dispute."},
    )
    pay_order_no = fields.String(required=True, allow_none=True, attribute="state.pay_order_no")
    sequence = fields.Integer(required=True, metadata={"description": "The number of its last event; 0 for none."})
    order_type = fields.String(required=True, attribute="state.order_type")
    pay_type = fields.String(required=True, attribute="state.pay_type")
    paid_at = api.time("When the money moved.", required=True, allow_none=True)
    amount = api.amount(required=True, allow_none=True)
    amount_unit = fields.String(required=True, allow_none=True, metadata={"enum": ["yuan", "fen", None]})
    announced_pay_type = fields.String(
        required=True,
        attribute="state.announced_pay_type",
        metadata={"description": "What was asked for; empty where none was announced."},
    )
    announced_amount = api.amount(required=True, allow_none=True)
    announced_at = api.time("Null where it was never announced.", required=True, allow_none=True)
    answer_due_at = api.time(
        "When the gateway is asked, unless a final status is known by then.", required=True, allow_none=True
    )
    created_at = api.time("When it became known.", required=True)
    updated_at = api.time("When it changed last.", required=True)


class AnnouncedSchema(Schema):
    """An announced order."""

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
    """The one time that an order was sent to the gateway."""

    outcome = fields.Enum(
        WithholdOutcome,
        by_value=True,
        required=True,
        metadata={
            "description": "`accepted` does not mean paid. For `unknown`, and for a `sending` that nobody continues, "
            "the gateway is asked; never send the order again under another number."
        },
    )
    sent_by = fields.String(required=True, metadata={"description": "The name of the API token, or of the command."})
    sent_at = api.time("When it was sent.", required=True)
    settled_at = api.time("When the outcome was recorded.", required=True, allow_none=True)
    detail = api.MaskedText(required=True)
    request_id = fields.String(
        required=True, metadata={"description": "Identifies the request to the gateway's support."}
    )
    refused_at = api.time(
        "When the gateway answered -1. The outcome is unknown all the same.", required=True, allow_none=True
    )
    ended_at = api.time("When a rule for refused withholds ended the order.", required=True, allow_none=True)


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
    """A binding that waits for the code of the card's owner."""

    unique_code = fields.String(required=True)


class BoundCardSchema(Schema):
    """A bound card."""

    protocol_no = fields.String(required=True)


class ClaimSchema(Schema):
    """A claim about an order, and its verdict."""

    source = fields.Enum(ClaimSource, by_value=True, required=True)
    trust = api.TrustName(required=True)
    verdict = fields.Enum(Verdict, by_value=True, required=True)
    status = fields.Enum(OrderStatus, by_value=True, required=True, allow_none=True)
    pay_order_no = fields.String(required=True, allow_none=True)
    order_type = api.ClaimedCode(required=True)
    pay_type = api.ClaimedCode(required=True)
    amount = api.amount(required=True, allow_none=True)
    amount_unit = fields.String(required=True, allow_none=True, metadata={"enum": ["yuan", "fen", None]})
    paid_at = api.time("When the money moved, as claimed.", required=True, allow_none=True)
    channel_response = api.MaskedText(required=True)
    unknown_fields = fields.Dict(keys=fields.String(), values=api.MaskedText(), required=True)
    missing_fields = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "Absent fields that the gateway's document requires; the claim counts all the same."},
    )
    stated_at = api.time("When the callback was received, the gateway asked, or the decision made.", required=True)
    recorded_at = api.time("When it was recorded.", required=True)
    quarantine = api.MaskedText(
        required=True, allow_none=True, metadata={"description": "Why a person has to examine it."}
    )
    stated_by = fields.String(
        required=True, metadata={"description": "An operator's name, and where it was entered; else empty."}
    )
    reason = fields.String(required=True, metadata={"description": "An operator's reason; else empty."})


class InquirySchema(Schema):
    """The inquiry of an order: whether and when the gateway is asked about it."""

    state = fields.Enum(InquiryState, by_value=True, required=True)
    reasons = api.ReasonNames(required=True)
    due_at = api.time("When the gateway is asked next, while the inquiry is open.", required=True)
    horizon_at = api.time("When it is given up and left to a person.", required=True)
    attempts = fields.Integer(required=True, metadata={"description": "Queries sent since it was last opened."})
    last_asked_at = api.time("When the gateway was last asked.", required=True, allow_none=True)
    opened_at = api.time("When it was last opened.", required=True)


class QuestionSchema(Schema):
    """A query that was sent to the gateway."""

    asked_at = api.time("When it was sent.", required=True)
    reasons = api.ReasonNames(required=True)
    outcome = fields.Enum(
        QuestionOutcome,
        by_value=True,
        required=True,
        allow_none=True,
        metadata={"description": "Null while it is under way, and for good where the process that sent it has died."},
    )
    request_id = fields.String(
        required=True, metadata={"description": "Identifies the request to the gateway's support."}
    )
    seconds = fields.Float(required=True, allow_none=True, metadata={"description": "Until the gateway answered."})
    detail = api.MaskedText(required=True, metadata={"description": "Why there was no answer; else empty."})


class DeliverySchema(Schema):
    """The delivery of an event to one endpoint."""

    endpoint = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": [state.value for state in DeliveryState]})
    attempts = fields.Integer(required=True)
    due_at = api.time("When it is attempted next, while it is open.", required=True)
    settled_at = api.time("When it was delivered or parked.", required=True, allow_none=True)
    last_error = api.MaskedText(required=True)


class EventSchema(Schema):
    """An event for downstream, delivered or not."""

    id = fields.String(required=True)
    sequence = fields.Integer(required=True)
    type = fields.Enum(EventType, by_value=True, required=True)
    status = fields.Enum(OrderStatus, by_value=True, required=True)
    created_at = api.time("When it was made.", required=True)
    deliveries = fields.List(fields.Nested(DeliverySchema), required=True)


class HistorySchema(Schema):
    """The history of an order."""

    order = fields.Nested(
        OrderSchema,
        required=True,
        allow_none=True,
        metadata={"description": "Null where there are only claims that are not trusted."},
    )
    withhold = fields.Nested(
        WithholdRecordSchema,
        required=True,
        allow_none=True,
        metadata={"description": "Null where it was not sent by this service."},
    )
    claims = fields.List(
        fields.Nested(ClaimSchema),
        required=True,
        metadata={
            "description": "In the order in which they were recorded: all that counted, and the newest "
            f"{MOST_UNCOUNTED} of those that did not."
        },
    )
    claims_left_out = fields.Integer(
        required=True, metadata={"description": "How many older claims that did not count are left out."}
    )
    inquiry = fields.Nested(InquirySchema, required=True, allow_none=True)
    questions = fields.List(
        fields.Nested(QuestionSchema),
        required=True,
        metadata={"description": "The queries that were sent to the gateway, in order."},
    )
    events = fields.List(fields.Nested(EventSchema), required=True)


class OrderListSchema(Schema):
    """A page of orders, the most recently changed first."""

    orders = fields.List(fields.Nested(OrderSchema), required=True)
    next = fields.String(
        required=True, allow_none=True, metadata={"description": "The next page's `after`; null after the last page."}
    )


class FeedPageSchema(Schema):
    """Events, each with what is delivered to endpoints."""

    events = fields.List(api.CloudEvent(), required=True, attribute="bodies")
    next = fields.String(
        required=True, metadata={"description": "The next page's `after`. Store it when you have applied the events."}
    )
    more = fields.Boolean(
        required=True,
        metadata={"description": "Whether to read on at once. It may be true where the filter lets nothing pass yet."},
    )


class OrderEventsSchema(Schema):
    """An order and all of its events, in sequence."""

    order = fields.Nested(OrderSchema, required=True)
    events = fields.List(api.CloudEvent(), required=True, attribute="bodies")


class PauseSchema(Schema):
    """Why nothing is sent to an endpoint."""

    paused_at = api.time("Since when.", required=True)
    paused_by = fields.String(required=True)
    reason = fields.String(required=True)


class EndpointSchema(Schema):
    """An endpoint, and what waits for it."""

    endpoint = api.endpoint(required=True)
    configured = fields.Boolean(
        required=True, metadata={"description": "Whether it is in the settings. If it is not, nothing is delivered."}
    )
    pause = fields.Nested(PauseSchema, required=True, allow_none=True)
    open = fields.Integer(required=True, metadata={"description": "Events that are neither delivered nor parked."})
    parked = fields.Integer(required=True, metadata={"description": "Events that wait for a person."})
    oldest_open_at = api.time("When the oldest open event was made.", required=True, allow_none=True)
    last_delivered_at = api.time("When it last accepted an event.", required=True, allow_none=True)
    last_error = api.MaskedText(required=True)


class EndpointsSchema(Schema):
    """Every endpoint in the settings, and all others for which something waits."""

    endpoints = fields.List(fields.Nested(EndpointSchema), required=True)


class PausedSchema(Schema):
    """The pause that holds now, or that was ended; null where there was none."""

    pause = fields.Nested(PauseSchema, required=True, allow_none=True)


class EndpointTestSchema(Schema):
    """A test of an endpoint, and what became of it."""

    id = fields.Integer(required=True)
    endpoint = api.endpoint(required=True)
    requested_by = fields.String(required=True)
    reason = fields.String(required=True)
    requested_at = api.time("When it was requested.", required=True)
    state = fields.Enum(
        EndpointTestState,
        by_value=True,
        required=True,
        metadata={
            "description": "If it stays `requested`, no dispatcher with this endpoint runs. If it stays `sending`, the "
            "dispatcher ended meanwhile: request another."
        },
    )
    sent_at = api.time("When a dispatcher took it.", required=True, allow_none=True)
    event_id = fields.String(required=True, metadata={"description": "The `id` that the endpoint received."})
    answer = fields.String(
        required=True, metadata={"description": "What the endpoint answered, or why there was no answer."}
    )
    seconds = fields.Float(required=True, allow_none=True, metadata={"description": "Until the answer."})


class ListedDeliverySchema(DeliverySchema):
    """The delivery of an event to one endpoint, with what the event is about."""

    event_id = fields.String(required=True)
    merchant = api.merchant(required=True)
    biz_order_no = api.order_number(required=True)
    sequence = fields.Integer(required=True)
    type = fields.Enum(EventType, by_value=True, required=True)
    status = fields.Enum(OrderStatus, by_value=True, required=True)
    created_at = api.time("When the event was made.", required=True)


class DeliveryListSchema(Schema):
    """A page of deliveries, those of the oldest events first."""

    deliveries = fields.List(fields.Nested(ListedDeliverySchema), required=True)
    next = fields.String(
        required=True, allow_none=True, metadata={"description": "The next page's `after`; null after the last page."}
    )


class RedeliveredSchema(Schema):
    """How many events are due again."""

    due_again = fields.Integer(
        required=True, metadata={"description": "Events that were never meant for the endpoint are not counted."}
    )


class ReplayCountSchema(Schema):
    """How many events a window has."""

    events = fields.Integer(required=True)


class ReplaySchema(Schema):
    """A replay, and how far it is."""

    id = fields.Integer(required=True)
    endpoint = fields.String(required=True, attribute="window.endpoint")
    since = api.time("Events that were made at this time or later.", required=True, attribute="window.since")
    until = api.time("Events that were made before this time.", required=True, attribute="window.until")
    status = fields.Enum(OrderStatus, by_value=True, required=True, allow_none=True, attribute="window.status")
    order_type = fields.String(required=True, allow_none=True, attribute="window.order_type")
    per_second = fields.Integer(required=True)
    requested_by = fields.String(required=True)
    reason = fields.String(required=True)
    requested_at = api.time("When it was requested.", required=True)
    state = fields.Enum(ReplayState, by_value=True, required=True)
    total = fields.Integer(required=True)
    done = fields.Integer(required=True, metadata={"description": "How many are due again, or were still open."})


class ListedInquirySchema(InquirySchema):
    """An order's inquiry."""

    merchant = api.merchant(required=True)
    biz_order_no = api.order_number(required=True)


class InquiryListSchema(Schema):
    """A page of a merchant's inquiries, by order number."""

    inquiries = fields.List(fields.Nested(ListedInquirySchema), required=True)
    next = fields.String(
        required=True, allow_none=True, metadata={"description": "The next page's `after`; null after the last page."}
    )


class ChangeSchema(Schema):
    """What an operator has changed."""

    id = fields.Integer(required=True)
    changed_at = api.time("When.", required=True)
    changed_by = fields.String(required=True, metadata={"description": "Who, and by which API token."})
    action = fields.Enum(Action, by_value=True, required=True)
    subject = fields.String(required=True, metadata={"description": "What it was done to."})
    reason = fields.String(required=True)


class AuditSchema(Schema):
    """Changes, the latest first."""

    changes = fields.List(fields.Nested(ChangeSchema), required=True)


class ResolvedSchema(Schema):
    """The effect of an operator's decision."""

    verdict = fields.Enum(Verdict, by_value=True, required=True)
    order = fields.Nested(OrderSchema, required=True)


class AttentionItemSchema(Schema):
    """One thing that waits for a person."""

    id = fields.String(required=True, metadata={"description": "Stays the same for as long as the item waits."})
    kind = fields.Enum(AttentionKind, by_value=True, required=True)
    cause = fields.String(required=True, metadata={"description": "The kind in words."})
    merchant = fields.String(required=True, metadata={"description": "Empty where it concerns no merchant."})
    biz_order_no = fields.String(required=True, metadata={"description": "Empty where it concerns no order."})
    endpoint = fields.String(required=True, metadata={"description": "Empty where it concerns no endpoint."})
    event_id = fields.String(required=True, metadata={"description": "Of a parked delivery; else empty."})
    since = api.time("Since when it waits.", required=True)
    detail = api.MaskedText(
        required=True, metadata={"description": "An error, a reason, or the field in dispute, where there is one."}
    )
    orders = fields.Integer(
        required=True, metadata={"description": "How many orders it concerns: 0, 1, or those of a group."}
    )
    amount = api.amount(required=True, allow_none=True)
    amount_unit = fields.String(required=True, allow_none=True, metadata={"enum": ["yuan", "fen", None]})
    next_step = fields.String(required=True, metadata={"description": "The command to run next."})
    acknowledged_by = fields.String(required=True, allow_none=True)
    acknowledged_at = api.time("Null where nobody has acknowledged it.", required=True, allow_none=True)
    note = fields.String(required=True, allow_none=True)


class AttentionListSchema(Schema):
    """A page of what waits for a person, the longest first."""

    items = fields.List(fields.Nested(AttentionItemSchema), required=True)
    next = fields.String(
        required=True, allow_none=True, metadata={"description": "The next page's `after`; null after the last page."}
    )


class StatusSumSchema(Schema):
    """The orders of one day that have one status, with their amounts."""

    status = fields.Enum(OrderStatus, by_value=True, required=True)
    orders = fields.Integer(required=True)
    amount = api.amount(required=True, allow_none=True)
    amount_unit = fields.String(
        required=True,
        allow_none=True,
        metadata={"enum": ["yuan", "fen", None], "description": "Null for the orders whose amount is unknown."},
    )


class OpenOrderSchema(Schema):
    """An order without a final status or in conflict, and why."""

    biz_order_no = api.order_number(required=True)
    status = fields.Enum(OrderStatus, by_value=True, required=True)
    conflicted = fields.Boolean(required=True)
    amount = api.amount(required=True, allow_none=True)
    amount_unit = fields.String(required=True, allow_none=True, metadata={"enum": ["yuan", "fen", None]})
    created_at = api.time("When it became known.", required=True)
    explanation = fields.String(required=True)
    explained = fields.Boolean(
        required=True,
        metadata={"description": "Whether no person has to look: it is acknowledged, or its answer is still expected."},
    )


class DayReportSchema(Schema):
    """One merchant's orders that became known on one day, by their present state."""

    day = fields.Date(required=True, metadata={"description": "In the merchant's own time zone."})
    merchant = api.merchant(required=True)
    orders = fields.Integer(required=True)
    announced = fields.Integer(required=True)
    called_back = fields.Integer(required=True, metadata={"description": "With at least one callback."})
    asked = fields.Integer(required=True, metadata={"description": "About which the gateway was asked."})
    answered = fields.Integer(required=True, metadata={"description": "For which the gateway's answer was a claim."})
    recovered = fields.Integer(
        required=True, metadata={"description": "Without a callback; the gateway's answer told the final status."}
    )
    still_open = fields.Integer(required=True, metadata={"description": "Without a final status, or in conflict."})
    in_dispute = fields.Integer(required=True, metadata={"description": "In conflict now."})
    conflicts = fields.Integer(
        required=True,
        metadata={"description": "In conflict now or earlier, be it with other claims or with the announcement."},
    )
    statuses = fields.List(fields.Nested(StatusSumSchema), required=True)
    first_callback_at = api.time("Of those recorded on the day.", required=True, allow_none=True)
    last_callback_at = api.time("Of those recorded on the day.", required=True, allow_none=True)
    not_counted = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={"description": "Callbacks of the day that changed nothing, by reason."},
    )
    refused = fields.Function(lambda day: sum(day.refused.values()), required=True, metadata={"type": "integer"})
    refused_by_reason = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True, attribute="refused")
    lag_median_seconds = fields.Float(
        required=True,
        allow_none=True,
        attribute="lags.median_seconds",
        metadata={"description": "From the gateway's time of payment to our event."},
    )
    lag_p99_seconds = fields.Float(required=True, allow_none=True, attribute="lags.p99_seconds")
    lag_orders = fields.Integer(required=True, attribute="lags.orders")
    open_orders = fields.List(
        fields.Nested(OpenOrderSchema),
        required=True,
        metadata={
            "description": "The orders behind `still_open`, at most 1000; those that nothing explains come first."
        },
    )
    unexplained = fields.Integer(required=True, metadata={"description": "How many of them nothing explains."})


class ReportSchema(Schema):
    """How complete some days were, and what waits for a person now."""

    explained = fields.Boolean(
        required=True, metadata={"description": "Whether no person has to look at anything that the report names."}
    )
    days = fields.List(fields.Nested(DayReportSchema), required=True)
    refused_for_no_merchant = fields.Integer(
        required=True, metadata={"description": "Callbacks whose address named no configured merchant (days in UTC)."}
    )
    attention = fields.List(
        fields.Nested(AttentionItemSchema),
        required=True,
        metadata={"description": "What waits now and nobody has acknowledged; at most 1000 items."},
    )


class DeadLetterSchema(Schema):
    """A message that could not be recorded, and what became of it."""

    id = fields.String(required=True)
    reason = api.MaskedText(required=True)
    died_at = api.time("When it became a dead letter.", required=True)
    body = api.MaskedText(required=True, metadata={"description": "At most 4000 characters."})
    requested = fields.Enum(
        DeadLetterAction,
        by_value=True,
        required=True,
        allow_none=True,
        metadata={"description": "What somebody has asked the ledger role to do with it."},
    )
    requested_by = fields.String(required=True, metadata={"description": "Empty where nobody has asked for anything."})
    requested_reason = fields.String(required=True)
    settled_at = api.time("When it was replayed, dropped or found to be gone.", required=True, allow_none=True)
    outcome = fields.String(required=True, metadata={"description": "What became of it; empty while it waits."})


class DeadLetterListSchema(Schema):
    """Dead letters, the oldest first."""

    dead_letters = fields.List(fields.Nested(DeadLetterSchema), required=True)
