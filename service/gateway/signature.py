"""md5 signs, checked and made (document: sections on the encryption flow and the asynchronous callback).

None of these signs proves who sent a callback: anyone can make an md5 over the fields alone; see `domain.claims`.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5

from service.gateway.bodies import BodyKind, CallbackBody, Readings, read_body
from service.gateway.budget import Budget
from service.gateway.canonical import SIGN_FIELD, JsonDialect, canonical_texts
from service.gateway.errors import CallbackRefused, Refusal, RequestRefused, SignMismatch, TriedDialect
from service.gateway.strict_json import JsonValue

#: Signs that say nothing about a body: md5 of "" (PHP could not encode the fields), of "[]" and of "{}" (no fields).
DEGENERATE_SIGNS = frozenset(md5(text).hexdigest() for text in (b"", b"[]", b"{}"))

_PLAIN_FORMS = (BodyKind.FORM, BodyKind.FORM_WITH_PLUS)
_MD5_HEX = re.compile(r"[0-9a-fA-F]{32}")


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


def sign_request(*, ua: str, key: str, method: str, args: str, separator: str = "", upper_case: bool = False) -> str:
    """The sign of a request envelope: md5 hex of ua, key, method and args (the ciphertext as sent), joined.

    `key` is the key as the gateway handed it out, before anything is derived from it.
    """
    sign = md5(separator.join((ua, key, method, args)).encode("utf-8", "surrogateescape")).hexdigest()
    return sign.upper() if upper_case else sign


def verify_request(
    *, claimed: str, ua: str, key: str, method: str, args: str, separator: str = "", upper_case: bool = False
) -> None:
    """Raise `RequestRefused` unless `claimed` is exactly the sign of the envelope; compared in constant time."""
    sign = sign_request(ua=ua, key=key, method=method, args=args, separator=separator, upper_case=upper_case)
    if not hmac.compare_digest(sign.encode(), claimed.encode("utf-8", "surrogatepass")):
        raise RequestRefused("the sign does not fit ua, key, method and args")
