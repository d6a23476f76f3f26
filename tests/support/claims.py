"""Claims for tests: what a true gateway, a forger, an answer or an operator says."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from service.domain.claims import Claim, ClaimSource, OrderStatus, Trust
from service.ledger.audit import Author

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)

#: Whoever changes something, where it does not matter who.
AUTHOR = Author(name="Li Lei", reason="they have lost it")

_SOURCES = {Trust.QUERIED: ClaimSource.QUERY, Trust.OPERATOR: ClaimSource.OPERATOR}
_SAID = (
    "merchant",
    "biz_order_no",
    "status",
    "pay_order_no",
    "order_type",
    "pay_type",
    "amount",
    "paid_at",
    "channel_response",
)


def a_claim(
    status: OrderStatus | None = OrderStatus.SUCCEEDED,
    trust: Trust = Trust.CAPABILITY,
    *,
    order: str = "DK1",
    minute: float = 0,
    **more: Any,
) -> Claim:
    """A claim stated `minute` minutes after noon; its digest follows from what it says, as that of a real one does."""
    values: dict[str, Any] = {
        "merchant": "acme",
        "biz_order_no": order,
        "trust": trust,
        "source": _SOURCES.get(trust, ClaimSource.CALLBACK),
        "status": status,
        "pay_order_no": "P1",
        "order_type": "withhold",
        "pay_type": "bank",
        "stated_at": NOON + timedelta(minutes=minute),
        **more,
    }
    known = {field.name for field in fields(Claim)}
    assert values.keys() <= known, f"not fields of a claim: {values.keys() - known}"
    said = "|".join(ascii(values.get(name)) for name in _SAID)
    return Claim(**{"digest": sha256(said.encode()).hexdigest(), **values})
