"""What the API responds, and what the command line prints as JSON."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields

from service.api import fields as api
from service.domain.claims import ClaimSource, IdentityField, OrderStatus
from service.domain.events import EventType
from service.domain.order_state import STATUS, Verdict
from service.ledger.attention import AttentionKind
from service.ledger.audit import Action
from service.ledger.claims import MAX_UNCOUNTED
from service.ledger.dead_letters import DeadLetterAction
from service.ledger.delivery_log import LoggedKind
from service.ledger.endpoint_tests import EndpointTestState
from service.ledger.endpoints import DeliveryState
from service.ledger.inquiries import InquiryState
from service.ledger.inquiry_questions import QuestionOutcome
from service.ledger.orders import OrderRecord
from service.ledger.proposals import ProposalRecord, ProposalState
from service.ledger.replays import ReplayState
from service.ledger.withholds import WithholdOutcome

_DISPUTABLE = ", ".join(f"`{field}`" for field in (STATUS, *IdentityField))


class ResponseSchema(Schema):
    """Each member of a response is always there, if only as null."""

    def on_bind_field(self, _name: str, field_obj: fields.Field[Any]) -> None:
        """Document the member as required."""
        field_obj.required = True


class DisputedValuesSchema(ResponseSchema):
    """The two values of a field in dispute."""

    stands = api.text("The value that the order has for now.")
    other = api.text("The value that contradicts it.")


class OrderSchema(ResponseSchema):
    """The current state of an order."""

    merchant = api.merchant()
    biz_order_no = api.order_number()
    status = api.member(OrderStatus, attribute="state.status")
    trust = api.TrustName(allow_none=True, attribute="state.trust")
    conflicted = api.flag(
        "Whether trusted claims contradict each other or the announcement, and this is not settled.",
        attribute="state.conflicted",
    )
    disputed = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(DisputedValuesSchema),
        attribute="state.disputed_values",
        metadata={"description": f"While it is conflicted: both values of each of {_DISPUTABLE} that is in dispute."},
    )
    pay_order_no = fields.String(allow_none=True, attribute="state.pay_order_no")
    sequence = api.number("The number of its last event; 0 for none.")
    order_type = fields.String(attribute="state.order_type")
    pay_type = fields.String(attribute="state.pay_type")
    paid_at = api.time("When the money moved.", allow_none=True)
    amount = api.amount(allow_none=True)
    amount_unit = api.amount_unit()
    announced_pay_type = api.text(
        "What was asked for; empty where none was announced.", attribute="state.announced_pay_type"
    )
    announced_amount = api.amount(allow_none=True)
    announced_at = api.time("Null where it was never announced.", allow_none=True)
    answer_due_at = api.time("When the gateway is asked, unless a final status is known by then.", allow_none=True)
    created_at = api.time("When it became known.")
    updated_at = api.time("When it changed last.")


class AnnouncedSchema(ResponseSchema):
    """An announced order."""

    order = fields.Nested(OrderSchema)
    notify_url = fields.String(
        metadata={
            "format": "uri",
            "description": "To be given to the gateway as `notify_url`. Secret: whoever has it can claim anything "
            "about this order.",
        }
    )


class AnnouncedOrdersSchema(ResponseSchema):
    """One entry for each order of the request, in its order."""

    orders = fields.List(fields.Nested(AnnouncedSchema))


class WithholdRecordSchema(ResponseSchema):
    """The one time that an order was sent to the gateway."""

    outcome = api.member(
        WithholdOutcome,
        "`accepted` does not mean paid. For `unknown`, and for a `sending` that nobody continues, "
        "the gateway is asked; never send the order again under another number.",
    )
    sent_by = api.text("The name of the API token, or of the command.")
    sent_at = api.time("When it was sent.")
    settled_at = api.time("When the outcome was recorded.", allow_none=True)
    detail = api.MaskedText()
    request_id = api.text("Identifies the request to the gateway's support.")
    refused_at = api.time("When the gateway answered -1. The outcome is unknown all the same.", allow_none=True)
    ended_at = api.time("When a rule for refused withholds ended the order.", allow_none=True)


class SentSchema(ResponseSchema):
    """What is known of an order that was sent, now or before."""

    outcome = fields.String(
        attribute="withhold.outcome",
        metadata={"enum": [outcome.value for outcome in WithholdOutcome if outcome is not WithholdOutcome.NOT_DONE]},
    )
    order = fields.Nested(OrderSchema, attribute="announced.order")
    withhold = fields.Nested(WithholdRecordSchema)


class BindingSchema(ResponseSchema):
    """A binding that waits for the code of the card's owner."""

    unique_code = fields.String()


