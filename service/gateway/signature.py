"""The md5 sign of a callback: verified, and made for the sandbox (document: section 5 and 加密流程描述).

A sign does not prove who sent a callback: anyone can make an md5 over the fields; see `domain.claims`.

The document says "the other fields, keys ascending, as JSON, md5". Which JSON depends on the gateway's language. So we
hash several canonical texts: first the body's own tokens, sorted ("spliced"), which fit whenever one program wrote and
signed the body; then the fields as each known language writes them.
"""

import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import md5
from itertools import zip_longest
from typing import NamedTuple

from service.gateway.bodies import (
    MAX_NUMBER_CHARACTERS,
    BodyKind,
    CallbackBody,
    JsonValue,
    NumberToken,
    RawObject,
    Readings,
    read_body,
    walk,
)
from service.gateway.errors import CallbackRefused, Refusal, SignMismatch, TriedDialect
from service.gateway.json_dialects import DIALECTS_BY_NAME, JsonDialect, KeyOrder, max_bytes

#: The field that holds the sign. It is not signed itself.
SIGN_FIELD = "sign"
#: The fields of a callback that a sign covers (document: 5).
DOCUMENTED_FIELDS = frozenset(
    {"biz_order_no", "pay_order_no", "order_type", "pay_type", "pay_status", "pay_time", "channel_response"}
)
#: Signs that say nothing about a body: md5 of "" (PHP could not encode the fields), of "[]" and of "{}" (no fields).
DEGENERATE_SIGNS = frozenset(md5(text).hexdigest() for text in (b"", b"[]", b"{}"))
#: How many texts are hashed for one body at most, over all readings and dialects. A genuine body needs a few.
MAX_TEXTS = 64
#: How many bytes are written or hashed at most for each byte of a body.
MAX_BYTES_PER_BYTE = 16
#: A shorter body has the budget of one of this size. It suffices for 64 texts of an ordinary callback.
MIN_BODY_BYTES = 16 * 1024

_PLAIN_FORMS = (BodyKind.FORM, BodyKind.FORM_WITH_PLUS)
_MD5_HEX = re.compile(r"[0-9a-fA-F]{32}")
_FIELDS_THAT_MAY_BE_EMPTY = sorted(DOCUMENTED_FIELDS - {"biz_order_no", "pay_order_no", "pay_status"})
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_OTHER_KEY_ORDERS = tuple(order for order in KeyOrder if order is not KeyOrder.BYTES)
# As JSON spells them, and as Python's urlencode does.
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCallback:
    """A callback whose sign fits its fields. What the fields mean is not known yet."""

    #: Every field but the sign, in the order sent.
    fields: Mapping[str, JsonValue]
    #: As received, in lower case.
    sign: str
    #: How the signed text was written: `spliced...`, or the name of a `JsonDialect`, with endings for a form's types.
    dialect: str
    kind: BodyKind


class CanonicalText(NamedTuple):
    """One text that the sign may have been made over."""

    #: As in `VerifiedCallback`.
    dialect: str
    text: bytes
    #: Every field but the sign, with the types of this text: a form's `1` may be a number, and its `null` no value.
    fields: Mapping[str, JsonValue]


