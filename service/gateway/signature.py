"""md5 signs, checked and made (document: sections on the encryption flow and the asynchronous callback).

None of these signs proves who sent a callback: anyone can make an md5 over the fields alone; see `domain.claims`.
"""

import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import md5
from itertools import zip_longest
from typing import NamedTuple

from service.gateway.bodies import BodyKind, CallbackBody, Readings, read_body
from service.gateway.errors import CallbackRefused, Refusal, SignMismatch, TriedDialect
from service.gateway.json_dialects import DIALECTS_BY_NAME, JsonDialect, KeyOrder, most_bytes
from service.gateway.strict_json import MAX_NUMBER_CHARACTERS, JsonValue, NumberToken, RawObject

#: The field that a sign does not cover: itself.
SIGN_FIELD = "sign"
#: The fields of a callback that a sign covers (document: 5).
DOCUMENTED_FIELDS = frozenset(
    {"biz_order_no", "pay_order_no", "order_type", "pay_type", "pay_status", "pay_time", "channel_response"}
)
#: Signs that say nothing about a body: md5 of "" (PHP could not encode the fields), of "[]" and of "{}" (no fields).
DEGENERATE_SIGNS = frozenset(md5(text).hexdigest() for text in (b"", b"[]", b"{}"))
#: How many texts are hashed for one body, over all readings and dialects. A genuine one needs a few.
MOST_TEXTS = 64
#: How many bytes are written or hashed for each byte of a body.
MOST_BYTES_PER_BYTE = 16
#: A shorter body is given as much as one of this length: 64 texts of an ordinary callback fit.
LEAST_BODY_BYTES = 16 * 1024
_PLAIN_FORMS = (BodyKind.FORM, BodyKind.FORM_WITH_PLUS)
_MD5_HEX = re.compile(r"[0-9a-fA-F]{32}")
_FIELDS_THAT_MAY_BE_EMPTY = sorted(DOCUMENTED_FIELDS - {"biz_order_no", "pay_order_no", "pay_status"})
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_KEY_ORDERS = tuple(KeyOrder)
# As JSON spells them, and as Python's urlencode does.
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCallback:
    """A callback whose sign fits its fields. Says nothing yet about what the fields mean."""

    #: Every field but the sign, in the order sent.
    fields: Mapping[str, JsonValue]
    #: As it came in, in lower case.
    sign: str
    #: Which way of writing the fields gave the sign: `spliced...`, or a dialect's name.
    dialect: str
    kind: BodyKind


class CanonicalText(NamedTuple):
    """One text that a sign may have been made over."""

    #: What it is called in logs and metrics: `spliced...`, or a dialect's name.
    dialect: str
    text: bytes
    #: Every field but the sign, as this text has them: a form's `1` may be a number, and its `null` none at all.
    fields: Mapping[str, JsonValue]


