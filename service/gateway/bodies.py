"""A callback's body, read in every way in which gateways are known to wrap one.

The readings are a fixed list, and each takes the whole body: no field is read in another way than the next, and nothing
is unwrapped twice. Which of them was meant, the sign decides (`signature.py`).
"""

import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial

from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.strict_json import MAX_VALUES, JsonValue, RawObject, find_object_end, read_object, read_value


class BodyKind(StrEnum):
    """How a callback was encoded, in the order in which the readings are tried."""

    JSON = "json"
    #: application/x-www-form-urlencoded, in which a `+` is a blank.
    FORM = "form"
    #: The same by a sender that left `+` as it was.
    FORM_WITH_PLUS = "form-with-plus"
    #: multipart/form-data, fields only.
    MULTIPART = "multipart"
    #: The only key or the only value of a form is the JSON.
    JSON_IN_FORM = "json-in-form"
    #: A JSON string that holds the JSON.
    JSON_IN_JSON = "json-in-json"
    #: A JSON list that holds the one object.
    JSON_LIST = "json-list"


@dataclass(frozen=True, slots=True)
class CallbackBody:
    """What a body holds in one reading."""

    kind: BodyKind
    values: Mapping[str, JsonValue]
    #: The tokens as sent; None for fields of a form, which has none.
    raw: RawObject | None


@dataclass(slots=True)
class Readings:
    """Every reading of a body that makes sense of it, and why others make none."""

    bodies: list[CallbackBody]
    #: By the reading that gave it.
    refusals: list[tuple[BodyKind, CallbackRefused]]


#: How compressed data begins, with its name.
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x78\x01": "zlib (deflate)",
    b"\x78\x9c": "zlib (deflate)",
    b"\x78\xda": "zlib (deflate)",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"{\0", b"\0{")
