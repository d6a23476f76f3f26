"""What callers send."""

from typing import Any

from marshmallow import Schema, fields, post_load, validate

from service.api import fields as api
from service.api.cursors import read_cursor
from service.charging.announce import OrderDraft
from service.charging.withhold import Payer
from service.domain.claims import OrderStatus
from service.ledger.orders import OrderFilter

#: How many orders one request may announce.
MOST_ORDERS = 100
#: How many orders one answer may list.
MOST_LISTED = 500
#: What an operator may resolve an order to.
RESOLVABLE = (OrderStatus.PROCESSING, OrderStatus.SUCCEEDED, OrderStatus.FAILED)


class _DraftSchema(Schema):
    merchant = api.merchant(required=True)
    biz_order_no = api.order_number(required=True)
    answer_due_at = api.time(
        "When the gateway is asked if no end is known by then; by default what the merchant's settings say.",
        allow_none=True,
    )


class AnnouncementSchema(_DraftSchema):
    """An order before it is sent to the gateway."""

    amount = api.amount(allow_none=True)
    pay_type = fields.String(allow_none=True, metadata={"description": "One of the merchant's."})

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> OrderDraft:
        return OrderDraft(**{**data, "pay_type": data.get("pay_type") or ""})


class AnnouncementsSchema(Schema):
    """Orders to announce, each of which stands by itself."""

    orders = fields.List(
        fields.Nested(AnnouncementSchema), required=True, validate=validate.Length(min=1, max=MOST_ORDERS)
    )


class _PersonSchema(Schema):
    # Checked in full where they are sent: by the document's rules and by check digits.
    id_card_number = fields.String(required=True, load_only=True)
    mobile = fields.String(required=True, load_only=True)
    name = fields.String(required=True, load_only=True)


class WithholdSchema(_DraftSchema, _PersonSchema):
    """An order to announce and to send: `single-withhold` of the gateway's document."""

    amount = api.amount(required=True)
    pay_type = fields.String(required=True, metadata={"description": "One of the merchant's."})
    bank_card_number = fields.String(load_only=True, metadata={"description": "This, `protocol_no`, or both."})
    protocol_no = fields.String(load_only=True, metadata={"description": "Of a card that was bound."})

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> tuple[OrderDraft, Payer]:
        drafted = ("merchant", "biz_order_no", "amount", "pay_type", "answer_due_at")
        draft = OrderDraft(**{name: data.pop(name) for name in drafted if name in data})
        return draft, Payer(**data)


class CardSchema(_PersonSchema):
    """A card to bind: `pre-tied-card` of the gateway's document."""

    merchant = api.merchant(required=True)
    bank_card_number = fields.String(required=True, load_only=True)
    pay_type = fields.String(required=True)


class CardConfirmationSchema(Schema):
    """The code that the card's owner was sent: `confirm-tied-card` of the gateway's document."""

    merchant = api.merchant(required=True)
    verification_code = fields.String(required=True, load_only=True)
    unique_code = fields.String(required=True)
    bank_card_number = fields.String(required=True, load_only=True)
    pay_type = fields.String(required=True)


class ResolutionSchema(Schema):
    """A person's word on an order. It outranks the gateway's."""

    status = fields.Enum(
        OrderStatus,
        by_value=True,
        required=True,
        validate=validate.OneOf(RESOLVABLE, error="must be one of processing, succeeded, failed"),
    )
    name = api.one_line("Who decides: a person, not a system. Kept for good.", most=100, required=True)
    reason = api.one_line("Why, and on what evidence. Kept for good.", most=1000, required=True)
    pay_order_no = api.one_line(
        "The gateway's number for the payment, where known.", most=128, allow_none=True, load_default=None
    )
    paid_at = api.time("When the money moved, where known.", allow_none=True, load_default=None)


class OrderFilterSchema(Schema):
    """Which orders to list."""

    merchant = api.merchant()
    status = fields.Enum(OrderStatus, by_value=True)
    conflicted = fields.Boolean(truthy={"true"}, falsy={"false"})
    updated_before = api.time("Only orders that have not changed since.")
    limit = fields.Integer(load_default=100, validate=validate.Range(min=1, max=MOST_LISTED))
    after = fields.String(metadata={"description": "`next` of the page before; the other filters stay the same."})

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> tuple[OrderFilter, int]:
        limit = data.pop("limit")
        if (cursor := data.pop("after", None)) is not None:
            data["after"] = read_cursor(cursor)
        return OrderFilter(**data), limit
