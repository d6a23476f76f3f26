"""Claims: what somebody says an order's status is, and how far that somebody is to be believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import NamedTuple


class OrderStatus(StrEnum):
    """How far an order has come. The order of the members is the order of the states."""

    INITIAL = "initial"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether the gateway promises nothing further after this status."""
        return self in (OrderStatus.SUCCEEDED, OrderStatus.FAILED)


class Trust(IntEnum):
    """How far a claim's origin is proven; higher wins over lower.

    The callback's sign has no secret: it proves that a body arrived as it was sent, never who sent it.
    """

    #: The sign fits the body. Anyone can make such a body.
    CHECKSUM = 10
    #: It came in on the unguessable notify_url that was minted for this very order.
    CAPABILITY = 20
    #: The gateway itself answered so when it was asked.
    QUERIED = 30
    #: A named person said so, with a reason.
    OPERATOR = 40

    @property
    def word(self) -> str:
        """What settings, events, queue messages and logs call it."""
        return "query" if self is Trust.QUERIED else self.name.lower()


class ClaimSource(StrEnum):
    """Who speaks."""

    CALLBACK = "callback"
    QUERY = "query"
    OPERATOR = "operator"


class OrderKey(NamedTuple):
    """What names an order: our slug of the merchant, and the merchant's own order number."""

    merchant: str
    biz_order_no: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One statement about one order, normalised: the gateway's spelling ends where a Claim begins."""

    #: Slug of the merchant, from the address the callback came in on; never from the body.
    merchant: str
    #: 1 to 128 printable characters.
    biz_order_no: str
    trust: Trust
    source: ClaimSource
    #: None where `quarantine` says why the status cannot be read.
    status: OrderStatus | None
    #: The gateway's own number for the payment; None where it gave none.
    pay_order_no: str | None = None
    #: The gateway's words, kept as sent; "" where absent. Where there is a `quarantine` they may be anything.
    order_type: str = ""
    pay_type: str = ""
    #: When the money moved, aware; None unless the gateway said so.
    paid_at: datetime | None = None
    #: The payment channel's own words, unmasked; "" where absent.
    channel_response: str = ""
    #: When the claim was made, aware. Callback: when it was received. Query: when it was *asked*, not answered.
    #: Operator: when the person spoke.
    stated_at: datetime
    #: sha256, hex, over the normalised fields: equal digests say the same thing.
    digest: str
    #: Why a person has to look (unknown status, order type or pay type), the words masked; None for an ordinary claim.
    quarantine: str | None = None
    #: Fields that the document does not name, as sent (strings as strings, other values as JSON text).
    unknown_fields: Mapping[str, str] = field(default_factory=dict)
    #: Fields that the document requires and the gateway left out, by the document's names.
    missing_fields: Sequence[str] = ()
    #: W3C traceparent of the request that brought it; None where there was none.
    traceparent: str | None = None
    #: Operator's claims: who said so, and why. "" otherwise.
    stated_by: str = ""
    reason: str = ""

    @property
    def order(self) -> OrderKey:
        """The order that the claim is about."""
        return OrderKey(self.merchant, self.biz_order_no)
