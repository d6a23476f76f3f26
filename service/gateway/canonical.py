"""The texts that a callback's sign may have been made over.

The document says "the other fields, keys ascending, as JSON, md5". Which JSON depends on the gateway's language. First
the body's own tokens are spliced, which is right whenever the body was written by the code that signed it; then every
known language's way of writing the same fields.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.gateway import json_writers as writers
from service.gateway.bodies import CallbackBody
from service.gateway.errors import DialectInvalid
from service.gateway.json_writers import JsonWriter
from service.gateway.key_orders import KeyOrder
from service.gateway.tokens import JsonValue, RawMember, RawObject

#: The field that a sign does not cover: itself.
SIGN_FIELD = "sign"
#: The fields of a callback that a sign covers (document: 5).
DOCUMENTED_FIELDS = frozenset(
    {"biz_order_no", "pay_order_no", "order_type", "pay_type", "pay_status", "pay_time", "channel_response"}
)
_FIELDS_THAT_MAY_BE_EMPTY = DOCUMENTED_FIELDS - {"biz_order_no", "pay_order_no", "pay_status"}
# Ends the name of a text in which fields of a form were null.
_WITH_NULLS = "+nulls"


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


def splices(raw: RawObject) -> Iterator[tuple[str, bytes]]:
    """Name and text of each way to sort the tokens as they were sent, likeliest first, `sign` left out."""
    members = {member.name: member for member in raw.members if member.name != SIGN_FIELD}
    for order in _distinct_orders(list(members)):
        ordered = [members[name] for name in order]
        as_sent = _join_as_sent(raw, ordered)
        yield "spliced", as_sent.encode()
        yield "spliced+newline", f"{as_sent}\n".encode()
        compact = f"{{{','.join([f'{member.key_token}:{member.value_token}' for member in ordered])}}}"
        if compact != as_sent:
            yield "spliced-compact", compact.encode()
            yield "spliced-compact+newline", f"{compact}\n".encode()


def _join_as_sent(raw: RawObject, members: Sequence[RawMember]) -> str:
    written = [f"{member.key_token}{member.colon}{member.value_token}" for member in members]
    return f"{raw.opening}{raw.comma.join(written)}{raw.closing}"


def _distinct_orders(names: list[str]) -> Iterator[list[str]]:
    seen: list[list[str]] = []
    for key_order in KeyOrder:
        order = key_order.sort(names)
        if order not in seen:
            seen.append(order)
            yield order


def rewritings(values: Mapping[str, JsonValue]) -> Iterator[tuple[str, bytes]]:
    """Name and text of the fields in each known dialect, `sign` left out."""
    fields = {name: value for name, value in values.items() if name != SIGN_FIELD}
    nested = any(isinstance(value, list | dict) for value in fields.values())
    all_nulls_documented = not any(_has_strange_null(name, value) for name, value in fields.items())
    orders = {key_order: key_order.sort(fields) for key_order in KeyOrder}
    written: dict[tuple[str, KeyOrder], dict[str, str]] = {}
    for dialect in DIALECTS:
        if dialect.writer.drops_nulls and not all_nulls_documented:
            # Its sign would cover neither the name of such a field nor that it is there at all.
            continue
        # Several dialects share a writer, and writing is what costs most.
        nested_order = dialect.nested_order if nested else KeyOrder.AS_SENT
        key = (dialect.writer.name, nested_order)
        if key not in written:
            written[key] = dialect.writer.write_members(fields, nested_order)
        yield dialect.name, dialect.arrange(written[key], orders[dialect.key_order])


def _has_strange_null(name: str, value: JsonValue) -> bool:
    if value is None:
        return name not in DOCUMENTED_FIELDS
    nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_strange_null("", item) for item in nested)


def canonical_texts(body: CallbackBody) -> Iterator[tuple[str, bytes]]:
    """Name and text of everything that the sign may have been made over, likeliest first."""
    if body.raw is not None:
        yield from splices(body.raw)
    yield from rewritings(body.values)
    if body.raw is None:
        yield from _with_unsaid_nulls(body.values)


def _with_unsaid_nulls(values: Mapping[str, JsonValue]) -> Iterator[tuple[str, bytes]]:
    """The same for a form whose null fields were signed: http_build_query leaves them out, Node writes `null`."""
    unsaid = {name: None for name in _FIELDS_THAT_MAY_BE_EMPTY if values.get(name, "null") == "null"}
    if unsaid:
        for name, canonical in rewritings({**values, **unsaid}):
            yield f"{name}{_WITH_NULLS}", canonical


def signed_fields(body: CallbackBody, name: str) -> dict[str, JsonValue]:
    """The fields that were sent, as the text of that name has them: a form's `null` may be the word or none at all."""
    fields = {field: value for field, value in body.values.items() if field != SIGN_FIELD}
    if name.endswith(_WITH_NULLS):
        fields.update((field, None) for field in _FIELDS_THAT_MAY_BE_EMPTY if fields.get(field) == "null")
    return fields


def find_dialect(name: str) -> JsonDialect:
    """The dialect of that name; raises `DialectInvalid`, which lists the names there are."""
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    raise DialectInvalid(f"{name!r} is no JSON dialect; allowed are {', '.join(dialect.name for dialect in DIALECTS)}")


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
