"""A callback's body, read as what it is: JSON or a form."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl

from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.tokens import MAX_VALUES, JsonValue, RawObject, read_object


class BodyKind(StrEnum):
    """How a callback was encoded."""

    JSON = "json"
    FORM = "form"


@dataclass(frozen=True, slots=True)
class CallbackBody:
    """What a body holds."""

    values: Mapping[str, JsonValue]
    #: The tokens as sent; None for a form, which has none.
    raw: RawObject | None

    @property
    def kind(self) -> BodyKind:
        """How it was encoded."""
        return BodyKind.FORM if self.raw is None else BodyKind.JSON


def read_body(body: bytes, content_type: str | None) -> CallbackBody:
    """Read raw body bytes as a JSON object or a form.

    The body itself decides: gateways send JSON under form headers and the other way round. The header is asked only
    about a body that looks like neither, so as to say what is wrong with it. Raises `CallbackRefused`.
    """
    text = _decode(body.removeprefix(codecs.BOM_UTF8), "the body").strip(" \t\r\n")
    looks_like_form = "=" in text and text[0] not in '{["'
    if looks_like_form or (text[:1] != "{" and _says_form(content_type)):
        return CallbackBody(_read_form(text), None)
    raw = read_object(text)
    return CallbackBody(raw.values, raw)


def _says_form(content_type: str | None) -> bool:
    return content_type is not None and "form" in content_type.partition(";")[0].lower()


def _decode(body: bytes, what: str) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(what, error) from error


def _not_utf8(what: str, error: UnicodeDecodeError) -> CallbackRefused:
    return CallbackRefused(
        Refusal.BAD_UTF8,
        f"{what} is not UTF-8 ({error.reason} at byte {error.start}); "
        "a gateway that writes GBK has to be told to send UTF-8",
    )


def _read_form(text: str) -> dict[str, JsonValue]:
    if text.count("&") >= MAX_VALUES:
        raise CallbackRefused(Refusal.TOO_MANY_VALUES, f"the form holds more than {MAX_VALUES} fields")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except UnicodeDecodeError as error:
        raise _not_utf8("a percent-encoded value of the form", error) from error
    except ValueError:
        # Without its cause, which quotes the field that cannot be read.
        raise CallbackRefused(
            Refusal.NOT_A_FORM, "the body is neither a JSON object nor a form: a field without '='"
        ) from None
    values: dict[str, JsonValue] = dict(pairs)
    if len(values) != len(pairs):
        raise CallbackRefused(Refusal.DUPLICATE_KEY, "a form field is there twice: which one was signed is unknown")
    return values
