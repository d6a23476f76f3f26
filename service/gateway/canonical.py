"""The texts that a callback's sign may have been made over.

The document says "the other fields, keys ascending, as JSON, md5". Which JSON depends on the gateway's language. First
the body's own tokens are spliced, which is right whenever the body was written by the code that signed it; then every
known language's way of writing the same fields.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from service.gateway import json_writers as writers
from service.gateway.bodies import CallbackBody
from service.gateway.budget import Budget
from service.gateway.errors import DialectInvalid
from service.gateway.json_writers import JsonWriter, most_bytes
from service.gateway.key_orders import KeyOrder
from service.gateway.strict_json import MAX_NUMBER_CHARACTERS, JsonValue, NumberToken, RawObject

#: The field that a sign does not cover: itself.
SIGN_FIELD = "sign"
#: The fields of a callback that a sign covers (document: 5).
DOCUMENTED_FIELDS = frozenset(
    {"biz_order_no", "pay_order_no", "order_type", "pay_type", "pay_status", "pay_time", "channel_response"}
)
_FIELDS_THAT_MAY_BE_EMPTY = sorted(DOCUMENTED_FIELDS - {"biz_order_no", "pay_order_no", "pay_status"})
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_KEY_ORDERS = tuple(KeyOrder)
# As JSON spells them, and as Python's urlencode does.
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


class CanonicalText(NamedTuple):
    """One text that a sign may have been made over."""

    #: What it is called in logs and metrics: `spliced...`, or a dialect's name.
    dialect: str
    text: bytes
    #: Every field but the sign, as this text has them: a form's `1` may be a number, and its `null` none at all.
    fields: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonDialect:
    """A writer with its order of keys: one way to turn fields into the text that is hashed or encrypted."""

    writer: JsonWriter
    key_order: KeyOrder = KeyOrder.BYTES
    #: Whether objects within the object are sorted too.
    recursive: bool = False
    #: What follows the closing brace: Go's Encoder writes a newline.
    ending: str = ""

    @property
    def name(self) -> str:
        """What it is called in logs, metrics and settings, e.g. `php` or `unicode+javascript+recursive`."""
        parts = [self.writer.name]
        if self.key_order is not KeyOrder.BYTES:
            parts.append(self.key_order)
        if self.recursive:
            parts.append("recursive")
        if self.ending:
            parts.append("newline")
        return "+".join(parts)

    @property
    def nested_order(self) -> KeyOrder:
        """How objects within the object are sorted."""
        return self.key_order if self.recursive else KeyOrder.AS_SENT

    def write(self, fields: Mapping[str, JsonValue]) -> bytes:
        """The fields as canonical JSON; the caller leaves `sign` out."""
        members = self.writer.write_members(fields, self.nested_order)
        return self.arrange(members, self.key_order.sort(members))

    def arrange(self, members: Mapping[str, str], order: Sequence[str]) -> bytes:
        """Canonical JSON of members that `writer` has written with `nested_order`, names in `key_order`."""
        return encode_canonical(self.writer.join([members[name] for name in order if name in members]) + self.ending)


def encode_canonical(text: str) -> bytes:
    """UTF-8; a lone surrogate, which has none, becomes `\\udxxx` as JSON.stringify writes it."""
    return text.encode("utf-8", "backslashreplace")


def canonical_texts(body: CallbackBody, budget: Budget) -> Iterator[CanonicalText]:
    """Everything that the sign may have been made over, likeliest first, while `budget` lasts."""
    fields = dict(body.values)
    fields.pop(SIGN_FIELD, None)
    return _form_texts(fields, budget) if body.raw is None else _json_texts(body.raw, fields, budget)


def _json_texts(raw: RawObject, fields: Mapping[str, JsonValue], budget: Budget) -> Iterator[CanonicalText]:
    spliced = _splices(raw)
    while budget.pay_text(raw.size_bytes) and (named := next(spliced, None)):
        yield CanonicalText(*named, fields)
    for dialect, text in rewritings(fields, budget):
        yield CanonicalText(dialect, text, fields)


def _splices(raw: RawObject) -> Iterator[tuple[str, bytes]]:
    """Name and text of each way to sort the tokens as they were sent, likeliest first, `sign` left out."""
    as_sent = {name: member for name, (member, _) in zip(raw.values, raw.pieces, strict=True) if name != SIGN_FIELD}
    compact = None
    for order in _distinct_orders(list(as_sent)):
        spliced = f"{raw.opening}{raw.comma.join([as_sent[name] for name in order])}{raw.closing}"
        yield "spliced", spliced.encode()
        yield "spliced+newline", f"{spliced}\n".encode()
        compact = compact or {
            name: f"{member.key_token}:{member.value_token}"
            for name, member in zip(raw.values, raw.members, strict=True)
        }
        spliced_compact = f"{{{','.join([compact[name] for name in order])}}}"
        if spliced_compact != spliced:
            yield "spliced-compact", spliced_compact.encode()
            yield "spliced-compact+newline", f"{spliced_compact}\n".encode()


def _distinct_orders(names: list[str]) -> Iterator[list[str]]:
    seen: list[list[str]] = []
    for key_order in _KEY_ORDERS:
        order = key_order.sort(names)
        if order not in seen:
            seen.append(order)
            yield order


def rewritings(fields: Mapping[str, JsonValue], budget: Budget) -> Iterator[tuple[str, bytes]]:
    """Name and text of the fields (`sign` left out) in each known dialect. What several write alike is written once."""
    nested = any(isinstance(value, list | dict) for value in fields.values())
    all_nulls_documented = not any(_has_strange_null(name, value) for name, value in fields.items())
    orders: dict[KeyOrder, list[str]] = {}
    most = most_bytes(dict(fields))
    written: dict[tuple[str, KeyOrder], dict[str, str]] = {}
    texts: dict[tuple[int, tuple[str, ...], str, str], bytes] = {}
    for name, dialect in _DIALECTS_BY_NAME.items():
        if dialect.writer.drops_nulls and not all_nulls_documented:
            # Its sign would cover neither the name of such a field nor that it is there at all.
            continue
        # Several dialects share a writer, and writing is what costs most.
        nested_order = dialect.nested_order if nested else KeyOrder.AS_SENT
        key = (dialect.writer.name, nested_order)
        if key not in written:
            if not budget.pay_writing(most):
                return
            members = dialect.writer.write_members(fields, nested_order)
            written[key] = next((same for same in written.values() if same == members), members)
        if dialect.key_order not in orders:
            orders[dialect.key_order] = dialect.key_order.sort(fields)
        order = orders[dialect.key_order]
        way = (id(written[key]), tuple(order), dialect.writer.item_separator, dialect.ending)
        if way not in texts:
            if not budget.pay_text(most):
                return
            texts[way] = dialect.arrange(written[key], order)
        yield name, texts[way]


def _has_strange_null(name: str, value: JsonValue) -> bool:
    if value is None:
        return name not in DOCUMENTED_FIELDS
    nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_strange_null("", item) for item in nested)


def _form_texts(fields: Mapping[str, JsonValue], budget: Budget) -> Iterator[CanonicalText]:
    for dialect, text in rewritings(fields, budget):
        yield CanonicalText(dialect, text, fields)
    variants = list(_retyped(fields))
    # All of them in one dialect, then in the next: the likely dialects come first whatever the types were.
    for texts in zip_longest(*(rewritings(signed, budget) for _, signed, _ in variants)):
        for (suffix, _, told), named in zip(variants, texts, strict=True):
            if named is not None:
                yield CanonicalText(f"{named[0]}{suffix}", named[1], told)


def _retyped(fields: Mapping[str, JsonValue]) -> Iterator[tuple[str, dict[str, JsonValue], dict[str, JsonValue]]]:
    """What of a form may have been signed with other types than text: a name's ending, the fields signed, those sent.

    A null is said by no form: http_build_query leaves the field out, Node writes `null`. What looks like a number or a
    boolean is either text everywhere or nowhere: which field was of which type is not guessed one by one.
    """
    typed = {name: _as_it_looks(value) for name, value in fields.items()}
    nulls = [name for name in _FIELDS_THAT_MAY_BE_EMPTY if fields.get(name, "null") == "null"]
    none_sent = dict.fromkeys((name for name in nulls if name in fields), None)
    if nulls:
        yield "+nulls", {**fields, **dict.fromkeys(nulls)}, {**fields, **none_sent}
    if typed != fields:
        yield "+numbers", typed, typed
        if nulls:
            yield "+numbers+nulls", {**typed, **dict.fromkeys(nulls)}, {**typed, **none_sent}


def _as_it_looks(value: JsonValue) -> JsonValue:
    if not isinstance(value, str):
        return value
    if len(value) <= MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(value):
        return NumberToken(value)
    return _BOOLEANS.get(value, value)


def find_dialect(name: str) -> JsonDialect:
    """The dialect of that name; raises `DialectInvalid`, which lists the names there are."""
    if name not in _DIALECTS_BY_NAME:
        raise DialectInvalid(f"{name!r} is no JSON dialect; allowed are {', '.join(_DIALECTS_BY_NAME)}")
    return _DIALECTS_BY_NAME[name]


_PHP_WRITERS = (writers.PHP, writers.PHP_UNICODE_SLASHES, writers.PHP_SLASHES, writers.PHP_UNICODE)
_JAVA_WRITERS = (
    writers.UNICODE,
    writers.UNICODE_NO_NULLS,
    writers.JACKSON,
    writers.JACKSON_ASCII,
    writers.GSON,
    writers.GSON_NULLS,
    writers.GSON_NO_HTML,
    writers.GSON_NO_HTML_NULLS,
    writers.ORG_JSON,
    writers.ORG_JSON_NULLS,
    writers.JSON_SIMPLE,
)
_PYTHON_WRITERS = (
    writers.PYTHON,
    writers.PYTHON_UNICODE,
    writers.PYTHON_COMPACT,
    writers.PYTHON_COMPACT_UNICODE,
)

#: Every dialect that is tried, likeliest first. Each language sorts in its own way.
DIALECTS: tuple[JsonDialect, ...] = (
    *(JsonDialect(writer=writer) for writer in _PHP_WRITERS),
    *(JsonDialect(writer=writer, recursive=True) for writer in _PHP_WRITERS),
    *(JsonDialect(writer=writer, key_order=KeyOrder.PHP) for writer in _PHP_WRITERS),
    *(JsonDialect(writer=writer, key_order=KeyOrder.AS_SENT) for writer in _PHP_WRITERS),
    JsonDialect(writer=writers.UNICODE, key_order=KeyOrder.JAVASCRIPT),
    JsonDialect(writer=writers.UNICODE, key_order=KeyOrder.JAVASCRIPT, recursive=True),
    JsonDialect(writer=writers.UNICODE, key_order=KeyOrder.AS_SENT),
    *(JsonDialect(writer=writer, key_order=KeyOrder.UTF16) for writer in _JAVA_WRITERS),
    *(JsonDialect(writer=writer, recursive=True) for writer in (writers.GO, writers.GO_NO_ESCAPE)),
    *(JsonDialect(writer=writer, recursive=True, ending="\n") for writer in (writers.GO, writers.GO_NO_ESCAPE)),
    *(JsonDialect(writer=writer, recursive=True) for writer in _PYTHON_WRITERS),
)
_DIALECTS_BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
