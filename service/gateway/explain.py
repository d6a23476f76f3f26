"""Why a callback's sign fits or does not: the receiver's own check, told to a person."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.gateway.bodies import BodyKind, read_body
from service.gateway.canonical import SIGN_FIELD
from service.gateway.errors import SignMismatch, TriedDialect
from service.gateway.explain_guesses import FittingGuess, guess_what_was_signed
from service.gateway.explain_traits import Trait, find_traits
from service.gateway.signature import VerifiedCallback, verify_callback
from service.gateway.strict_json import JsonValue

# RFC 2046, 5.1.1: what a boundary may be made of.
_BOUNDARY_LINE = re.compile(rb"--([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One text that the sign may have been made over, and every dialect that writes the fields so."""

    dialects: Sequence[str]
    #: Holds gateway data: mask it before it is shown.
    canonical: str
    #: md5 of it, lower-case hex.
    sign: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A callback whose sign fits none of the known ways to write its fields."""

    kind: BodyKind
    fields: Sequence[str]
    #: The sign that came with it, lower-case hex.
    claimed: str
    #: Likeliest first.
    candidates: Sequence[Candidate]
    traits: Sequence[Trait]
    #: What else may have been signed; None where no change that we know of makes the sign fit.
    guess: FittingGuess | None


def explain(body: bytes, content_type: str | None = None) -> VerifiedCallback | Mismatch:
    """Check a captured callback, raw body bytes, as the receiver does, and say why where its sign does not fit.

    Only a multipart form needs its Content-Type header; where that was not captured, the boundary is taken from the
    body's first line. Raises `CallbackRefused` for what the receiver refuses for another reason than its sign.
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
            claimed=mismatch.claimed,
            candidates=_group(read.kind, mismatch.tried),
            traits=find_traits(fields),
            guess=guess_what_was_signed(fields, mismatch.claimed),
        )


def _group(kind: BodyKind, tried: Sequence[TriedDialect]) -> Sequence[Candidate]:
    """Texts of the reading that is explained come first; dialects of another are named with it."""
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
