"""Explains to a person why a callback's sign fits or does not, with the receiver's own check."""

import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import md5

from service.domain.masking import escape_controls, mask_personal
from service.gateway.bodies import BodyKind, JsonValue, NumberToken, read_body, walk
from service.gateway.errors import SignMismatch, TriedDialect
from service.gateway.json_dialects import WRITERS_BY_NAME, KeyOrder
from service.gateway.signature import SIGN_FIELD, Budget, VerifiedCallback, dialect_texts, verify_callback
from service.runtime.logs import SENSITIVE_FIELDS

# RFC 2046, 5.1.1: the characters of a boundary.
_BOUNDARY_LINE = re.compile(rb"--([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])\r\n")
# A sensitive field with its whole value, in any JSON dialect.
_SENSITIVE = re.compile(rf'("(?:{"|".join(sorted(SENSITIVE_FIELDS))})"\s*:\s*)(?:"(?:[^"\\]|\\.)*"|[^",{{}}\[\]]+)')
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_SPLICE_DESCRIPTIONS: Mapping[str, str] = {
    "spliced": "the body's own text, cut into its fields and sorted",
    "spliced-compact": "the body's own text, cut into its fields and sorted, without white space between them",
}
_DETAIL_DESCRIPTIONS: Mapping[str, str] = {
    **{order.value: order.description for order in KeyOrder},
    "recursive": "objects within it sorted too",
    "newline": "a newline at the end",
    "numbers": "what looks like a number or a boolean signed as one, without quotes",
    "nulls": "documented fields that are not there signed as null",
}
_KIND_DESCRIPTIONS: Mapping[BodyKind, str] = {
    BodyKind.JSON: "a JSON object",
    BodyKind.FORM: "a form",
    BodyKind.FORM_WITH_PLUS: "a form whose + was not escaped and stands for itself",
    BodyKind.MULTIPART: "a multipart form",
    BodyKind.JSON_IN_FORM: "a form with the JSON as its only key or value",
    BodyKind.JSON_IN_JSON: "a JSON string that holds the JSON",
    BodyKind.JSON_LIST: "a JSON list with the one object in it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trait:
    """One reason why dialects write the fields differently."""

    #: Name of the field; "" for all fields together.
    field: str
    #: What is in it, in plain words. Quotes no values.
    what: str
    #: Each spelling, with the writers or key orders that produce it.
    spellings: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingGuess:
    """A change of the fields with which the sign would fit. The receiver does not accept it.

    A sign that leaves out a field does not authenticate that field.
    """

    #: In plain words. Quotes no values.
    what: str
    dialect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One text that the sign may have been made over, with every dialect that writes it."""

    dialects: Sequence[str]
    #: It holds gateway data: mask it before it is shown.
    canonical: str
    #: md5 of it, lower-case hex.
    sign: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A callback whose sign fits its fields in no known dialect."""

    kind: BodyKind
    fields: Sequence[str]
    #: The callback's sign, lower-case hex.
    received_sign: str
    #: Likeliest first.
    candidates: Sequence[Candidate]
    traits: Sequence[Trait]
    #: What else may have been signed; None if no known change makes the sign fit.
    guess: FittingGuess | None


def explain(body: bytes, content_type: str | None = None) -> VerifiedCallback | Mismatch:
    """Verify a captured callback, raw body bytes, as the receiver does. If its sign does not fit, say why.

    Only a multipart form needs its Content-Type header. If that was not captured, the boundary is taken from the body's
    first line. Raises `CallbackRefused` if the receiver refuses the body for another reason.
    """
    if content_type is None and (first_line := _BOUNDARY_LINE.match(body)):
        content_type = f'multipart/form-data; boundary="{first_line[1].decode()}"'
    try:
        return verify_callback(body, content_type)
    except SignMismatch as mismatch:
        read = next(read for read in read_body(body, content_type).bodies if read.kind == mismatch.kind)
        fields: Mapping[str, JsonValue] = {name: value for name, value in read.values.items() if name != SIGN_FIELD}
        return Mismatch(
            kind=read.kind,
            fields=list(fields),
            received_sign=mismatch.received_sign,
            candidates=_group(read.kind, mismatch.tried),
            traits=find_traits(fields),
            guess=guess_what_was_signed(fields, mismatch.received_sign),
        )


def _group(kind: BodyKind, tried: Sequence[TriedDialect]) -> Sequence[Candidate]:
    """The explained reading's texts first. The dialects of other readings have the reading's name after theirs."""
    by_text: dict[bytes, list[TriedDialect]] = {}
    for one in sorted(tried, key=lambda one: one.kind != kind):
        by_text.setdefault(one.canonical, []).append(one)
    return [
        Candidate(
            dialects=[one.dialect if one.kind == kind else f"{one.dialect} ({one.kind})" for one in same],
            canonical=canonical.decode("utf-8", "backslashreplace"),
            sign=same[0].sign,
        )
        for canonical, same in by_text.items()
    ]


def find_traits(fields: Mapping[str, JsonValue]) -> Sequence[Trait]:
    """Every trait of a callback's fields, without its sign.

    Each field and each kind of character in it is written by every writer, so there is no list of traps to maintain.
    """
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
    for text in (name, *(text for text in walk(value) if isinstance(text, str))):
        for character in text:
            spellings = _spell(character)
            what = _describe(character)
            if len(spellings) > 1 and what not in seen:
                seen.add(what)
                yield Trait(field=name, what=what, spellings=_without_letters(character, spellings))


def _type_traits(name: str, value: JsonValue) -> Iterator[Trait]:
    if value is None:
        drop = [writer.name for writer in WRITERS_BY_NAME.values() if writer.drops_nulls]
        keep = [writer.name for writer in WRITERS_BY_NAME.values() if not writer.drops_nulls]
        yield Trait(field=name, what="null", spellings={"null": keep, "left out": drop})
    numbers = [number for number in walk(value) if isinstance(number, NumberToken)]
    if not all(number.text.isdigit() for number in numbers):
        what = "a number with a sign, a fraction or an exponent: languages write it in ways that are not imitated"
        yield Trait(field=name, what=what, spellings={})
    elif numbers:
        yield Trait(field=name, what="a number: it may have been signed as a string, in quotes", spellings={})
    if value in ([], {}):
        what = "an empty list or object: PHP writes [] for both"
        yield Trait(field=name, what=what, spellings={})
    elif isinstance(value, dict | list):
        what = "an object or list: some languages sort the keys within it, others do not"
        yield Trait(field=name, what=what, spellings={})


def _spell(character: str) -> Mapping[str, list[str]]:
    spellings: dict[str, list[str]] = defaultdict(list)
    for writer in WRITERS_BY_NAME.values():
        spellings[writer.write_string(character)[1:-1]].append(writer.name)
    return spellings


def _describe(character: str) -> str:
    point = ord(character)
    if 0xD800 <= point <= 0xDFFF:
        return "a lone surrogate (half of a character)"
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
    """Replace spellings of a letter by their form, because a letter may be part of a person's name."""
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


def guess_what_was_signed(fields: Mapping[str, JsonValue], received_sign: str) -> FittingGuess | None:
    """The first change of the fields, without their sign, with which `received_sign` (lower-case hex) fits."""
    for what, changed in _changes(fields):
        if changed == fields:
            continue
        for dialect, canonical in dialect_texts(changed, Budget(texts=sys.maxsize, bytes=sys.maxsize)):
            if md5(canonical).hexdigest() == received_sign:
                return FittingGuess(what=what, dialect=dialect)
    return None


def _changes(fields: Mapping[str, JsonValue]) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    yield "fields that are empty were left out", _keep(fields, lambda value: value not in ("", None, [], {}))
    yield "fields that are null were left out", _keep(fields, lambda value: value is not None)
    yield "null was signed as an empty string", _map(fields, lambda value: "" if value is None else value)
    yield "an empty string was signed as null", _map(fields, lambda value: None if value == "" else value)
    yield "digits in quotes were signed as numbers", _map(fields, _unquote)
    yield "numbers were signed as strings", _map(fields, _quote)
    yield "an empty object was signed as []", _map(fields, lambda value: [] if value == {} else value)
    yield "white space at the ends of values was removed before signing", _map(fields, _strip)
    yield "a + was signed where the form has a space", _map(fields, lambda value: _replace(value, " ", "+"))
    yield "a space was signed where the body has a +", _map(fields, lambda value: _replace(value, "+", " "))
    for name in fields:
        others = {other: value for other, value in fields.items() if other != name}
        yield f"the field {name} was not signed; perhaps a proxy added it", others


def _keep(fields: Mapping[str, JsonValue], wanted: Callable[[JsonValue], bool]) -> Mapping[str, JsonValue]:
    return {name: value for name, value in fields.items() if wanted(value)}


def _map(fields: Mapping[str, JsonValue], change: Callable[[JsonValue], JsonValue]) -> Mapping[str, JsonValue]:
    return {name: change(value) for name, value in fields.items()}


def _unquote(value: JsonValue) -> JsonValue:
    return NumberToken(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value


def _quote(value: JsonValue) -> JsonValue:
    return value.text if isinstance(value, NumberToken) else value


def _strip(value: JsonValue) -> JsonValue:
    return value.strip() if isinstance(value, str) else value


def _replace(value: JsonValue, old: str, new: str) -> JsonValue:
    return value.replace(old, new) if isinstance(value, str) else value


def describe_dialect(name: str) -> str:
    """A dialect's name, e.g. `php+as-sent`, in plain words."""
    writer, *details = name.split("+")
    described = _SPLICE_DESCRIPTIONS.get(writer) or WRITERS_BY_NAME[writer].description
    return "; ".join([described, *(_DETAIL_DESCRIPTIONS[detail] for detail in details)])


def describe_kind(kind: BodyKind) -> str:
    """How a body was read, in plain words."""
    return _KIND_DESCRIPTIONS[kind]


def mask_signed_text(text: str) -> str:
    """Mask personal data in a text that was signed, and make control characters and white space at its ends visible."""
    return escape_controls(mask_personal(_SENSITIVE.sub(r'\1"…"', text)))
