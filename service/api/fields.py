# ruff: noqa: ARG002 - marshmallow passes every field the same arguments.
"""The marshmallow fields of the API, each with its description for OpenAPI."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from marshmallow import ValidationError, fields, validate

from service.domain.claims import Trust
from service.domain.masking import mask_personal, mask_unknown_word
from service.domain.order_numbers import MAX_ORDER_NO_CHARACTERS, is_order_no
from service.ledger.claims import ClaimRecord
from service.ledger.cursors import read_cursor
from service.ledger.inquiries import InquiryReason

#: How many items one response may list.
MAX_LISTED = 500

_NOT_ONE_LINE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]")


def order_number(**options: Any) -> fields.String:
    """A merchant's order number."""
    return fields.String(
        validate=_check_order_number,
        metadata={
            "description": "The merchant's own number of the order: 1 to 128 printable characters.",
            "maxLength": MAX_ORDER_NO_CHARACTERS,
            "minLength": 1,
        },
        **options,
    )


def merchant(**options: Any) -> fields.String:
    """The slug of a merchant."""
    return fields.String(metadata={"description": "The merchant's slug in the settings.", "example": "acme"}, **options)


def endpoint(**options: Any) -> fields.String:
    """The name of an endpoint."""
    return fields.String(metadata={"description": "Its name in the settings.", "example": "shop"}, **options)


def amount(**options: Any) -> fields.String:
    """An exact amount, in the merchant's unit."""
    return fields.String(
        metadata={
            "description": "Exact, in the merchant's unit: yuan (`100.00`) or fen (`10000`). Never a JSON number.",
            "example": "100.00",
        },
        **options,
    )


def amount_unit(**metadata: Any) -> fields.String:
    """The unit of an amount, null where there is none; `metadata` is for OpenAPI."""
    return fields.String(allow_none=True, metadata={"enum": ["yuan", "fen", None], **metadata})


def next_page() -> fields.String:
    """The cursor of the page after a page."""
    return text("The next page's `after`; null after the last page.", allow_none=True)


def text(description: str, **options: Any) -> fields.String:
    """Text."""
    return fields.String(metadata={"description": description}, **options)


def number(description: str, **options: Any) -> fields.Integer:
    """A whole number."""
    return fields.Integer(metadata={"description": description}, **options)


def flag(description: str, **options: Any) -> fields.Boolean:
    """True or false."""
    return fields.Boolean(metadata={"description": description}, **options)


def member(kind: type[Enum], description: str = "", **options: Any) -> fields.Enum[Any]:
    """A member of an enumeration, by its value."""
    metadata = {"description": description} if description else {}
    return fields.Enum(kind, by_value=True, metadata=metadata, **options)


def one_line(description: str, *, max_length: int, **options: Any) -> fields.String:
    """Text on one line, of at most `max_length` characters."""
    return fields.String(
        validate=[validate.Length(min=1, max=max_length), _check_one_line],
        metadata={"description": description},
        **options,
    )


def time(description: str, **options: Any) -> fields.AwareDateTime:
    """A time with its zone."""
    return fields.AwareDateTime(
        format="iso",
        validate=_check_calendar,
        metadata={"description": f"{description} RFC 3339, with its zone."},
        **options,
    )


def limit() -> fields.Integer:
    """The most items of a page."""
    return fields.Integer(load_default=100, validate=validate.Range(min=1, max=MAX_LISTED))


class Cursor(fields.String):
    """A cursor, read as the place that it names; only loaded."""

    def __init__(self, kind: Callable[..., tuple[Any, ...]], **options: Any) -> None:
        """`kind` is the named tuple of the place."""
        description = "`next` of the page before; the other filters stay the same."
        super().__init__(**{"metadata": {"description": description}, **options})
        self._kind = kind

    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        return read_cursor(self._kind, super()._deserialize(*args, **kwargs))


class TrustName(fields.String):
    """The name of a `Trust`; only dumped."""

    def __init__(self, **options: Any) -> None:
        names = [trust.word for trust in Trust] + ([None] if options.get("allow_none") else [])
        description = "How far the claim is trusted, from least to most."
        super().__init__(metadata={"enum": names, "description": description}, **options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else Trust(value).word


class MaskedText(fields.String):
    """Text of the gateway or the channel, with card, ID and mobile numbers masked; only dumped."""

    def _serialize(self, value: str | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else mask_personal(value)


class ClaimedCode(fields.String):
    """An order type or pay type of a claim, masked where the claim is in quarantine; only dumped."""

    def _serialize(self, value: str | None, attr: str | None, obj: ClaimRecord, **kwargs: Any) -> str | None:
        if value is None or obj.quarantine is None:
            return value
        return mask_unknown_word(value, from_stranger=obj.trust is Trust.CHECKSUM)


class CloudEvent(fields.Dict):
    """The bytes of an event, as the JSON that they are; only dumped."""

    def __init__(self, **options: Any) -> None:
        description = "A CloudEvent, as webhooks and queues receive it. `/schemas/payment-event.json` describes it."
        super().__init__(keys=fields.String(), metadata={"description": description}, **options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(value)
        return event


class ReasonNames(fields.List[str]):
    """The names of a set of `InquiryReason`s; only dumped."""

    def __init__(self, **options: Any) -> None:
        names = [reason.name.lower() for reason in InquiryReason if reason.name]
        super().__init__(fields.String(metadata={"enum": names}), **options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> list[str]:
        return [reason.name.lower() for reason in InquiryReason(value) if reason.name]


def _check_order_number(text: str) -> None:
    if not is_order_no(text):
        raise ValidationError(f"is not an order number, which has 1 to {MAX_ORDER_NO_CHARACTERS} printable characters")


def _check_calendar(time: datetime) -> None:
    try:
        time.astimezone(UTC)
    except OverflowError as error:
        raise ValidationError("is outside the range of UTC times") from error


def _check_one_line(text: str) -> None:
    if _NOT_ONE_LINE.search(text) or not text.strip():
        raise ValidationError("must be one line of text that is not blank")