@dataclass(slots=True)
class Budget:
    """Limits the work on one body's sign. It counts work instead of time, because a sender chooses the body.

    The most that a step can cost is paid before the step is taken.
    """

    texts: int
    bytes: int
    #: Whether a step was left out because the budget did not suffice.
    exceeded: bool = False

    @classmethod
    def of_body(cls, size_bytes: int, *, readings: int) -> "Budget":
        """The share of one of a body's readings. Shares are equal, so the order of the readings does not matter."""
        counted_bytes = max(size_bytes, MIN_BODY_BYTES)
        return cls(texts=MAX_TEXTS // readings, bytes=MAX_BYTES_PER_BYTE * counted_bytes // readings)

    def pay_writing(self, max_bytes: int) -> bool:
        """Pay for writing at most so many bytes. False if the budget does not suffice."""
        return self._pay(texts=0, max_bytes=max_bytes)

    def pay_text(self, max_bytes: int) -> bool:
        """Pay for joining and hashing a text of at most so many bytes. False if the budget does not suffice."""
        return self._pay(texts=1, max_bytes=2 * max_bytes)

    def _pay(self, *, texts: int, max_bytes: int) -> bool:
        if self.texts < texts or self.bytes < max_bytes:
            self.exceeded = True
            return False
        self.texts -= texts
        self.bytes -= max_bytes
        return True


def verify_callback(body: bytes, content_type: str | None) -> VerifiedCallback:
    """Verify the sign of a callback: raw body bytes, and the request's Content-Type header if it had one.

    The sign decides which reading of the body was meant. If it fits several, all must give the same fields. A `Budget`
    limits the work. Raises `CallbackRefused` for a body that cannot be read safely and in one way only, and its
    subclass `SignMismatch` if no known dialect gives the sign.
    """
    return verify_readings(read_body(body, content_type), size_bytes=len(body))


def verify_readings(readings: Readings, *, size_bytes: int) -> VerifiedCallback:
    """Verify the sign in each reading of a body of this size. The order of the readings does not change the fields."""
    signed: list[tuple[CallbackBody, str]] = []
    refusals = list(readings.refusals)
    for body in readings.bodies:
        try:
            signed.append((body, _read_sign(body)))
        except CallbackRefused as refusal:
            refusals.append((body.kind, refusal))
    if not signed:
        raise max(refusals, key=_rank_refusal)[1]
    verified: dict[str, VerifiedCallback] = {}
    tried: list[TriedDialect] = []
    stopped_early = False
    for body, sign in signed:
        # A sign that fits one reading fits no other reading with other fields: their texts differ, so md5 would have to
        # collide. Only readings that find different signs in the body can both fit and differ.
        if sign not in verified:
            budget = Budget.of_body(size_bytes, readings=len(signed))
            callback = _find_fit(body, sign, budget, tried)
            if callback is not None:
                verified[sign] = callback
            stopped_early = stopped_early or budget.exceeded
    if not verified:
        body, sign = next((one for one in signed if one[0].kind not in _PLAIN_FORMS), signed[0])
        raise SignMismatch(kind=body.kind, received_sign=sign, tried=tuple(tried), stopped_early=stopped_early)
    first, *others = verified.values()
    for other in others:
        if other.fields != first.fields:
            raise CallbackRefused(
                Refusal.AMBIGUOUS, f"read as {first.kind} and as {other.kind}, the body is two callbacks that differ"
            )
    return first


def sign_callback(fields: Mapping[str, JsonValue], dialect: JsonDialect) -> str:
    """The sign of a callback's fields, lower-case hex. A `sign` among the fields is left out."""
    return md5(dialect.write({name: value for name, value in fields.items() if name != SIGN_FIELD})).hexdigest()


def _find_fit(body: CallbackBody, sign: str, budget: Budget, tried: list[TriedDialect]) -> VerifiedCallback | None:
    signs: dict[bytes, str] = {}
    for dialect, text, fields in canonical_texts(body, budget):
        if text not in signs:
            signs[text] = md5(text).hexdigest()
        if hmac.compare_digest(signs[text], sign):
            return VerifiedCallback(fields=fields, sign=sign, dialect=dialect, kind=body.kind)
        tried.append(TriedDialect(body.kind, dialect, text, signs[text]))
    return None


def _rank_refusal(refused: tuple[BodyKind, CallbackRefused]) -> int:
    """How much a refusal helps an operator. Nearly every text with a "=" can be read as a form, so forms rank last."""
    kind, refusal = refused
    if refusal.reason in (Refusal.MALFORMED_SIGN, Refusal.DEGENERATE_SIGN):
        return 3
    if kind in _PLAIN_FORMS:
        return 0
    return 2 if refusal.reason is Refusal.MISSING_SIGN else 1


def _read_sign(body: CallbackBody) -> str:
    value = body.values.get(SIGN_FIELD)
    if value is None or value == "":
        raise CallbackRefused(
            Refusal.MISSING_SIGN, f"field sign: missing in the body, read as {body.kind}; expected 32 hex digits"
        )
    if not isinstance(value, str) or not _MD5_HEX.fullmatch(value):
        raise CallbackRefused(Refusal.MALFORMED_SIGN, "field sign: not a string of 32 hex digits")
    sign = value.lower()
    if sign in DEGENERATE_SIGNS:
        raise CallbackRefused(
            Refusal.DEGENERATE_SIGN,
            "the sign is that of an empty text or of no fields: the gateway failed to encode what it meant to sign",
        )
    return sign


def canonical_texts(body: CallbackBody, budget: Budget) -> Iterator[CanonicalText]:
    """Every text that the sign may have been made over, likeliest first, as far as the budget goes."""
    fields = dict(body.values)
    fields.pop(SIGN_FIELD, None)
    return _form_texts(fields, budget) if body.raw is None else _json_texts(body.raw, fields, budget)


def _json_texts(raw: RawObject, fields: Mapping[str, JsonValue], budget: Budget) -> Iterator[CanonicalText]:
    spliced = _splice(raw)
    while budget.pay_text(raw.size_bytes) and (named := next(spliced, None)):
        yield CanonicalText(*named, fields)
    for dialect, text in dialect_texts(fields, budget):
        yield CanonicalText(dialect, text, fields)


def _splice(raw: RawObject) -> Iterator[tuple[str, bytes]]:
    """Sort the tokens as they were sent, without `sign`: a name and a text for each way to sort, likeliest first."""
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
    seen = [sorted(names)]  # KeyOrder.BYTES, in which nearly every gateway sorts
    yield seen[0]
    for key_order in _OTHER_KEY_ORDERS:
        order = key_order.sort(names)
        if order not in seen:
            seen.append(order)
            yield order


def dialect_texts(fields: Mapping[str, JsonValue], budget: Budget) -> Iterator[tuple[str, bytes]]:
    """The fields, without their sign, in each known dialect: its name and the text. Equal texts are written once."""
    nested = any(isinstance(value, list | dict) for value in fields.values())
    nulls_are_documented = all(
        name in DOCUMENTED_FIELDS if value is None else None not in walk(value) for name, value in fields.items()
    )
    orders: dict[KeyOrder, list[str]] = {}
    most = max_bytes(dict(fields))
    written: dict[tuple[str, KeyOrder], dict[str, str]] = {}
    texts: dict[tuple[int, tuple[str, ...], str, str], bytes] = {}
    for name, dialect in DIALECTS_BY_NAME.items():
        if dialect.writer.drops_nulls and not nulls_are_documented:
            # Its sign would cover neither the name of such a field nor its presence.
            continue
        # Several dialects share a writer, and writing costs most.
        nested_order = dialect.nested_order if nested else KeyOrder.AS_SENT
        written_as = (dialect.writer.name, nested_order)
        if written_as not in written:
            if not budget.pay_writing(most):
                return
            members = dialect.writer.write_members(fields, nested_order)
            written[written_as] = next((same for same in written.values() if same == members), members)
        if dialect.key_order not in orders:
            orders[dialect.key_order] = dialect.key_order.sort(fields)
        order = orders[dialect.key_order]
        joined_as = (id(written[written_as]), tuple(order), dialect.writer.item_separator, dialect.ending)
        if joined_as not in texts:
            if not budget.pay_text(most):
                return
            texts[joined_as] = dialect.join(written[written_as], order)
        yield name, texts[joined_as]


def _form_texts(fields: Mapping[str, JsonValue], budget: Budget) -> Iterator[CanonicalText]:
    for dialect, text in dialect_texts(fields, budget):
        yield CanonicalText(dialect, text, fields)
    variants = list(_type_variants(fields))
    # All variants in one dialect, then in the next: the likely dialects come first, whatever the types were.
    for texts in zip_longest(*(dialect_texts(signed, budget) for _, signed, _ in variants)):
        for (suffix, _, sent), named in zip(variants, texts, strict=True):
            if named is not None:
                yield CanonicalText(f"{named[0]}{suffix}", named[1], sent)


def _type_variants(
    fields: Mapping[str, JsonValue],
) -> Iterator[tuple[str, dict[str, JsonValue], dict[str, JsonValue]]]:
    """Other types than text that a form's fields may have had: a suffix, the fields signed, and the fields sent.

    A form cannot say null: http_build_query leaves the field out, and Node writes `null`. Numbers and booleans are text
    in every field or in none: we do not guess the type of each field.
    """
    typed = {name: _infer_type(value) for name, value in fields.items()}
    nulls = [name for name in _FIELDS_THAT_MAY_BE_EMPTY if fields.get(name, "null") == "null"]
    sent_nulls = dict.fromkeys((name for name in nulls if name in fields), None)
    if nulls:
        yield "+nulls", {**fields, **dict.fromkeys(nulls)}, {**fields, **sent_nulls}
    if typed != fields:
        yield "+numbers", typed, typed
        if nulls:
            yield "+numbers+nulls", {**typed, **dict.fromkeys(nulls)}, {**typed, **sent_nulls}


def _infer_type(value: JsonValue) -> JsonValue:
    if not isinstance(value, str):
        return value
    if len(value) <= MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(value):
        return NumberToken(value)
    return _BOOLEANS.get(value, value)
