"""What it is in a callback's fields that the known dialects write in different ways.

Found by writing each field, and each kind of character in it, in every dialect: no list of traps to keep up to date.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.gateway.canonical import DIALECTS
from service.gateway.json_writers import JsonWriter
from service.gateway.key_orders import KeyOrder
from service.gateway.strict_json import JsonValue, NumberToken

_WRITERS: Sequence[JsonWriter] = tuple({dialect.writer.name: dialect.writer for dialect in DIALECTS}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trait:
    """One reason for two dialects to write the fields differently."""

    #: Name of the field; "" where it is about all of them.
    field: str
    #: What is there, in plain words; quotes no values.
    what: str
    #: Each way of writing it, with the dialects that write it so.
    spellings: Mapping[str, Sequence[str]]


def find_traits(fields: Mapping[str, JsonValue]) -> Sequence[Trait]:
    """Every trait of a callback's fields, its sign left out."""
    return [*_order_traits(fields), *(trait for name, value in fields.items() for trait in _field_traits(name, value))]


def _order_traits(fields: Mapping[str, JsonValue]) -> Iterator[Trait]:
    orders: dict[str, list[str]] = defaultdict(list)
    for order in KeyOrder:
        if order is not KeyOrder.AS_SENT:
            orders[", ".join(order.sort(fields))].append(order.value)
    if len(orders) > 1:
        yield Trait(field="", what="keys that languages sort differently", spellings=dict(orders))


def _field_traits(name: str, value: JsonValue) -> Iterator[Trait]:
    yield from _type_traits(name, value)
    seen = set()
    for text in (name, *_texts(value)):
        for character in text:
            spellings = _spell(character)
            what = _describe(character)
            if len(spellings) > 1 and what not in seen:
                seen.add(what)
                yield Trait(field=name, what=what, spellings=_without_letters(character, spellings))


def _type_traits(name: str, value: JsonValue) -> Iterator[Trait]:
    if value is None:
        drop = [writer.name for writer in _WRITERS if writer.drops_nulls]
        keep = [writer.name for writer in _WRITERS if not writer.drops_nulls]
        yield Trait(field=name, what="null", spellings={"null": keep, "left out": drop})
    numbers = [number for number in _numbers(value) if not number.text.isdigit()]
    if numbers:
        what = "a number with a sign, a fraction or an exponent: languages write it in forms that are not imitated"
        yield Trait(field=name, what=what, spellings={})
    elif next(_numbers(value), None):
        yield Trait(field=name, what="a number: it may have been signed as a string, in quotes", spellings={})
    if value in ([], {}):
        what = "an empty list or object: PHP has but one, and writes []"
        yield Trait(field=name, what=what, spellings={})
    elif isinstance(value, dict | list):
        what = "an object or list: some languages sort the keys within it, others do not"
        yield Trait(field=name, what=what, spellings={})


def _texts(value: JsonValue) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            for name, item in value.items():
                yield name
                yield from _texts(item)


def _numbers(value: JsonValue) -> Iterator[NumberToken]:
    match value:
        case NumberToken():
            yield value
        case list():
            for item in value:
                yield from _numbers(item)
        case dict():
            for item in value.values():
                yield from _numbers(item)


def _spell(character: str) -> Mapping[str, list[str]]:
    spellings: dict[str, list[str]] = defaultdict(list)
    for writer in _WRITERS:
        spellings[writer.write_string(character)[1:-1]].append(writer.name)
    return spellings


def _describe(character: str) -> str:
    point = ord(character)
    if 0xD800 <= point <= 0xDFFF:
        return "half of a character (a lone surrogate)"
    if character in "\u2028\u2029":
        return "a line or paragraph separator (U+2028, U+2029)"
    if point > 0xFFFF:
        return "characters beyond the first plane, such as emoji and rare Chinese ones"
    if point > 0x7F:
        return "characters beyond ASCII, such as Chinese ones"
    if character.isprintable():
        return f"the character {character}"
    return f"the control character U+{point:04X} ({unicodedata.name(character, 'DEL' if point == 0x7F else 'control')})"


def _without_letters(character: str, spellings: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """A letter may be one of somebody's name: its spellings are told by their form."""
    if character.isascii():
        return {repr(text)[1:-1] if not text.isprintable() else text: names for text, names in spellings.items()}
    forms: dict[str, list[str]] = defaultdict(list)
    for text, names in spellings.items():
        forms[_form(text)].extend(names)
    return forms


def _form(text: str) -> str:
    if not text.startswith("\\u"):
        return "as it is"
    return r"\uxxxx, small hex digits" if text == text.lower() else r"\uXXXX, capital hex digits"
