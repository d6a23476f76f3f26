"""The strict JSON reader: reads one object as values and as the raw tokens that were sent.

It is stricter than `json.loads`: it refuses duplicate keys, NaN, deep nesting and huge numbers. It keeps numbers as
text and members as tokens, because a sign covers how JSON was written, not what it means. The standard library's
C scanner does the scanning.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_SPACE = r"[ \t\n\r]*+"
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
            Refusal.DUPLICATE_KEY, "a key is there twice in one object: which one was signed is unknown"
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
    raise CallbackRefused(Refusal.NAN, f"{text} is no JSON number")


_DECODER = JSONDecoder(
    object_pairs_hook=_read_pairs,
    parse_int=_read_integer,
    parse_float=_read_fraction,
    parse_constant=_refuse_constant,
)
