"""The strict JSON reader: one object, as values and as the raw tokens that its writer sent.

Stricter than `json.loads` (duplicate keys, NaN, depth and huge numbers are refused) and closer to the bytes: numbers
stay text, and every member keeps the tokens that it was sent in, because a sign covers how JSON was written, not
what it means. The scanning itself is the standard library's C scanner.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from typing import NoReturn, TypeAlias

from service.gateway.errors import CallbackRefused, Refusal

#: How deep objects and lists may be nested, the top-level object included. Documented bodies are 1 or 2 deep.
MAX_DEPTH = 32
#: How many values a body may hold, nested ones included. A documented callback holds 8.
MAX_VALUES = 256
#: The longest number token. 2**128 has 39 digits.
MAX_NUMBER_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class NumberToken:
    """A JSON number as it was written; never turned into an int or a float."""

    text: str


JsonValue: TypeAlias = "str | NumberToken | bool | list[JsonValue] | dict[str, JsonValue] | None"


@dataclass(frozen=True, slots=True)
class RawMember:
    """One member of the top-level object, byte for byte as sent."""

    #: The key, decoded.
    name: str
    #: The key with its quotes and escapes.
    key_token: str
    #: The colon, with the white space around it.
    colon: str
    value_token: str


@dataclass(frozen=True, slots=True)
class RawObject:
    """A top-level object: its decoded values, its raw members in the order sent, and the white space between them."""

    values: Mapping[str, JsonValue]
    members: tuple[RawMember, ...]
    #: The opening brace with the white space after it.
    opening: str
    #: The first comma with the white space around it; "," where there is none.
    comma: str
    #: The closing brace with the white space before it.
    closing: str


_SPACE = re.compile(r"[ \t\n\r]*+")
# The closing quote is optional so that an unterminated string is scanned once and not again from every quote in it.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)


def read_object(text: str) -> RawObject:
    """Read one JSON object that is the whole of `text`.

    Raises `CallbackRefused`, with the place in characters from 0, for anything else and for whatever two readers could
    understand differently. Takes time in proportion to the length of `text`, whatever it holds.
    """
    _check_bounds(text)
    values: dict[str, JsonValue] = {}
    members: list[RawMember] = []
    comma = ","
    start = _skip_space(text, 0)
    if text[start : start + 1] != "{":
        raise CallbackRefused(Refusal.NOT_AN_OBJECT, f"the body is no JSON object: no '{{' at character {start}")
    place = _skip_space(text, start + 1)
    opening = text[start:place]
    before_close = place
    while text[place : place + 1] != "}" or members:
        member, value, place = _read_member(text, place)
        if member.name in values:
            raise _duplicate(place)
        values[member.name] = value
        members.append(member)
        before_close = place
        place = _skip_space(text, place)
        if text[place : place + 1] == "}":
            break
        if text[place : place + 1] != ",":
            raise CallbackRefused(Refusal.NOT_JSON, f"expected ',' or '}}' at character {place}")
        place = _skip_space(text, place + 1)
        if len(members) == 1:
            comma = text[before_close:place]
    end = _skip_space(text, place + 1)
    if end != len(text):
        raise CallbackRefused(Refusal.NOT_JSON, f"something follows the object at character {end}")
    return RawObject(values, tuple(members), opening, comma, text[before_close : place + 1])


def _read_member(text: str, start: int) -> tuple[RawMember, JsonValue, int]:
    name, key_end = _scan(text, start)
    if not isinstance(name, str):
        raise CallbackRefused(Refusal.NOT_JSON, f"expected a key in double quotes at character {start}")
    colon = _skip_space(text, key_end)
    if text[colon : colon + 1] != ":":
        raise CallbackRefused(Refusal.NOT_JSON, f"expected ':' at character {colon}")
    value_start = _skip_space(text, colon + 1)
    value, end = _scan(text, value_start)
    member = RawMember(name, text[start:key_end], text[key_end:value_start], text[value_start:end])
    return member, value, end


def _scan(text: str, start: int) -> tuple[JsonValue, int]:
    try:
        value: JsonValue
        value, end = _DECODER.raw_decode(text, start)
    except JSONDecodeError as error:
        raise CallbackRefused(Refusal.NOT_JSON, f"{error.msg} at character {error.pos}") from error
    return value, end


def _skip_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _check_bounds(text: str) -> None:
    # Two counts in C settle every ordinary body; only one that might be over a limit is looked at more closely,
    # since the brackets and commas counted may stand inside strings.
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
        raise _duplicate(None)
    return values


def _duplicate(place: int | None) -> CallbackRefused:
    where = "in a nested object" if place is None else f"in the member that ends at character {place}"
    return CallbackRefused(Refusal.DUPLICATE_KEY, f"a key is there twice, {where}: which one was signed is unknown")


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
    raise CallbackRefused(Refusal.NAN, f"{text} is no JSON number")


_DECODER = JSONDecoder(
    object_pairs_hook=_read_pairs,
    parse_int=_read_integer,
    parse_float=_read_fraction,
    parse_constant=_refuse_constant,
)
