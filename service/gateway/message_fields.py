# ruff: noqa: ARG002 - marshmallow passes every field the same arguments.
"""The marshmallow fields that the messages are made of: strict ones for what we send, lenient ones for what we take."""

import re
from collections.abc import Mapping
from typing import Any

import structlog
from marshmallow import ValidationError, fields, missing

from service.domain.order_numbers import MAX_ORDER_NO_CHARACTERS, is_order_no
from service.gateway.json_dialects import UNICODE
from service.gateway.messages import AmountUnit
from service.gateway.strict_json import NumberToken

_log = structlog.get_logger(__name__)

# PostgreSQL cannot store the one, UTF-8 cannot write the others.
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
_AMOUNTS = {
    AmountUnit.YUAN: (
        "an amount in yuan above 0: digits with at most two decimals, e.g. 100.00",
        re.compile(r"(?=.*[1-9])(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,2})?"),
    ),
    AmountUnit.FEN: ("an amount in fen above 0: digits only, e.g. 10000", re.compile(r"[1-9][0-9]{0,13}")),
}


class StrictText(fields.Field[str]):
    """A string, checked and never converted. Its errors say what was wrong and what is allowed, and quote no value."""

    def __init__(
        self,
        *,
        allowed: str = "a string that is not empty",
        pattern: re.Pattern[str] | None = None,
        required: bool = True,
        data_key: str | None = None,
    ) -> None:
        """`allowed` says in words what `pattern` matches."""
        super().__init__(
            required=required,
            data_key=data_key,
            error_messages={"required": f"missing; needed is {allowed}", "null": f"null; allowed is {allowed}"},
        )
        self._allowed = allowed
        self._pattern = pattern

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(f"{_kind(value)}; allowed is {self._allowed}")
        if not self._fits(value):
            found = f"{len(value)} characters that do not fit" if value else "empty"
            raise ValidationError(f"{found}; allowed is {self._allowed}")
        return value

    def _fits(self, value: str) -> bool:
        return bool(value) if self._pattern is None else self._pattern.fullmatch(value) is not None


class Amount(StrictText):
    """An exact amount of money in one unit, as text; never rounded, never a number."""

    def __init__(self, unit: AmountUnit) -> None:
        allowed, pattern = _AMOUNTS[unit]
        super().__init__(allowed=allowed, pattern=pattern)


class OrderNumber(StrictText):
    """A merchant's order number. A JSON number is taken as its text."""

    def __init__(self) -> None:
        super().__init__(allowed=f"1 to {MAX_ORDER_NO_CHARACTERS} printable characters")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        return super()._deserialize(value.text if isinstance(value, NumberToken) else value, attr, data, **kwargs)

    def _fits(self, value: str) -> bool:
        return is_order_no(value)


class LenientText(fields.Field[str]):
    """Whatever the gateway sends, as text: "" for null and the empty list or object, JSON text for what is no string.

    A value longer than expected is kept and warned of. What no database or encoding can hold becomes U+FFFD.
    """

    def __init__(self, *, expected_characters: int, required: bool = False, needed: str = "a string") -> None:
        """`needed` says in words what a required one is."""
        super().__init__(
            required=required,
            allow_none=True,
            load_default=missing if required else "",
            error_messages={"required": f"missing; needed is {needed}"},
        )
        self._expected_characters = expected_characters

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """As every field's, but null goes the way of any other value instead of past it; there are no validators."""
        if value is missing:
            return super().deserialize(value, attr, data, **kwargs)
        text = to_text(value)
        if len(text) > self._expected_characters:
            _log.warning(
                "gateway_value_too_long", field=attr, characters=len(text), expected_most=self._expected_characters
            )
        return text


class WrappedText(fields.Field[str | None]):
    """One string that the document puts into an object of its own, e.g. `biz_data.protocol_no`.

    The object may be the one item of a list. Anything else is None; None is sent as `[]`, as PHP sends an array without
    entries.
    """

    def __init__(self, inner: str, *, data_key: str, required: bool) -> None:
        super().__init__(
            required=required,
            allow_none=True,
            data_key=data_key,
            load_default=missing if required else None,
            error_messages={"required": f"missing; needed is an object, with {inner} where there is one"},
        )
        self._inner = inner

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | None:
        found = unwrapped(value)
        return (to_text(found.get(self._inner)) or None) if isinstance(found, dict) else None

    def _serialize(self, value: str | None, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, str] | list[str]:
        return [] if value is None else {self._inner: value}


class StrictWrappedText(WrappedText):
    """A `WrappedText` of ours: an object, or the empty list for none, with a string in it if anything."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | None:
        if not isinstance(value, dict) and value != []:
            raise ValidationError(f"{_kind(value)}; allowed is an object, or [] for an empty one")
        inner = value.get(self._inner) if isinstance(value, dict) else None
        if inner is not None and (not isinstance(inner, str) or not inner):
            found = "empty" if inner == "" else _kind(inner)
            raise ValidationError({self._inner: [f"{found}; allowed is a string that is not empty"]})
        return inner


def unwrapped(value: Any) -> Any:
    """The one item of a list of one, else the value: the document calls some objects an array, and some send one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def to_text(value: Any) -> str:
    """A JSON value as text that can be stored and written anywhere."""
    if isinstance(value, str):
        text = value
    elif value is None or value in ([], {}):
        return ""
    elif type(value) is int:
        text = str(value)
    else:
        text = UNICODE.write(value)
    return _NOT_STORABLE.sub("\ufffd", text)


def _kind(value: object) -> str:
    kinds = {str: "a string", bytes: "bytes", bool: "true or false", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")