class BoundCardSchema(ResponseSchema):
    """A bound card."""

    protocol_no = fields.String()


class ClaimSchema(ResponseSchema):
    """A claim about an order, and its verdict."""

    source = api.member(ClaimSource)
    trust = api.TrustName()
    verdict = api.member(Verdict)
    status = api.member(OrderStatus, allow_none=True)
    pay_order_no = fields.String(allow_none=True)
    order_type = api.ClaimedCode()
    pay_type = api.ClaimedCode()
    amount = api.amount(allow_none=True)
    amount_unit = api.amount_unit()
    paid_at = api.time("When the money moved, as claimed.", allow_none=True)
    channel_response = api.MaskedText()
    unknown_fields = fields.Dict(keys=fields.String(), values=api.MaskedText())
    missing_fields = fields.List(
        fields.String(),
        metadata={"description": "Absent fields that the gateway's document requires; the claim counts all the same."},
    )
    stated_at = api.time("When the callback was received, the gateway asked, or the decision made.")
    recorded_at = api.time("When it was recorded.")
    quarantine = api.MaskedText(allow_none=True, metadata={"description": "Why a person has to examine it."})
    stated_by = api.text("An operator's name, and where it was entered; else empty.")
    reason = api.text("An operator's reason; else empty.")


class ProposalSchema(ResponseSchema):
    """A decision on an order that needs a second person, and what became of it."""

    id = fields.Integer()
    merchant = api.merchant()
    biz_order_no = api.order_number()
    sequence = api.number("The order's when it was proposed. If the order has another one, the proposal has lapsed.")
    status = api.member(OrderStatus)
    pay_order_no = fields.String(allow_none=True)
    pay_type = api.text("Empty where none is stated.")
    amount = api.amount(allow_none=True)
    amount_unit = api.amount_unit()
    paid_at = api.time("When the money moved, where it is stated.", allow_none=True)
    proposer = api.text("The identity of who proposed it: another one has to confirm it.")
    proposed_by = api.text("Who proposed it, and where it was entered.")
    reason = api.text("Why.")
    proposed_at = api.time("When.")
    state = api.member(ProposalState, "`open` waits for a second person.")
    decided_by = api.text("Who confirmed or withdrew it, and where it was entered; else empty.")
    decision_reason = api.text("Why it was withdrawn; else empty.")
    decided_at = api.time("When it was confirmed or withdrawn.", allow_none=True)


class InquirySchema(ResponseSchema):
    """The inquiry of an order: whether and when the gateway is asked about it."""

    state = api.member(InquiryState)
    reasons = api.ReasonNames()
    due_at = api.time("When the gateway is asked next, while the inquiry is open.")
    horizon_at = api.time("When it is given up and left to a person.")
    attempts = api.number("Queries sent since it was last opened.")
    last_asked_at = api.time("When the gateway was last asked.", allow_none=True)
    opened_at = api.time("When it was last opened.")


class QuestionSchema(ResponseSchema):
    """A query that was sent to the gateway."""

    asked_at = api.time("When it was sent.")
    reasons = api.ReasonNames()
    outcome = api.member(
        QuestionOutcome,
        "Null while it is under way, and for good where the process that sent it has died.",
        allow_none=True,
    )
    request_id = api.text("Identifies the request to the gateway's support.")
    seconds = fields.Float(allow_none=True, metadata={"description": "Until the gateway answered."})
    detail = api.MaskedText(metadata={"description": "Why there was no answer; else empty."})


class LoggedStepSchema(ResponseSchema):
    """Something that happened to a delivery."""

    at = api.time("When.")
    kind = api.member(LoggedKind, "`delivered` only if it was replayed later.")
    detail = api.MaskedText(metadata={"description": "Why it failed, or who replayed it and why; else empty."})


