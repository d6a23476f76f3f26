"""Every message of the gateway's document as a dataclass. Personal data is left out of every repr."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class RequestMethod(StrEnum):
    """The envelope's `method`."""

    PRE_TIED_CARD = "pre-tied-card"
    CONFIRM_TIED_CARD = "confirm-tied-card"
    SINGLE_WITHHOLD = "single-withhold"
    SINGLE_ORDER_QUERY = "single-order-query"


class AmountUnit(StrEnum):
    """The unit of a gateway's amounts. The document does not name it, so the operator must set it."""

    #: At most two decimals, e.g. `100`, `100.5`, `100.00`.
    YUAN = "yuan"
    #: Whole hundredths of a yuan, e.g. `10000`.
    FEN = "fen"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnvelope:
    """The body of every request (document: 公共请求参数)."""

    ua: str
    #: The method's arguments, encrypted.
    args: str
    sign: str
    request_id: str
    #: One of `RequestMethod`.
    method: str
    #: Unix seconds as text; None if it was left out.
    timestamp: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTiedCardArgs:
    """Start to bind a card: the gateway sends a verification code (document: 1)."""

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
    """Charge a bound card (document: 3). Needs the card number, the protocol number, or both."""

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
    #: Without one there is no callback. It may hold a notify token.
    notify_url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleOrderQueryArgs:
    """Query an order's status (document: 4)."""

    biz_order_no: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStatement:
    """What the gateway says about one order, as sent: in a callback, or in the answer to a withhold or a query.

    "" stands for an absent, null or empty field.
    """

    biz_order_no: str
    pay_order_no: str = ""
    #: Callbacks only.
    order_type: str = ""
    pay_type: str = ""
    #: The gateway's spelling: success, fail, initial, pending, wait_pay, or an unknown one.
    pay_status: str
    pay_time: str = ""
    channel_response: str = field(default="", repr=False)
    #: Fields that the document requires and that were left out, by their documented names. Empty fields are not listed.
    missing_fields: Sequence[str] = ()
    #: Fields that the document does not name. Strings are kept, other values are JSON text.
    unknown_fields: Mapping[str, str] = field(default_factory=dict, repr=False)


#: An answer's `status` if the gateway has done or accepted the request.
SUCCEEDED = "1"
#: An answer's `status` if it has not. The document gives no other status a meaning.
FAILED = "-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAnswer:
    """The fields that every answer of the gateway has."""

    #: As sent: `SUCCEEDED`, `FAILED`, or an undocumented value.
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

    #: Not None if it succeeded.
    unique_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmTiedCardAnswer(GatewayAnswer):
    """The answer to `ConfirmTiedCardArgs`."""

    #: Not None if it succeeded.
    protocol_no: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderAnswer(GatewayAnswer):
    """The answer to `SingleWithholdArgs` or `SingleOrderQueryArgs`.

    A withhold that failed may still move money, and one that succeeded is accepted, not paid.
    """

    #: None if the answer holds no order. Not None if it succeeded.
    order: OrderStatement | None = None
