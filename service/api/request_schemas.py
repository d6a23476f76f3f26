"""What callers send."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate, validates_schema

from service.api import fields as api
from service.api.fields import MAX_LISTED
from service.charging.announce import OrderDraft
from service.charging.withhold import Payer
from service.domain.claims import OrderKey, OrderStatus
from service.domain.events import EventType
from service.ledger.attention import GROUPS, AttentionFilter, AttentionKind, AttentionPlace
from service.ledger.claims import RESOLVABLE
from service.ledger.dead_letters import DeadLetterAction
from service.ledger.endpoints import DeliveryFilter, DeliveryPlace, DeliveryState
from service.ledger.feed import BEGINNING, FeedFilter, FeedPlace
from service.ledger.inquiries import InquiryState
from service.ledger.orders import OrderFilter, OrderPlace
from service.ledger.replays import DEFAULT_PER_SECOND, ReplayWindow
from service.runtime.clock import now

#: The longest request body, in bytes. 100 orders with every field take 60 KiB.
MAX_BODY_BYTES = 128 * 1024
#: How many orders one request may announce.
MAX_ORDERS = 100
#: How long a request for events may wait for one.
MAX_WAIT_SECONDS = 30
#: In place of a cursor: the place of the latest event.
LATEST = "latest"
#: How many days one response may report.
MAX_REPORTED_DAYS = 31
#: How fast events may be delivered again.
MAX_REPLAYED_PER_SECOND = 1000

# Days near the calendar's ends have no next day, or none in another time zone.
_DAY = validate.Range(min=date(2000, 1, 1), max=date(2999, 12, 31))


class _DraftSchema(Schema):
    merchant = api.merchant(required=True)
    biz_order_no = api.order_number(required=True)
    answer_due_at = api.time(
        "When the gateway is asked, unless a final status is known by then. The default is in the merchant's settings.",
        allow_none=True,
    )


class AnnouncementSchema(_DraftSchema):
    """An order before it is sent to the gateway."""

    amount = api.amount(allow_none=True)
    pay_type = api.text("One of the merchant's.", allow_none=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> OrderDraft:
        return OrderDraft(**{**data, "pay_type": data.get("pay_type") or ""})


class AnnouncementsSchema(Schema):
    """Orders to announce, each independent of the others."""

    orders = fields.List(
        fields.Nested(AnnouncementSchema), required=True, validate=validate.Length(min=1, max=MAX_ORDERS)
    )


class _PersonSchema(Schema):
    # These are checked when they are sent: against the gateway's document and by their check digits.
    id_card_number = fields.String(required=True, load_only=True)
    mobile = fields.String(required=True, load_only=True)
    name = fields.String(required=True, load_only=True)


class WithholdSchema(_DraftSchema, _PersonSchema):
    """An order to announce and to send: `single-withhold` of the gateway's document."""

    amount = api.amount(required=True)
    pay_type = api.text("One of the merchant's.", required=True)
    bank_card_number = api.text("This, `protocol_no`, or both.", load_only=True)
    protocol_no = api.text("Of a card that was bound.", load_only=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> tuple[OrderDraft, Payer]:
        draft = OrderDraft(**{name: data.pop(name) for name in OrderDraft.__dataclass_fields__ if name in data})
        return draft, Payer(**data)


class CardSchema(_PersonSchema):
    """A card to bind: `pre-tied-card` of the gateway's document."""

    merchant = api.merchant(required=True)
    bank_card_number = fields.String(required=True, load_only=True)
    pay_type = fields.String(required=True)


class CardConfirmationSchema(Schema):
    """The code that the card's owner received: `confirm-tied-card` of the gateway's document."""

    merchant = api.merchant(required=True)
    verification_code = fields.String(required=True, load_only=True)
    unique_code = fields.String(required=True)
    bank_card_number = fields.String(required=True, load_only=True)
    pay_type = fields.String(required=True)


class ResolutionSchema(Schema):
    """A person's decision on an order. It overrides the gateway."""

    status = api.member(
        OrderStatus,
        required=True,
        validate=validate.OneOf(RESOLVABLE, error="must be one of processing, succeeded, failed"),
    )
    sequence = api.number(
        "The order's `sequence` when the person looked at it; 0 where it has no order yet.",
        required=True,
        strict=True,
        attribute="seen_sequence",
    )
    name = api.one_line("Who decides: a person, not a system. Kept for good.", max_length=100, required=True)
    reason = api.one_line("Why, and on what evidence. Kept for good.", max_length=1000, required=True)
    pay_order_no = api.one_line(
        "The gateway's number for the payment, where known.", max_length=128, allow_none=True, load_default=None
    )
    pay_type = api.text("One of the merchant's, where known. Settles a dispute about it.", load_default="")
    amount = api.amount(allow_none=True, load_default=None)
    paid_at = api.time("When the money moved, where known.", allow_none=True, load_default=None)


class ConfirmationSchema(Schema):
    """Who confirms another person's decision."""

    name = api.one_line("Who confirms it: a person, not a system. Kept for good.", max_length=100, required=True)


class AuthorSchema(Schema):
    """Who makes a change, and why. Both are kept."""

    name = api.one_line("Who does it: a person, not a system.", max_length=100, required=True)
    reason = api.one_line("Why.", max_length=1000, required=True)


class InquiryRequestSchema(AuthorSchema):
    """Who has the gateway asked, and why. The audit keeps both."""

    name = api.one_line("Who asks: a person, or a system that asks by itself.", max_length=100, required=True)


class ReplayWindowSchema(Schema):
    """The events that an endpoint is to get again."""

    endpoint = api.endpoint(required=True)
    since = api.time("Events that were made at this time or later.", required=True)
    until = api.time("Events that were made before this time, which is past.", required=True)
    status = api.member(OrderStatus, load_default=None)
    order_type = fields.String(load_default=None)

    @validates_schema
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        if not data["since"] < data["until"]:
            raise ValidationError("must be before `until`", "since")
        if data["until"] > now():
            raise ValidationError("is in the future: further events may still be made before it", "until")

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return self._of(ReplayWindow(**{name: data.pop(name) for name in _WINDOW}), data)

    def _of(self, window: ReplayWindow, data: dict[str, Any]) -> Any:  # noqa: ARG002 - the request of a replay has more
        return window


_WINDOW = ("endpoint", "since", "until", "status", "order_type")


class ReplayRequestSchema(ReplayWindowSchema, AuthorSchema):
    """A window of events, and the number of events that the caller expects in it."""

    expected = api.number("The number that `/v1/replays/count` returned.", required=True, strict=True)
    per_second = api.number(
        "The most events that are delivered again each second.",
        strict=True,
        load_default=DEFAULT_PER_SECOND,
        validate=validate.Range(min=1, max=MAX_REPLAYED_PER_SECOND),
    )

    def _of(self, window: ReplayWindow, data: dict[str, Any]) -> Any:
        return {"window": window, **data}


class RedeliverySchema(AuthorSchema):
    """Some events that an endpoint is to get again at once."""

    event_ids = fields.List(
        fields.String(),
        validate=validate.Length(min=1, max=MAX_ORDERS),
        metadata={"description": "These events. Leave it out for all that are parked."},
    )


class DeliveryFilterSchema(Schema):
    """Which deliveries to list: those that are open or parked, or those of one order or event."""

    endpoint = api.endpoint()
    state = api.member(DeliveryState, "Required, unless an order or an event is named.")
    merchant = api.merchant()
    biz_order_no = api.order_number()
    event_id = fields.String()
    limit = api.limit()
    after = api.Cursor(DeliveryPlace)

    @validates_schema
    def _check_order(self, data: dict[str, Any], **_: Any) -> None:
        for field, other in (("merchant", "biz_order_no"), ("biz_order_no", "merchant")):
            if other in data and field not in data:
                raise ValidationError(f"is needed with `{other}`: both together name an order", field)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> tuple[DeliveryFilter, int]:
        limit = data.pop("limit")
        if "merchant" in data:
            data["order"] = OrderKey(data.pop("merchant"), data.pop("biz_order_no"))
        chosen = DeliveryFilter(**data)
        if not chosen.is_narrow:
            raise ValidationError("must be `open` or `parked`, unless an order or an event is named", "state")
        return chosen, limit


class InquiryFilterSchema(Schema):
    """Which inquiries to list."""

    merchant = api.merchant(required=True)
    state = api.member(InquiryState, required=True)
    limit = api.limit()
    after = api.text("The last order number of the page before: its `next`.", load_default="")


class AuditFilterSchema(Schema):
    """Which changes to list."""

    limit = api.limit()
    before = api.number(
        "Only changes before the one with this `id`.", load_default=None, validate=validate.Range(min=1, max=2**63 - 1)
    )


class OrderFilterSchema(Schema):
    """Which orders to list."""

    merchant = api.merchant()
    status = api.member(OrderStatus)
    conflicted = fields.Boolean(truthy={"true"}, falsy={"false"})
    amount = fields.String(
        validate=validate.Regexp(r"[0-9]{1,16}(\.[0-9]{1,10})?\Z", error="must be a plain decimal number"),
        metadata={"description": "Only orders with this exact amount, whatever its unit."},
    )
    number = fields.String(
        validate=validate.Length(min=1, max=128),
        metadata={
            "description": "Only orders that a configured merchant or the gateway calls by this number. It excludes "
            "every other filter."
        },
    )
    updated_since = api.time("Only orders that have changed since.")
    updated_before = api.time("Only orders that have not changed since.")
    limit = api.limit()
    after = api.Cursor(OrderPlace)

    @validates_schema
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        if "number" in data and data.keys() - {"number", "limit"}:
            raise ValidationError("excludes every other filter", "number")

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> tuple[str | None, OrderFilter, int]:
        number, limit = data.pop("number", None), data.pop("limit")
        return number, OrderFilter(**data), limit


class _FeedCursor(api.Cursor):
    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return None if value == LATEST else super()._deserialize(value, *args, **kwargs)


class FeedFilterSchema(Schema):
    """Which events to read, and from where."""

    merchant = api.merchant()
    type = api.member(EventType)
    status = api.member(OrderStatus)
    order_type = fields.String()
    limit = api.limit()
    after = _FeedCursor(
        FeedPlace,
        load_default=lambda: BEGINNING,
        metadata={
            "description": "The `next` of the page before; the filters may change. Without it, the oldest events come "
            f"first. `{LATEST}` leaves out all that are there."
        },
    )
    wait_seconds = api.number(
        "How long to wait for an event if there is none. The response comes with the first.",
        load_default=0,
        validate=validate.Range(min=0, max=MAX_WAIT_SECONDS),
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> "FeedQuery":
        page = {name: data.pop(name) for name in ("after", "limit", "wait_seconds")}
        return FeedQuery(chosen=FeedFilter(**data), **page)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedQuery:
    """What a caller wants of the feed."""

    #: None for the place of the latest event.
    after: FeedPlace | None
    chosen: FeedFilter
    limit: int
    wait_seconds: int


class AttentionFilterSchema(Schema):
    """Which items of the attention list to return."""

    kind = api.member(AttentionKind)
    merchant = api.merchant()
    group = api.text(
        f"The `id` of an item of the kind {' or '.join(f'`{kind}`' for kind in GROUPS)}: list its members, "
        "also those that somebody has acknowledged.",
        validate=validate.Regexp(f"({'|'.join(GROUPS)})/", error=f"is not an item of the kind {' or '.join(GROUPS)}"),
    )
    acknowledged = fields.Boolean(
        truthy={"true"},
        falsy={"false"},
        load_default=False,
        metadata={"description": "Also the items that somebody has acknowledged."},
    )
    limit = api.limit()
    after = api.Cursor(AttentionPlace)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> tuple[AttentionFilter, int]:
        limit = data.pop("limit")
        data["acknowledged"] = None if data["acknowledged"] or "group" in data else False
        return AttentionFilter(**data), limit


class AcknowledgementSchema(Schema):
    """A person's note that an item of the attention list is seen."""

    id = api.text("The item's `id`.", required=True)
    name = api.one_line("Who has seen it: a person, not a system.", max_length=100, required=True)
    note = api.one_line("What is being done about it.", max_length=1000, required=True)


class DeadLetterRequestSchema(AuthorSchema):
    """What is to become of dead letters, who decides it, and why. The audit keeps it."""

    ids = fields.List(fields.String(), required=True, validate=validate.Length(min=1, max=MAX_LISTED))
    action = api.member(DeadLetterAction, required=True)


class ReportFilterSchema(Schema):
    """Which days and merchant to report."""

    since = fields.Date(validate=_DAY, metadata={"description": "The first day. The default is `until`."})
    until = fields.Date(validate=_DAY, metadata={"description": "The last day, included. The default is yesterday."})
    merchant = api.merchant()

    @validates_schema
    def _check_window(self, data: dict[str, Any], **_: Any) -> None:
        since, until = data.get("since"), data.get("until")
        if since and until and since > until:
            raise ValidationError("is before `since`: swap them", "until")
        if since and (until or datetime.now(UTC).date()) - since >= timedelta(days=MAX_REPORTED_DAYS):
            raise ValidationError(f"must be at most {MAX_REPORTED_DAYS} days before `until`: ask for parts", "since")