class DeliverySchema(ResponseSchema):
    """The delivery of an event to one endpoint."""

    endpoint = fields.String()
    state = fields.String(metadata={"enum": [state.value for state in DeliveryState]})
    attempts = fields.Integer()
    due_at = api.time("When it is attempted next, while it is open.")
    settled_at = api.time("When it was delivered or parked.", allow_none=True)
    last_error = api.MaskedText()
    log = fields.List(
        fields.Nested(LoggedStepSchema),
        metadata={"description": "Failed tries and replays, the oldest first: the first one and the last nine."},
    )


class EventSchema(ResponseSchema):
    """An event for downstream, delivered or not."""

    id = fields.String()
    sequence = fields.Integer()
    type = api.member(EventType)
    status = api.member(OrderStatus)
    created_at = api.time("When it was made.")
    deliveries = fields.List(fields.Nested(DeliverySchema))


class HistorySchema(ResponseSchema):
    """The history of an order."""

    order = fields.Nested(
        OrderSchema, allow_none=True, metadata={"description": "Null where there are only claims that are not trusted."}
    )
    withhold = fields.Nested(
        WithholdRecordSchema, allow_none=True, metadata={"description": "Null where it was not sent by this service."}
    )
    claims = fields.List(
        fields.Nested(ClaimSchema),
        metadata={
            "description": "In the order in which they were recorded: all that counted, and the newest "
            f"{MAX_UNCOUNTED} of those that did not."
        },
    )
    claims_left_out = api.number("How many older claims that did not count are left out.")
    proposals = fields.List(
        fields.Nested(ProposalSchema), metadata={"description": "Decisions that needed a second person, oldest first."}
    )
    inquiry = fields.Nested(InquirySchema, allow_none=True)
    questions = fields.List(
        fields.Nested(QuestionSchema), metadata={"description": "The queries that were sent to the gateway, in order."}
    )
    events = fields.List(fields.Nested(EventSchema))


class OrderListSchema(ResponseSchema):
    """A page of orders, the most recently changed first."""

    orders = fields.List(fields.Nested(OrderSchema))
    next = api.next_page()


class FeedPageSchema(ResponseSchema):
    """Events, each with what is delivered to endpoints."""

    events = fields.List(api.CloudEvent(), attribute="bodies")
    next = api.text("The next page's `after`. Store it when you have applied the events.")
    more = api.flag("Whether to read on at once. It may be true where the filter lets nothing pass yet.")


class OrderEventsSchema(ResponseSchema):
    """An order and all of its events, in sequence."""

    order = fields.Nested(OrderSchema)
    events = fields.List(api.CloudEvent(), attribute="bodies")


class PauseSchema(ResponseSchema):
    """Why nothing is sent to an endpoint."""

    paused_at = api.time("Since when.")
    paused_by = fields.String()
    reason = fields.String()


class EndpointSchema(ResponseSchema):
    """An endpoint, and what waits for it."""

    endpoint = api.endpoint()
    configured = api.flag("Whether it is in the settings. If it is not, nothing is delivered.")
    pause = fields.Nested(PauseSchema, allow_none=True)
    open = api.number("Events that are neither delivered nor parked.")
    parked = api.number("Events that wait for a person.")
    oldest_open_at = api.time("When the oldest open event was made.", allow_none=True)
    last_delivered_at = api.time("When it last accepted an event.", allow_none=True)
    last_error = api.MaskedText()
    failing_since = api.time("When the oldest open event that has failed first did.", allow_none=True)


class EndpointsSchema(ResponseSchema):
    """Every endpoint in the settings, and all others for which something waits."""

    endpoints = fields.List(fields.Nested(EndpointSchema))


class PausedSchema(ResponseSchema):
    """The pause that holds now, or that was ended; null where there was none."""

    pause = fields.Nested(PauseSchema, allow_none=True)


class EndpointTestSchema(ResponseSchema):
    """A test of an endpoint, and what became of it."""

    id = fields.Integer()
    endpoint = api.endpoint()
    requested_by = fields.String()
    reason = fields.String()
    requested_at = api.time("When it was requested.")
    state = api.member(
        EndpointTestState,
        "If it stays `requested`, no dispatcher with this endpoint runs. If it stays `sending`, the "
        "dispatcher ended meanwhile: request another.",
    )
    sent_at = api.time("When a dispatcher took it.", allow_none=True)
    event_id = api.text("The `id` that the endpoint received.")
    answer = api.text("What the endpoint answered, or why there was no answer.")
    seconds = fields.Float(allow_none=True, metadata={"description": "Until the answer."})


