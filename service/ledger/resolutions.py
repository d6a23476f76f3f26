"""Resolutions: what a named person decides about an order, kept with the reason."""

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from service.domain.claims import Claim, ClaimSource, OrderKey, OrderStatus, Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """An operator's word on an order. It outranks every other; only another one can replace it."""

    order: OrderKey
    status: OrderStatus
    #: Who decides, and on what way it came in.
    stated_by: str
    reason: str
    #: The gateway's number for the payment, where the person knows it.
    pay_order_no: str | None = None
    #: When the money moved, aware, where the person knows it.
    paid_at: datetime | None = None


def claim_from_resolution(resolution: Resolution, *, stated_at: datetime) -> Claim:
    """The resolution as a claim, spoken at `stated_at` (aware)."""
    return Claim(
        merchant=resolution.order.merchant,
        biz_order_no=resolution.order.biz_order_no,
        trust=Trust.OPERATOR,
        source=ClaimSource.OPERATOR,
        status=resolution.status,
        pay_order_no=resolution.pay_order_no,
        paid_at=resolution.paid_at,
        stated_at=stated_at,
        digest=_digest(resolution),
        stated_by=resolution.stated_by,
        reason=resolution.reason,
    )


def _digest(resolution: Resolution) -> str:
    said = [
        "operator-v1",
        resolution.status.value,
        resolution.pay_order_no or "",
        resolution.paid_at.isoformat() if resolution.paid_at else "",
        resolution.stated_by,
        resolution.reason,
    ]
    return sha256(json.dumps(said).encode()).hexdigest()
