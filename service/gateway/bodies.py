"""Reads what the gateway sends: strict JSON, and a callback's body in every form that gateways are known to use.

The JSON reader is stricter than `json.loads`: it refuses duplicate keys, NaN, deep nesting and huge numbers. It keeps
numbers as text and members as tokens, because a sign covers how JSON was written, not what it means. The standard
library's C scanner does the scanning.

The readings of a callback's body are a fixed list. Each reads the whole body in one form, and none unwraps it twice.
The sign decides which reading was meant (`signature.py`).
"""

import codecs
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from json import JSONDecodeError, JSONDecoder
from typing import NamedTuple, NoReturn, TypeAlias, cast

from service.gateway.errors import CallbackRefused, Refusal

#: How deeply objects and lists may be nested, including the top-level object. Documented bodies have 1 or 2 levels.
MAX_DEPTH = 32
#: How many values a body may hold, including nested ones. A documented callback holds 8.
MAX_VALUES = 256
#: The longest number token. 2**128 has 39 digits.
MAX_NUMBER_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class NumberToken:
    """A JSON number as it was written; never turned into an int or a float."""

    text: str


JsonValue: TypeAlias = "str | NumberToken | bool | list[JsonValue] | dict[str, JsonValue] | None"


class RawMember(NamedTuple):
    """One member of the top-level object, byte for byte as sent."""

    #: The key with its quotes and escapes.
    key_token: str
    #: The colon, with the white space around it.
    colon: str
    value_token: str


@dataclass(slots=True)
class RawObject:
    """A top-level object: its decoded values, and its raw members in the same order."""

    values: Mapping[str, JsonValue]
    #: Each member with what follows it: a comma with the white space around it or, after the last member, the closing
    #: brace with the white space before it.
    pieces: Sequence[tuple[str, str]]
    #: The opening brace with the white space after it.
    opening: str
    #: The size of the whole text in UTF-8.
    size_bytes: int

    @property
    def members(self) -> list[RawMember]:
        """The members, each split into its tokens."""
        cut = (_KEY_AND_COLON.match(member) for member, _ in self.pieces)
        return [RawMember(key[1], key[2], key.string[key.end() :]) for key in cut if key]

    @property
    def comma(self) -> str:
        """The first comma with the white space around it; "," if there is none."""
        return self.pieces[0][1] if len(self.pieces) > 1 else ","

    @property
    def closing(self) -> str:
        """The closing brace with the white space before it."""
        return self.pieces[-1][1] if self.pieces else "}"


# These patterns are only matched against valid JSON. They split it and check nothing.
_WHITE_SPACE = " \t\n\r"
_SPACE = rf"[{_WHITE_SPACE}]*+"
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OPENING = re.compile(rf"{_SPACE}(\{{{_SPACE})")
_SEPARATOR = rf"({_SPACE}(?:,{_SPACE}|\}}))"
_FLAT_MEMBER = re.compile(rf"""({_STRING}{_SPACE}:{_SPACE}(?:{_STRING}|[^"\s,\[{{\]}}]++)){_SEPARATOR}""")
_KEY_AND_COLON = re.compile(rf"({_STRING})({_SPACE}:{_SPACE})")
_AFTER_VALUE = re.compile(_SEPARATOR)
# The closing quote is optional so that an unterminated string is scanned once, and not from every quote in it.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)


def read_object(text: str) -> RawObject:
    """Read one JSON object that is the whole of `text`, in linear time whatever it holds.

    Raises `CallbackRefused`, with the position in characters from 0, for anything else and for JSON that two readers
    could understand differently.
    """
    opening = _OPENING.match(text)
    if opening is None:
        raise CallbackRefused(Refusal.NOT_AN_OBJECT, "the body is not a JSON object: it does not begin with '{'")
    values = cast("dict[str, JsonValue]", read_value(text))
    # With only the object's own bracket, no value is nested.
    flat = text.count("[") + text.count("{") == 1
    pieces = _FLAT_MEMBER.findall(text, opening.end()) if flat else list(_cut_nested(text, opening.end()))
    return RawObject(values, pieces, opening[1], len(text.encode("utf-8", "surrogatepass")))


def _cut_nested(text: str, start: int) -> Iterator[tuple[str, str]]:
    while key := _KEY_AND_COLON.match(text, start):
        _, end = _DECODER.raw_decode(text, key.end())
        separator = cast("re.Match[str]", _AFTER_VALUE.match(text, end))
        yield text[start:end], separator[1]
        start = separator.end()


def read_value(text: str) -> JsonValue:
    """The one JSON value that is the whole of `text`; raises `CallbackRefused` as `read_object` does."""
    _check_bounds(text)
    try:
        return cast("JsonValue", _DECODER.decode(text))
    except JSONDecodeError as error:
        raise CallbackRefused(Refusal.NOT_JSON, f"{error.msg} at character {error.pos}") from error


