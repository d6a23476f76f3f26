"""Every message of the gateway's document as a value. Personal data stays out of every repr."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class RequestMethod(StrEnum):
    """What a request asks for: the envelope's `method`."""

    PRE_TIED_CARD = "pre-tied-card"
    CONFIRM_TIED_CARD = "confirm-tied-card"
    SINGLE_WITHHOLD = "single-withhold"
    SINGLE_ORDER_QUERY = "single-order-query"


class AmountUnit(StrEnum):
    """What an `amount` counts at this gateway; the document does not say, so the operator must."""

    #: At most two decimals, e.g. `100`, `100.5`, `100.00`.
    YUAN = "yuan"
    #: Whole hundredths of a yuan, e.g. `10000`.
    FEN = "fen"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnvelope:
    """What is posted to the gateway, whichever method it is (document: 公共请求参数)."""

    ua: str
    #: The method's arguments, encrypted.
    args: str
    sign: str
    request_id: str
    #: One of `RequestMethod`.
    method: str
    #: Unix seconds as text; None where it was left out.
    timestamp: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTiedCardArgs:
    """Bind a card: asks for a verification code (document: 1)."""

    id_card_number: str = field(repr=False)
    bank_card_number: str = field(repr=False)
    mobile: str = field(repr=False)
    name: str = field(repr=False)
    pay_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmTiedCardArgs:
    """Confirm a binding with the code that the card's owner was sent (document: 2)."""

    verification_code: str = field(repr=False)
    unique_code: str
    bank_card_number: str = field(repr=False)
    pay_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleWithholdArgs:
    """Charge a bound card (document: 3). Needs the card's number, its protocol's number, or both."""

    biz_order_no: str
    #: Exact, in the merchant's `AmountUnit`.
    amount: str
    name: str = field(repr=False)
    id_card_number: str = field(repr=False)
    mobile: str = field(repr=False)
    pay_type: str
    bank_card_number: str | None = field(default=None, repr=False)
    #: `biz_data.protocol_no` on the wire.
    protocol_no: str | None = None
    #: Without one there is no callback. It may hold a capability token.
    notify_url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleOrderQueryArgs:
    """Ask for an order's status (document: 4)."""

    biz_order_no: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStatement:
    """The gateway's words about one order, as sent: in a callback, or in the answer to a withhold or a query.

    "" stands for whatever is absent, null or empty.
    """

    biz_order_no: str
    pay_order_no: str = ""
    #: Callbacks only.
    order_type: str = ""
    pay_type: str = ""
    #: The gateway's own spelling: success, fail, initial, pending, wait_pay, or what we do not know.
    pay_status: str
    pay_time: str = ""
    channel_response: str = field(default="", repr=False)
    #: What the document requires and was left out, by the document's names. What is there and empty is not.
    missing_fields: Sequence[str] = ()
    #: What the document does not name: strings as strings, other values as JSON text.
    unknown_fields: Mapping[str, str] = field(default_factory=dict, repr=False)


#: What an answer's `status` is where the gateway did, or accepted, what it was asked for.
SUCCEEDED = "1"
#: What it is where it did not. Any other status has no meaning in the document.
FAILED = "-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAnswer:
    """What every answer has."""

    #: As answered: `SUCCEEDED`, `FAILED`, or what the document does not know.
    status: str
    message: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether `status` was 1."""
        return self.status == SUCCEEDED

    @property
    def failed(self) -> bool:
        """Whether `status` was -1."""
        return self.status == FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTiedCardAnswer(GatewayAnswer):
    """The answer to `PreTiedCardArgs`."""

    #: Always there where it succeeded.
    unique_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmTiedCardAnswer(GatewayAnswer):
    """The answer to `ConfirmTiedCardArgs`."""

    #: Always there where it succeeded.
    protocol_no: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderAnswer(GatewayAnswer):
    """The answer to `SingleWithholdArgs` or `SingleOrderQueryArgs`.

    A withhold that did not succeed may have moved money all the same, and one that did is accepted, not paid.
    """

    #: What it says of the order; None where it says nothing. Always there where it succeeded.
    order: OrderStatement | None = None