class ListedDeliverySchema(DeliverySchema):
    """The delivery of an event to one endpoint, with what the event is about."""

    event_id = fields.String()
    merchant = api.merchant()
    biz_order_no = api.order_number()
    sequence = fields.Integer()
    type = api.member(EventType)
    status = api.member(OrderStatus)
    created_at = api.time("When the event was made.")


class DeliveryListSchema(ResponseSchema):
    """A page of deliveries, those of the oldest events first."""

    deliveries = fields.List(fields.Nested(ListedDeliverySchema))
    next = api.next_page()


class RedeliveredSchema(ResponseSchema):
    """How many events are due again."""

    due_again = api.number("Events that were never meant for the endpoint are not counted.")


class ReplayCountSchema(ResponseSchema):
    """How many events a window has."""

    events = fields.Integer()


class ReplaySchema(ResponseSchema):
    """A replay, and how far it is."""

    id = fields.Integer()
    endpoint = fields.String(attribute="window.endpoint")
    since = api.time("Events that were made at this time or later.", attribute="window.since")
    until = api.time("Events that were made before this time.", attribute="window.until")
    status = api.member(OrderStatus, allow_none=True, attribute="window.status")
    order_type = fields.String(allow_none=True, attribute="window.order_type")
    per_second = fields.Integer()
    requested_by = fields.String()
    reason = fields.String()
    requested_at = api.time("When it was requested.")
    state = api.member(ReplayState)
    total = fields.Integer()
    done = api.number("How many are due again, or were still open.")


class ListedInquirySchema(InquirySchema):
    """An order's inquiry."""

    merchant = api.merchant()
    biz_order_no = api.order_number()


class InquiryListSchema(ResponseSchema):
    """A page of a merchant's inquiries, by order number."""

    inquiries = fields.List(fields.Nested(ListedInquirySchema))
    next = api.next_page()


class ChangeSchema(ResponseSchema):
    """What an operator has changed or decided."""

    id = fields.Integer()
    changed_at = api.time("When.")
    changed_by = api.text("Who, and by which API token.")
    action = api.member(Action)
    subject = api.text("What it was done to. For a decision, the order and the status.")
    reason = api.text("Why. Empty where a proposal was confirmed: that takes no reason.")
    merchant = api.text("Of the order that it concerns; null where it concerns none.", allow_none=True)
    biz_order_no = api.text("The order that it concerns; null where it concerns none.", allow_none=True)


class AuditSchema(ResponseSchema):
    """Changes, the latest first."""

    changes = fields.List(fields.Nested(ChangeSchema))


class ResolvedSchema(ResponseSchema):
    """The effect of an operator's decision."""

    verdict = api.member(Verdict, "Null where a second person has to confirm it: nothing has changed.", allow_none=True)
    order = fields.Nested(
        OrderSchema,
        allow_none=True,
        metadata={"description": "Null where only claims that are not trusted name it, and nothing has changed."},
    )
    proposal = fields.Nested(
        ProposalSchema, allow_none=True, metadata={"description": "What a second person has to confirm; else null."}
    )


def describe_resolved(resolved: Verdict | ProposalRecord, order: OrderRecord | None) -> Mapping[str, Any]:
    """What `ResolvedSchema` writes: the outcome, and the order afterwards."""
    is_proposed = isinstance(resolved, ProposalRecord)
    return {
        "verdict": None if is_proposed else resolved,
        "order": order,
        "proposal": resolved if is_proposed else None,
    }


class AttentionItemSchema(ResponseSchema):
    """One thing that waits for a person."""

    id = api.text("Stays the same for as long as the item waits.")
    kind = api.member(AttentionKind)
    cause = api.text("The kind in words.")
    merchant = api.text("Empty where it concerns no merchant.")
    biz_order_no = api.text("Empty where it concerns no order.")
    endpoint = api.text("Empty where it concerns no endpoint.")
    event_id = api.text("Of a single parked delivery; else empty.")
    since = api.time("Since when it waits.")
    detail = api.MaskedText(
        metadata={"description": "An error, a reason, or the field in dispute, where there is one."}
    )
    orders = api.number("How many orders it concerns: 0, 1, or those of a group of conflicts.")
    events = api.number("How many events were given up: 0, 1, or those of a group.")
    amount = api.amount(allow_none=True)
    amount_unit = api.amount_unit()
    next_step = api.text("The command to run next.")
    acknowledged_by = fields.String(allow_none=True)
    acknowledged_at = api.time("Null where nobody has acknowledged it.", allow_none=True)
    note = fields.String(allow_none=True)


