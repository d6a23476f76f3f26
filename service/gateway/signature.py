"""md5 signs, checked and made (document: sections on the encryption flow and the asynchronous callback).

None of these signs proves who sent a callback: md5 over the fields alone can be made by anyone. See `service.claims`.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5

from service.gateway.bodies import BodyKind, CallbackBody, read_body
from service.gateway.canonical import SIGN_FIELD, JsonDialect, canonical_texts, signed_fields
from service.gateway.errors import CallbackRefused, Refusal, RequestRefused, SignMismatch, TriedDialect
from service.gateway.tokens import JsonValue

#: Signs that say nothing about a body: md5 of "" (PHP could not encode the fields), of "[]" and of "{}" (no fields).
DEGENERATE_SIGNS = frozenset(md5(text).hexdigest() for text in (b"", b"[]", b"{}"))

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

    Raises `CallbackRefused` for a body that cannot be read safely, and `SignMismatch`, one of its kind, where no known
    dialect gives the sign.
    """
    read = read_body(body, content_type)
    claimed = _claimed_sign(read)
    tried = []
    for dialect, canonical in canonical_texts(read):
        sign = md5(canonical).hexdigest()
        if hmac.compare_digest(sign, claimed):
            fields = signed_fields(read, dialect)
            return VerifiedCallback(fields=fields, sign=claimed, dialect=dialect, kind=read.kind)
        tried.append(TriedDialect(dialect, canonical, sign))
    raise SignMismatch(claimed=claimed, tried=tuple(tried))


def _claimed_sign(body: CallbackBody) -> str:
    claimed = body.values.get(SIGN_FIELD)
    if claimed is None or claimed == "":
        raise CallbackRefused(Refusal.MISSING_SIGN, "field sign: missing; expected 32 hex digits")
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