@dataclass(slots=True)
class Budget:
    """What is left to be spent. Paid before the work is done, by the most that it can come to."""

    texts: int
    bytes: int
    #: Whether something was not done because it could not be paid.
    exceeded: bool = False

    @classmethod
    def of_body(cls, size_bytes: int, *, readings: int) -> "Budget":
        """The share of each of a body's readings. Equal shares: what is found depends on no order of the readings."""
        least_bytes = max(size_bytes, LEAST_BODY_BYTES)
        return cls(texts=MOST_TEXTS // readings, bytes=MOST_BYTES_PER_BYTE * least_bytes // readings)

    def pay_writing(self, most_bytes: int) -> bool:
        """Whether so many bytes may be written."""
        return self._pay(texts=0, most_bytes=most_bytes)

    def pay_text(self, most_bytes: int) -> bool:
        """Whether a text of so many bytes may be put together and hashed."""
        return self._pay(texts=1, most_bytes=2 * most_bytes)

    def _pay(self, *, texts: int, most_bytes: int) -> bool:
        if self.texts < texts or self.bytes < most_bytes:
            self.exceeded = True
            return False
        self.texts -= texts
        self.bytes -= most_bytes
        return True


def verify_callback(body: bytes, content_type: str | None) -> VerifiedCallback:
    """Check the sign of a callback: raw body bytes, and the request's Content-Type header if it had one.

    The sign decides which reading of the body was meant; where it fits several, all must give the same fields. What a
    body may cost is bounded by counting, see `budget.py`. Raises `CallbackRefused` for a body that cannot be read
    safely or in one way only, and `SignMismatch`, one of its kind, where no known dialect gives the sign.
    """
    readings = read_body(body, content_type)
    return verify_readings(readings, size_bytes=len(body))


def verify_readings(readings: Readings, *, size_bytes: int) -> VerifiedCallback:
    """Check the sign of a body of so many bytes in each of its readings. Their order changes nothing of the fields."""
    claims: list[tuple[CallbackBody, str]] = []
    refusals = list(readings.refusals)
    for read in readings.bodies:
        try:
            claims.append((read, _claimed_sign(read)))
        except CallbackRefused as refusal:
            refusals.append((read.kind, refusal))
    if not claims:
        raise max(refusals, key=_how_telling)[1]
    fitting: dict[str, VerifiedCallback] = {}
    tried: list[TriedDialect] = []
    stopped_early = False
    for read, claimed in claims:
        # The sign that fits one reading fits no other that gives other fields: their texts differ, and would have to
        # collide in md5. So only readings that find different signs in the body can differ.
        if claimed not in fitting:
            budget = Budget.of_body(size_bytes, readings=len(claims))
            verified = _find_fit(read, claimed, budget, tried)
            if verified is not None:
                fitting[claimed] = verified
            stopped_early = stopped_early or budget.exceeded
    if not fitting:
        read, claimed = next((claim for claim in claims if claim[0].kind not in _PLAIN_FORMS), claims[0])
        raise SignMismatch(kind=read.kind, claimed=claimed, tried=tuple(tried), stopped_early=stopped_early)
    first, *others = fitting.values()
    for other in others:
        if other.fields != first.fields:
            raise CallbackRefused(
                Refusal.AMBIGUOUS, f"read as {first.kind} and as {other.kind}, the body is two callbacks that differ"
            )
    return first


def _find_fit(read: CallbackBody, claimed: str, budget: Budget, tried: list[TriedDialect]) -> VerifiedCallback | None:
    signs: dict[bytes, str] = {}
    for dialect, text, fields in canonical_texts(read, budget):
        if text not in signs:
            signs[text] = md5(text).hexdigest()
        sign = signs[text]
        if hmac.compare_digest(sign, claimed):
            return VerifiedCallback(fields=fields, sign=claimed, dialect=dialect, kind=read.kind)
        tried.append(TriedDialect(read.kind, dialect, text, sign))
    return None


def _how_telling(refused: tuple[BodyKind, CallbackRefused]) -> int:
    """Nearly every text with a "=" is a form of some kind; what resembles another wrapping was meant as that."""
    kind, refusal = refused
    if refusal.reason in (Refusal.MALFORMED_SIGN, Refusal.DEGENERATE_SIGN):
        return 3
    if kind in _PLAIN_FORMS:
        return 0
    return 2 if refusal.reason is Refusal.MISSING_SIGN else 1


def _claimed_sign(body: CallbackBody) -> str:
    claimed = body.values.get(SIGN_FIELD)
    if claimed is None or claimed == "":
        raise CallbackRefused(
            Refusal.MISSING_SIGN, f"field sign: missing in the body, read as {body.kind}; expected 32 hex digits"
        )
    if not isinstance(claimed, str) or not _MD5_HEX.fullmatch(claimed):
        raise CallbackRefused(Refusal.MALFORMED_SIGN, "field sign: not a string of 32 hex digits")
    sign = claimed.lower()
    if sign in DEGENERATE_SIGNS:
        raise CallbackRefused(
            Refusal.DEGENERATE_SIGN,
            "the sign is that of an empty text or of no fields: the gateway failed to encode what it meant to sign",
        )
    return sign


def sign_callback(fields: Mapping[str, JsonValue], dialect: JsonDialect) -> str:
    """The sign of a callback's fields (a `sign` among them is left out), lower-case hex: what the sandbox sends."""
    return md5(dialect.write({name: value for name, value in fields.items() if name != SIGN_FIELD})).hexdigest()


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
    for name, dialect in DIALECTS_BY_NAME.items():
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