class AttentionListSchema(ResponseSchema):
    """A page of what waits for a person, the longest first."""

    items = fields.List(fields.Nested(AttentionItemSchema))
    next = api.next_page()


class StatusSumSchema(ResponseSchema):
    """The orders of one day that have one status, with their amounts."""

    status = api.member(OrderStatus)
    orders = fields.Integer()
    amount = api.amount(allow_none=True)
    amount_unit = api.amount_unit(description="Null for the orders whose amount is unknown.")


class OpenOrderSchema(ResponseSchema):
    """An order without a final status or in conflict, and why."""

    biz_order_no = api.order_number()
    status = api.member(OrderStatus)
    conflicted = fields.Boolean()
    amount = api.amount(allow_none=True)
    amount_unit = api.amount_unit()
    created_at = api.time("When it became known.")
    explanation = fields.String()
    explained = api.flag("Whether no person has to look: it is acknowledged, or its answer is still expected.")


class DayReportSchema(ResponseSchema):
    """One merchant's orders that became known on one day, by their present state."""

    day = fields.Date(metadata={"description": "In the merchant's own time zone."})
    merchant = api.merchant()
    orders = fields.Integer()
    announced = fields.Integer()
    called_back = api.number("With at least one callback.")
    asked = api.number("About which the gateway was asked.")
    answered = api.number("For which the gateway's answer was a claim.")
    recovered = api.number("Without a callback; the gateway's answer told the final status.")
    still_open = api.number("Without a final status, or in conflict.")
    in_dispute = api.number("In conflict now.")
    conflicts = api.number("In conflict now or earlier, be it with other claims or with the announcement.")
    statuses = fields.List(fields.Nested(StatusSumSchema))
    first_callback_at = api.time("Of those recorded on the day.", allow_none=True)
    last_callback_at = api.time("Of those recorded on the day.", allow_none=True)
    not_counted = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "Callbacks of the day that changed nothing, by reason."},
    )
    refused = fields.Function(lambda day: sum(day.refused.values()), metadata={"type": "integer"})
    refused_by_reason = fields.Dict(keys=fields.String(), values=fields.Integer(), attribute="refused")
    lag_median_seconds = fields.Float(
        allow_none=True,
        attribute="lags.median_seconds",
        metadata={"description": "From the gateway's time of payment to our event."},
    )
    lag_p99_seconds = fields.Float(allow_none=True, attribute="lags.p99_seconds")
    lag_orders = fields.Integer(attribute="lags.orders")
    open_orders = fields.List(
        fields.Nested(OpenOrderSchema),
        metadata={
            "description": "The orders behind `still_open`, at most 1000; those that nothing explains come first."
        },
    )
    unexplained = api.number("How many of them nothing explains.")


class ReportSchema(ResponseSchema):
    """How complete some days were, and what waits for a person now."""

    explained = api.flag("Whether no person has to look at anything that the report names.")
    days = fields.List(fields.Nested(DayReportSchema))
    refused_for_no_merchant = api.number("Callbacks whose address named no configured merchant (days in UTC).")
    attention = fields.List(
        fields.Nested(AttentionItemSchema),
        metadata={"description": "What waits now and nobody has acknowledged; at most 1000 items."},
    )


class DeadLetterSchema(ResponseSchema):
    """A message that could not be recorded, and what became of it."""

    id = fields.String()
    reason = api.MaskedText()
    died_at = api.time("When it became a dead letter.")
    body = api.MaskedText(metadata={"description": "At most 4000 characters."})
    requested = api.member(DeadLetterAction, "What somebody has asked the ledger role to do with it.", allow_none=True)
    requested_by = api.text("Empty where nobody has asked for anything.")
    requested_reason = fields.String()
    settled_at = api.time("When it was replayed, dropped or found to be gone.", allow_none=True)
    outcome = api.text("What became of it; empty while it waits.")


class DeadLetterListSchema(ResponseSchema):
    """Dead letters, the oldest first."""

    dead_letters = fields.List(fields.Nested(DeadLetterSchema))