def walk(value: JsonValue) -> Iterator[JsonValue]:
    """The value and everything in it, including the keys of objects."""
    yield value
    match value:
        case list():
            for item in value:
                yield from walk(item)
        case dict():
            for name, item in value.items():
                yield name
                yield from walk(item)


def find_object_end(text: str) -> int:
    """The end of the JSON object at the beginning of `text`; 0 if there is none."""
    try:
        _check_bounds(text)
        value, end = _DECODER.raw_decode(text)
    except (JSONDecodeError, CallbackRefused):
        return 0
    return end if isinstance(value, dict) else 0


def _check_bounds(text: str) -> None:
    # Two counts in C suffice for every ordinary body. The brackets and commas may be inside strings, so a body that
    # seems over a limit is scanned.
    if text.count("[") + text.count("{") <= MAX_DEPTH and text.count(",") < MAX_VALUES:
        return
    depth = values = 0
    for mark in _structure(text):
        if mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
        if mark in "[{,":
            values += 1
        if depth > MAX_DEPTH:
            raise CallbackRefused(Refusal.TOO_DEEP, f"objects and lists are nested deeper than {MAX_DEPTH}")
        if values > MAX_VALUES:
            raise CallbackRefused(Refusal.TOO_MANY_VALUES, f"the body holds more than {MAX_VALUES} values")


def _structure(text: str) -> Iterator[str]:
    return (match.group() for match in _STRUCTURE.finditer(text) if text[match.start()] != '"')


