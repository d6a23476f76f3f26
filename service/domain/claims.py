"""Claims: what somebody says about an order's status, and how far that is to be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import NamedTuple

from service.domain.money import Money


class OrderStatus(StrEnum):
    """An order's status. The order of the members is the order of the states."""

    INITIAL = "initial"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether no further status follows."""
        return self in (OrderStatus.SUCCEEDED, OrderStatus.FAILED)


class Trust(IntEnum):
    """How far a claim's origin is proven; a higher trust outranks a lower one.

    A callback's sign uses no secret: it proves that the body is unaltered, and not who sent it.
    """

    #: The sign is valid, which anyone can achieve.
    CHECKSUM = 10
    #: The gateway refused the withhold, and a rule of the operator's takes that for the end.
    RULE = 15
    #: It came in at the unguessable notify_url that was made for this order.
    CAPABILITY = 20
    #: The gateway itself stated it when it was asked.
    QUERIED = 30
    #: A named person stated it, with a reason.
    OPERATOR = 40

    @property
    def word(self) -> str:
        """Its name in settings, events, queue messages and logs."""
        return "query" if self is Trust.QUERIED else self.name.lower()


class ClaimSource(StrEnum):
    """Where a claim comes from."""

    CALLBACK = "callback"
    QUERY = "query"
    RULE = "rule"
    OPERATOR = "operator"


class IdentityField(StrEnum):
    """What tells one payment from another. Claims that differ in one of them contradict each other."""

    PAY_ORDER_NO = "pay_order_no"
    PAY_TYPE = "pay_type"
    ORDER_TYPE = "order_type"
    AMOUNT = "amount"


class OrderKey(NamedTuple):
    """What names an order: our slug of the merchant, and the merchant's own order number."""

    merchant: str
    biz_order_no: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One statement about one order, in our own terms instead of the gateway's."""

    #: Slug of the merchant, from the callback's address; never from its body.
    merchant: str
    #: 1 to 128 printable characters.
    biz_order_no: str
    trust: Trust
    source: ClaimSource
    #: None where `quarantine` says why the status cannot be read.
    status: OrderStatus | None
    #: The gateway's number of the payment; None where it gave none.
    pay_order_no: str | None = None
    #: As sent by the gateway; "" where absent. With a `quarantine` they may be anything.
    order_type: str = ""
    pay_type: str = ""
    #: What the gateway stated; None where it stated none that can be read.
    amount: Money | None = None
    #: When the payment was made, aware; None where the gateway did not state it.
    paid_at: datetime | None = None
    #: The payment channel's response, unmasked; "" where absent.
    channel_response: str = ""
    #: When the claim was made, aware. Callback: when it was received. Query: when the gateway was asked, not when it
    #: answered. Operator: when the person made it. Rule: when it ended the order.
    stated_at: datetime
    #: sha256, hex, over the normalised fields: claims with equal digests state the same.
    digest: str
    #: The digest that the claim would have without its amount, by which it was recorded while the amount was not read;
    #: None where that is `digest`.
    digest_without_amount: str | None = None
    #: Why a person has to look (unknown status, order type or pay type), masked; None for an ordinary claim.
    quarantine: str | None = None
    #: Fields that are not in the gateway's document, as sent (strings as strings, other values as JSON text).
    unknown_fields: Mapping[str, str] = field(default_factory=dict)
    #: Fields that the document requires and that are missing, by the document's names.
    missing_fields: Sequence[str] = ()
    #: W3C traceparent of the request that brought it; None where there was none.
    traceparent: str | None = None
    #: Of an operator's or a rule's claim: who or which rule made it, and why. "" otherwise.
    stated_by: str = ""
    reason: str = ""

    @property
    def order(self) -> OrderKey:
        """The order that the claim is about."""
        return OrderKey(self.merchant, self.biz_order_no)