_SPACE = " \t\r\n"
_JSON_BEGINS = re.compile(r"\s*(?:\{|%7B)", re.IGNORECASE)
# RFC 2046, 5.1.1: 1 to 70 characters.
_BOUNDARY = re.compile(
    r"""multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.I | re.S
)
_NAME = re.compile(r""";\s*name=(?:"((?:[^"\\\r\n]|\\.)*+)"|([^\s;"]++))""", re.I)
_FILE = re.compile(r";\s*filename\*?=", re.I)
_ESCAPED = re.compile(r"\\(.)")
# What has to be undone before the value is what was meant.
_ENCODED = re.compile(r"^content-transfer-encoding:[ \t]*+(?!(?:7bit|8bit|binary)[ \t]*$)", re.I | re.M)
_DISPOSITION = re.compile(r"^content-disposition:[ \t]*+form-data[ \t]*+(;.*)$", re.I | re.M)
_ESCAPE = re.compile(rb"%([0-9a-fA-F]{2})")
_HEX = "0123456789abcdefABCDEF"
_BYTES = {(high + low).encode(): bytes.fromhex(high + low) for high in _HEX for low in _HEX}


def read_body(body: bytes, content_type: str | None) -> Readings:
    """Read raw body bytes in every way that fits them.

    The body itself decides: gateways send JSON under form headers and the other way round. Of the header, only the
    boundary of multipart/form-data is needed. Raises `CallbackRefused` for what is no text or resembles no callback.
    """
    text = _decode(body).strip(_SPACE)
    readings = Readings([], [])
    for kind, read in _attempts(text, content_type):
        try:
            readings.bodies.append(read())
        except CallbackRefused as refusal:
            readings.refusals.append((kind, refusal))
    if not readings.bodies and not readings.refusals:
        raise CallbackRefused(Refusal.NOT_AN_OBJECT, f"the body is neither a JSON object nor a form: {_describe(text)}")
    return readings


def _attempts(text: str, content_type: str | None) -> Iterator[tuple[BodyKind, Callable[[], CallbackBody]]]:
    # The first character tells JSON from forms: whatever encodes a form escapes these characters in its names. So a
    # body that is a JSON object without a "=", as nearly all are, has no other reading, and pays for none.
    if text.startswith("{"):
        yield BodyKind.JSON, partial(_from_json, BodyKind.JSON, text)
        if "=" not in text:
            return
    decode = cache(decode_percent)  # The readings of a form share what it costs.
    match text[:1]:
        case "{":
            pass
        case '"':
            yield BodyKind.JSON_IN_JSON, partial(_from_json_string, text)
        case "[":
            yield BodyKind.JSON_LIST, partial(_from_json_list, text)
        case _ if "=" in text or _says_form(content_type):
            yield BodyKind.FORM, partial(_from_form, BodyKind.FORM, text, decode)
            if "+" in text:
                yield BodyKind.FORM_WITH_PLUS, partial(_from_form, BodyKind.FORM_WITH_PLUS, text, decode)
    boundary = find_boundary(content_type)
    if boundary is not None and (text.startswith("--") or f"--{boundary}" in text):
        yield BodyKind.MULTIPART, partial(_from_multipart, text, boundary)
    if "=" in text or text[:1] == "%":
        for json_text in dict.fromkeys(_json_in_form(text, decode)):
            yield BodyKind.JSON_IN_FORM, partial(_from_json, BodyKind.JSON_IN_FORM, json_text)


def _decode(body: bytes) -> str:
    if body.startswith(tuple(_COMPRESSED)):
        name = next(name for beginning, name in _COMPRESSED.items() if body.startswith(beginning))
        raise CallbackRefused(
            Refusal.COMPRESSED, f"the body is compressed with {name}; the gateway has to be told to send it as it is"
        )
    if body.startswith(_UTF16):
        raise CallbackRefused(Refusal.BAD_UTF8, "the body is UTF-16; the gateway has to be told to send UTF-8")
    try:
        return body.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8("the body", error) from error


def _not_utf8(what: str, error: UnicodeDecodeError) -> CallbackRefused:
    try:
        error.object.decode("gb18030")
    except UnicodeDecodeError:
        mend = "the gateway has to be told to send UTF-8"
    else:
        mend = "it can be read as GBK: the gateway has to be told to send UTF-8"
    return CallbackRefused(Refusal.BAD_UTF8, f"{what} is not UTF-8 ({error.reason} at byte {error.start}); {mend}")


def _says_form(content_type: str | None) -> bool:
    return content_type is not None and "form" in content_type.partition(";")[0].lower()


def _describe(text: str) -> str:
    if not text:
        return "it is empty"
    if text.startswith("<"):
        return "it looks like XML or HTML"
    return f"it begins with neither '{{' nor a field's name and '=', and has {len(text)} characters"


def _from_json(kind: BodyKind, text: str) -> CallbackBody:
    raw = read_object(text)
    return CallbackBody(kind, raw.values, raw)


def _from_json_string(text: str) -> CallbackBody:
    inner = read_value(text)
    if not isinstance(inner, str):
        raise CallbackRefused(Refusal.NOT_AN_OBJECT, "the body is no JSON object")
    try:
        inner.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CallbackRefused(
            Refusal.BAD_UTF8, "the JSON in the body's string holds half of a character (a lone surrogate)"
        ) from error
    return _from_json(BodyKind.JSON_IN_JSON, _refuse_second_wrapping(inner))


def _from_json_list(text: str) -> CallbackBody:
    items = read_value(text)
    if not isinstance(items, list) or len(items) != 1:
        raise CallbackRefused(
            Refusal.NOT_AN_OBJECT, "the body is a list; taken is a list with exactly one object in it"
        )
    return _from_json(BodyKind.JSON_LIST, _refuse_second_wrapping(text[1:-1]))


def _refuse_second_wrapping(text: str) -> str:
    inner = text.strip(_SPACE)
    if inner[:1] in ('"', "["):
        raise CallbackRefused(
            Refusal.WRAPPED_TWICE,
            "the JSON object is in a string or a list that is in another one; taken is one of them",
        )
    return inner


def _from_multipart(text: str, boundary: str) -> CallbackBody:
    return CallbackBody(BodyKind.MULTIPART, read_multipart(text, boundary), None)


def _from_form(kind: BodyKind, text: str, decode: Callable[[str], str]) -> CallbackBody:
    if text.count("&") >= MAX_VALUES:
        raise CallbackRefused(Refusal.TOO_MANY_VALUES, f"the form holds more than {MAX_VALUES} fields")
    blank = "+" if kind is BodyKind.FORM_WITH_PLUS else " "
    values: dict[str, JsonValue] = {}
    for pair in text.replace("+", blank).split("&") if text else ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise CallbackRefused(
                Refusal.NOT_A_FORM, "the body is neither a JSON object nor a form: a field without '='"
            )
        try:
            name, value = decode(name), decode(value)
        except UnicodeDecodeError as error:
            raise _not_utf8("a percent-encoded value of the form", error) from error
        if name in values:
            raise CallbackRefused(Refusal.DUPLICATE_KEY, "a form field is there twice: which one was signed is unknown")
        values[name] = value
    return CallbackBody(kind, values, None)


def _json_in_form(text: str, decode: Callable[[str], str]) -> Iterator[str]:
    """What may be JSON of a form's only key and of its only value, percent-decoded and, where it is not encoded, as is.

    A sender that does not encode the braces has encoded nothing, so `&`, `=`, `+` and `%` stand for themselves there.
    """
    if text.startswith("{"):
        end = find_object_end(text)
        key, value = (text[:end], text[end + 1 :]) if text[end : end + 1] == "=" else ("", text.partition("=")[2])
    else:
        key, _, value = text.partition("=")
    for part in (key, value):
        if not _JSON_BEGINS.match(part):
            continue
        if part.lstrip(_SPACE).startswith("{"):
            yield part
        if "&" not in text:
            for blank in (" ", "+") if "+" in part else (" ",):
                try:
                    yield decode(part.replace("+", blank))
                except UnicodeDecodeError:
                    # The reading as a form says so.
                    continue


def find_boundary(content_type: str | None) -> str | None:
    """The boundary in a Content-Type header; None where there is none or it is not that of multipart/form-data."""
    match = _BOUNDARY.match(content_type.strip()) if content_type else None
    return match and (match[1] or match[2])


def read_multipart(text: str, boundary: str) -> dict[str, JsonValue]:
    """The fields of a whole body, white space around it left out.

    Raises `CallbackRefused` for files, a field that is there twice, and whatever is not framed as RFC 7578 says: no two
    readers may understand it differently.
    """
    # Each boundary belongs to the line end before it; the first has none.
    before, *parts = f"\r\n{text}".split(f"\r\n--{boundary}")
    if before or len(parts) < 2 or parts.pop() != "--":
        raise _broken("it does not begin and end with the boundary that the Content-Type header names")
    if len(parts) > MAX_VALUES:
        raise CallbackRefused(Refusal.TOO_MANY_VALUES, f"the form holds more than {MAX_VALUES} fields")
    values: dict[str, JsonValue] = {}
    for part in parts:
        name, value = _read_part(part)
        if name in values:
            raise CallbackRefused(Refusal.DUPLICATE_KEY, "a form field is there twice: which one was signed is unknown")
        values[name] = value
    return values


def _read_part(part: str) -> tuple[str, str]:
    headers, end, value = part.partition("\r\n\r\n")
    if not end or not headers.startswith("\r\n"):
        raise _broken("a part has no headers, or its lines do not end in CR LF")
    disposition = _DISPOSITION.findall(headers.replace("\r\n", "\n"))
    names = _NAME.findall(disposition[0]) if len(disposition) == 1 else []
    if len(names) != 1:
        raise _broken("a part does not have exactly one Content-Disposition: form-data with one name")
    if _FILE.search(disposition[0]):
        raise CallbackRefused(Refusal.FILE_IN_FORM, "the multipart form holds a file; a callback has fields only")
    if _ENCODED.search(headers.replace("\r\n", "\n")):
        raise _broken("a part has a Content-Transfer-Encoding; forms have none (RFC 7578, 4.7)")
    quoted, bare = names[0]
    return _ESCAPED.sub(r"\1", quoted) if quoted else bare, value


def _broken(what: str) -> CallbackRefused:
    return CallbackRefused(Refusal.NOT_MULTIPART, f"the body is no multipart form: {what}")


def decode_percent(text: str) -> str:
    """The text with each `%xx` as its byte, all of it UTF-8. A `%` that begins no escape stays as it is.

    Raises `UnicodeDecodeError` for bytes that are not UTF-8. Takes time in proportion to the length of `text`.
    """
    if "%" not in text:
        return text
    # Every second one is an escape's two digits.
    parts = _ESCAPE.split(text.encode())
    parts[1::2] = [_BYTES[digits] for digits in parts[1::2]]
    return b"".join(parts).decode("utf-8")