def _read_pairs(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise CallbackRefused(
            Refusal.DUPLICATE_KEY, "an object has the same key twice, so it is unclear which one was signed"
        )
    return values


def _read_integer(text: str) -> NumberToken:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise CallbackRefused(
            Refusal.HUGE_NUMBER, f"a number of {len(text)} characters; at most {MAX_NUMBER_CHARACTERS} are read"
        )
    return NumberToken(text)


def _read_fraction(text: str) -> NumberToken:
    token = _read_integer(text)
    if math.isinf(float(text)):
        raise CallbackRefused(Refusal.HUGE_NUMBER, "a number is larger than any float; at most 1.7e308 is read")
    return token


def _refuse_constant(text: str) -> NoReturn:
    raise CallbackRefused(Refusal.NAN, f"{text} is not a JSON number")


_DECODER = JSONDecoder(
    object_pairs_hook=_read_pairs,
    parse_int=_read_integer,
    parse_float=_read_fraction,
    parse_constant=_refuse_constant,
)


class BodyKind(StrEnum):
    """How a callback's body is encoded, in the order in which the readings are tried."""

    JSON = "json"
    #: application/x-www-form-urlencoded, in which a `+` is a space.
    FORM = "form"
    #: The same from a sender that did not escape `+`.
    FORM_WITH_PLUS = "form-with-plus"
    #: multipart/form-data without files.
    MULTIPART = "multipart"
    #: A form whose only key or only value is the JSON.
    JSON_IN_FORM = "json-in-form"
    #: A JSON string that holds the JSON.
    JSON_IN_JSON = "json-in-json"
    #: A JSON list of one object.
    JSON_LIST = "json-list"


@dataclass(frozen=True, slots=True)
class CallbackBody:
    """The fields of a body in one reading."""

    kind: BodyKind
    values: Mapping[str, JsonValue]
    #: The JSON tokens as sent; None for a form.
    raw: RawObject | None


@dataclass(slots=True)
class Readings:
    """Every reading that succeeded, and the refusals of those that failed."""

    bodies: list[CallbackBody]
    refusals: list[tuple[BodyKind, CallbackRefused]]


#: Compression formats by their first bytes.
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x78\x01": "zlib (deflate)",
    b"\x78\x5e": "zlib (deflate)",
    b"\x78\x9c": "zlib (deflate)",
    b"\x78\xda": "zlib (deflate)",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
}
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_JSON_BEGINS = re.compile(r"""\s*(?:[{["]|%7B|%5B|%22)""", re.IGNORECASE)
# RFC 2046, 5.1.1: 1 to 70 characters.
_BOUNDARY = re.compile(
    r"""multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.I | re.S
)
_NAME = re.compile(r""";\s*name=(?:"((?:[^"\\\r\n]|\\.)*+)"|([^\s;"]++))""", re.I)
_FILE = re.compile(r";\s*filename\*?=", re.I)
_ESCAPED = re.compile(r"\\(.)")
# A transfer encoding that changes the value.
_ENCODED = re.compile(r"^content-transfer-encoding:[ \t]*+(?!(?:7bit|8bit|binary)[ \t]*$)", re.I | re.M)
_DISPOSITION = re.compile(r"^content-disposition:[ \t]*+form-data[ \t]*+(;.*)$", re.I | re.M)
_ESCAPE = re.compile(rb"%([0-9a-fA-F]{2})")
_HEX = "0123456789abcdefABCDEF"
_BYTES = {(high + low).encode(): bytes.fromhex(high + low) for high in _HEX for low in _HEX}


def read_body(body: bytes, content_type: str | None) -> Readings:
    """Read raw body bytes in every form that they may have.

    The form is detected from the body, because gateways send JSON with form headers and forms with JSON headers. Only
    the boundary of multipart/form-data is taken from the header. Raises `CallbackRefused` if the body is not text or
    has none of the forms.
    """
    text = _decode(body).strip(_WHITE_SPACE)
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
    # The first character distinguishes JSON from forms, because every form encoder escapes it in names. Nearly all
    # bodies are JSON objects without a "=": they have no other reading.
    if text.startswith("{"):
        yield BodyKind.JSON, partial(_from_json, BodyKind.JSON, text)
        if "=" not in text:
            return
    decode = cache(_decode_percent)  # The readings of a form share its results.
    match text[:1]:
        case "{":
            pass
        case '"':
            yield BodyKind.JSON_IN_JSON, partial(_from_json_string, text)
        case "[":
            yield BodyKind.JSON_LIST, partial(_from_json_list, text)
        case _ if "=" in text or _names_form(content_type):
            yield BodyKind.FORM, partial(_from_form, BodyKind.FORM, text, decode)
            if "+" in text:
                yield BodyKind.FORM_WITH_PLUS, partial(_from_form, BodyKind.FORM_WITH_PLUS, text, decode)
    boundary = _find_boundary(content_type)
    if boundary is not None and (text.startswith("--") or f"--{boundary}" in text):
        yield BodyKind.MULTIPART, partial(_from_multipart, text, boundary)
    if boundary is None and text.startswith("--") and _DISPOSITION.search(text.replace("\r\n", "\n")):
        yield BodyKind.MULTIPART, _refuse_missing_boundary
    if "=" in text or text[:1] == "%":
        for json_text in dict.fromkeys(_json_in_form(text, decode)):
            yield BodyKind.JSON_IN_FORM, partial(_from_json_in_form, json_text)


def _decode(body: bytes) -> str:
    if body.startswith(tuple(_COMPRESSED)):
        name = next(name for beginning, name in _COMPRESSED.items() if body.startswith(beginning))
        raise CallbackRefused(
            Refusal.COMPRESSED, f"the body is compressed with {name}; ask the gateway to send it uncompressed"
        )
    if body.startswith(_UTF16) or b"\0" in body[:2]:
        raise CallbackRefused(Refusal.BAD_UTF8, "the body is UTF-16 or UTF-32; ask the gateway to send UTF-8")
    try:
        return body.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8("the body", error) from error


def _not_utf8(what: str, error: UnicodeDecodeError) -> CallbackRefused:
    try:
        error.object.decode("gb18030")
    except UnicodeDecodeError:
        remedy = "ask the gateway to send UTF-8"
    else:
        remedy = "it can be read as GBK: ask the gateway to send UTF-8"
    return CallbackRefused(Refusal.BAD_UTF8, f"{what} is not UTF-8 ({error.reason} at byte {error.start}); {remedy}")


def _names_form(content_type: str | None) -> bool:
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


def _from_json_in_form(text: str) -> CallbackBody:
    return _from_json(BodyKind.JSON_IN_FORM, _refuse_second_wrapping(text))


def _from_json_string(text: str) -> CallbackBody:
    inner = read_value(text)
    if not isinstance(inner, str):
        raise CallbackRefused(Refusal.NOT_AN_OBJECT, "the body is not a JSON object")
    try:
        inner.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CallbackRefused(
            Refusal.BAD_UTF8, "the JSON in the body's string holds a lone surrogate (half of a character)"
        ) from error
    return _from_json(BodyKind.JSON_IN_JSON, _refuse_second_wrapping(inner))


def _from_json_list(text: str) -> CallbackBody:
    items = read_value(text)
    if not isinstance(items, list) or len(items) != 1:
        raise CallbackRefused(
            Refusal.NOT_AN_OBJECT, "the body is a list; only a list with exactly one object in it is accepted"
        )
    return _from_json(BodyKind.JSON_LIST, _refuse_second_wrapping(text[1:-1]))


def _refuse_second_wrapping(text: str) -> str:
    inner = text.strip(_WHITE_SPACE)
    if inner[:1] in ('"', "["):
        raise _wrapped_twice()
    return inner


def _wrapped_twice() -> CallbackRefused:
    return CallbackRefused(
        Refusal.WRAPPED_TWICE,
        "the JSON object is wrapped in a string, a list or a form twice; only one wrapping is accepted",
    )


def _from_multipart(text: str, boundary: str) -> CallbackBody:
    values = _read_multipart(text, boundary)
    if len(values) == 1 and all(_JSON_BEGINS.match(value) for value in values.values()):
        raise _wrapped_twice()
    return CallbackBody(BodyKind.MULTIPART, values, None)


def _refuse_missing_boundary() -> CallbackBody:
    raise _not_multipart("its Content-Type header names no boundary")


def _from_form(kind: BodyKind, text: str, decode: Callable[[str], str]) -> CallbackBody:
    if text.count("&") >= MAX_VALUES:
        raise CallbackRefused(Refusal.TOO_MANY_VALUES, f"the form holds more than {MAX_VALUES} fields")
    plus_means = "+" if kind is BodyKind.FORM_WITH_PLUS else " "
    values: dict[str, JsonValue] = {}
    # Senders that write a form in a loop leave a "&" at its end.
    for pair in filter(None, text.replace("+", plus_means).split("&")):
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
            raise _duplicate_field()
        values[name] = value
    return CallbackBody(kind, values, None)


def _json_in_form(text: str, decode: Callable[[str], str]) -> Iterator[str]:
    """The texts in a form's only key and only value that may be JSON: percent-decoded and, if not encoded, as sent.

    A sender that does not encode the braces encodes nothing: `&`, `=`, `+` and `%` then stand for themselves.
    """
    text = text.strip("&")
    if text.startswith("{"):
        end = find_object_end(text)
        key, value = (text[:end], text[end + 1 :]) if text[end : end + 1] == "=" else ("", text.partition("=")[2])
    else:
        key, _, value = text.partition("=")
    for part in (key, value):
        if not _JSON_BEGINS.match(part):
            continue
        if part.lstrip(_WHITE_SPACE).startswith("{"):
            yield part
        if "&" not in text:
            for plus_means in (" ", "+") if "+" in part else (" ",):
                try:
                    yield decode(part.replace("+", plus_means))
                except UnicodeDecodeError:
                    # The reading as a form reports it.
                    continue


def _find_boundary(content_type: str | None) -> str | None:
    match = _BOUNDARY.match(content_type.strip()) if content_type else None
    return match and (match[1] or match[2])


def _read_multipart(text: str, boundary: str) -> dict[str, str]:
    """The fields of a multipart/form-data body (RFC 7578), without white space around it.

    Refuses files, repeated fields, and any framing that two readers might understand differently.
    """
    # A boundary includes the line end before it. The first boundary has none, so it is given one.
    before, *parts = f"\r\n{text}".split(f"\r\n--{boundary}")
    if before or len(parts) < 2 or parts.pop() != "--":
        raise _not_multipart("it does not begin and end with the boundary that the Content-Type header names")
    if len(parts) > MAX_VALUES:
        raise CallbackRefused(Refusal.TOO_MANY_VALUES, f"the form holds more than {MAX_VALUES} fields")
    values: dict[str, str] = {}
    for part in parts:
        name, value = _read_part(part)
        if name in values:
            raise _duplicate_field()
        values[name] = value
    return values


def _read_part(part: str) -> tuple[str, str]:
    headers, end, value = part.partition("\r\n\r\n")
    if not end or not headers.startswith("\r\n"):
        raise _not_multipart("a part has no headers, or its lines do not end in CR LF")
    disposition = _DISPOSITION.findall(headers.replace("\r\n", "\n"))
    names = _NAME.findall(disposition[0]) if len(disposition) == 1 else []
    if len(names) != 1:
        raise _not_multipart("a part does not have exactly one Content-Disposition: form-data with one name")
    if _FILE.search(disposition[0]):
        raise CallbackRefused(Refusal.FILE_IN_FORM, "the multipart form holds a file; a callback has fields only")
    if _ENCODED.search(headers.replace("\r\n", "\n")):
        raise _not_multipart("a part has a Content-Transfer-Encoding; forms have none (RFC 7578, 4.7)")
    quoted, bare = names[0]
    return _ESCAPED.sub(r"\1", quoted) if quoted else bare, value


def _not_multipart(what: str) -> CallbackRefused:
    return CallbackRefused(Refusal.NOT_MULTIPART, f"the body is not a multipart form: {what}")


def _duplicate_field() -> CallbackRefused:
    return CallbackRefused(Refusal.DUPLICATE_KEY, "a form field is there twice: which one was signed is unknown")


def _decode_percent(text: str) -> str:
    """Percent-decode UTF-8, in linear time, which urllib does not guarantee. A `%` that begins no escape is kept.

    Raises `UnicodeDecodeError` for bytes that are not UTF-8.
    """
    if "%" not in text:
        return text
    # Every second part is the two digits of an escape.
    parts = _ESCAPE.split(text.encode())
    parts[1::2] = [_BYTES[digits] for digits in parts[1::2]]
    return b"".join(parts).decode("utf-8")
