"""Sanitizing: every claim is made storable before anything is decided about it."""

from dataclasses import replace
from datetime import UTC
from itertools import islice
from typing import Any

from service.domain.claims import Claim, OrderKey
from service.ledger.errors import ClaimUnstorable

_LONGEST_ORDER_NO = 128
_TEXTS = (
    "pay_order_no",
    "order_type",
    "pay_type",
    "channel_response",
    "quarantine",
    "traceparent",
    "stated_by",
    "reason",
)
# Limits for claims that nobody believes: more than a gateway's have.
_LONGEST_STRANGE_TEXT = 250
_MAX_STRANGE_FIELDS = 8


def sanitized(claim: Claim) -> Claim:
    """`claim` with each NUL and lone surrogate of its texts escaped (`\\u0000`), which PostgreSQL cannot store.

    So a stray character in the channel's response costs no payment. An order's name is never altered: the events would
    be about another order. Raises ClaimUnstorable where the name cannot be stored, or a time not expressed in UTC.
    """
    require_sanitized(claim.order)
    for time in (claim.stated_at, claim.paid_at):
        if time is None or time.tzinfo is UTC:
            continue
        if time.tzinfo is None:
            raise ClaimUnstorable("stated_at and paid_at must say their zone")
        try:
            time.astimezone(UTC)
        except OverflowError as error:
            raise ClaimUnstorable(f"a time beyond the calendar: {time.isoformat()}") from error
    altered: dict[str, Any] = {
        name: escaped(text) for name in _TEXTS if (text := getattr(claim, name)) is not None and not _is_sanitized(text)
    }
    if not all(map(_is_sanitized, claim.missing_fields)):
        altered["missing_fields"] = tuple(map(escaped, claim.missing_fields))
    return replace(claim, **altered) if altered else claim


def shortened(claim: Claim) -> Claim:
    """`claim` with texts no longer than a gateway's.

    This is for claims that anyone can make and nobody believes: each forged callback could otherwise take 64 KiB of the
    disk.
    """
    return replace(
        claim,
        pay_order_no=None if claim.pay_order_no is None else _cut(claim.pay_order_no),
        order_type=_cut(claim.order_type),
        pay_type=_cut(claim.pay_type),
        channel_response=_cut(claim.channel_response),
        unknown_fields={
            _cut(name): _cut(value) for name, value in islice(claim.unknown_fields.items(), _MAX_STRANGE_FIELDS)
        },
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_STRANGE_TEXT else f"{text[:_LONGEST_STRANGE_TEXT]}…"


def require_sanitized(order: OrderKey) -> None:
    """Raise ClaimUnstorable unless every database can store the order's name unaltered."""
    if not 1 <= len(order.biz_order_no) <= _LONGEST_ORDER_NO:
        raise ClaimUnstorable(f"biz_order_no must have 1 to {_LONGEST_ORDER_NO} characters")
    if not all(map(_is_sanitized, order)):
        raise ClaimUnstorable("merchant and biz_order_no must hold no NUL and no lone surrogate")


def _is_sanitized(text: str) -> bool:
    # Most texts are ASCII, which Python knows without reading them.
    return (text.isascii() or escaped(text) == text) and "\x00" not in text


def escaped(text: str) -> str:
    """`text` with each NUL and lone surrogate written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\u0000")
