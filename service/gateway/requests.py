# ruff: noqa: ARG002 - marshmallow passes every field the same arguments.
"""The requests of the gateway's document (1 to 4), their answers, and the envelope in which arguments are sent."""

import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import md5
from typing import Annotated, Any

from marshmallow import ValidationError, fields

from service.config.schema import Mistake
from service.config.secrets import Secret
from service.gateway.cipher import RequestDialect, SignCase
from service.gateway.errors import RequestRefused
from service.gateway.messages import (
    LenientText,
    MessageSchema,
    OrderNumber,
    OrderStatement,
    OrderStatementSchema,
    StrictText,
    describe_kind,
    make_message_schema,
    to_text,
)


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


#: An answer's `status` if the gateway has done or accepted the request.
SUCCEEDED = "1"
#: An answer's `status` if it has not. The document gives no other status a meaning.
FAILED = "-1"

_AMOUNTS = {
    AmountUnit.YUAN: (
        "an amount in yuan above 0: digits with at most two decimals, e.g. 100.00",
        re.compile(r"(?=.*[1-9])(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,2})?"),
    ),
    AmountUnit.FEN: ("an amount in fen above 0: digits only, e.g. 10000", re.compile(r"[1-9][0-9]{0,13}")),
}


class Amount(StrictText):
    """An exact amount of money in one unit, as text; never rounded, never a number."""

    def __init__(self, unit: AmountUnit) -> None:
        allowed, pattern = _AMOUNTS[unit]
        super().__init__(allowed=allowed, pattern=pattern)


class WrappedText(fields.Field[str | None]):
    """One string that the document puts into an answer's `response`, an object of its own.

    The object may be the only item of a list. Anything else is read as None.
    """

    def __init__(self, name: str) -> None:
        super().__init__(data_key="response", allow_none=True, load_default=None)
        self._name = name

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | None:
        found = _unwrap(value)
        return (to_text(found.get(self._name)) or None) if isinstance(found, dict) else None


class ProtocolNumber(fields.Field[str | None]):
    """`biz_data`: an object with at most `protocol_no` in it. None is written as `[]`, as PHP writes an empty array."""

    def __init__(self) -> None:
        super().__init__(
            data_key="biz_data",
            required=True,
            error_messages={"required": "missing; expected an object, with protocol_no where there is one"},
        )

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | None:
        if not isinstance(value, dict) and value != []:
            raise ValidationError(f"{describe_kind(value)}; expected an object, or [] for an empty one")
        number = value.get("protocol_no") if isinstance(value, dict) else None
        if number is not None and (not isinstance(number, str) or not number):
            found = "empty" if number == "" else describe_kind(number)
            raise ValidationError({"protocol_no": [f"{found}; expected a string that is not empty"]})
        return number

    def _serialize(self, value: str | None, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, str] | list[str]:
        return [] if value is None else {"protocol_no": value}


def _unwrap(value: Any) -> Any:
    """The item of a list of one, else the value: some gateways wrap an object in a list, as the document has it."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnvelope:
    """The body of every request (document: 公共请求参数)."""

    ua: Annotated[str, StrictText()]
    #: The method's arguments, encrypted.
    args: Annotated[str, StrictText()]
    sign: Annotated[str, StrictText(allowed="32 hex digits", pattern=re.compile(r"[0-9a-fA-F]{32}"))]
    #: Unix seconds as text; None if it was left out.
    timestamp: Annotated[
        str | None,
        StrictText(allowed="unix seconds in digits", pattern=re.compile(r"[0-9]{1,12}"), required=False),
    ] = None
    request_id: Annotated[str, StrictText(data_key="requestId")]
    #: One of `RequestMethod`.
    method: Annotated[
        str,
        StrictText(
            allowed=f"one of {', '.join(RequestMethod)}", pattern=re.compile("|".join(map(re.escape, RequestMethod)))
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTiedCardArgs:
    """Start to bind a card: the gateway sends a verification code (document: 1)."""

    id_card_number: Annotated[str, StrictText()] = field(repr=False)
    bank_card_number: Annotated[str, StrictText()] = field(repr=False)
    mobile: Annotated[str, StrictText()] = field(repr=False)
    name: Annotated[str, StrictText()] = field(repr=False)
    pay_type: Annotated[str, StrictText()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmTiedCardArgs:
    """Confirm a binding with the code that the card's owner was sent (document: 2)."""

    verification_code: Annotated[str, StrictText()] = field(repr=False)
    unique_code: Annotated[str, StrictText()]
    bank_card_number: Annotated[str, StrictText()] = field(repr=False)
    pay_type: Annotated[str, StrictText()]


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleWithholdArgs:
    """Charge a bound card (document: 3). Needs the card number, the protocol number, or both."""

    biz_order_no: Annotated[str, OrderNumber()]
    bank_card_number: Annotated[str | None, StrictText(required=False)] = field(default=None, repr=False)
    name: Annotated[str, StrictText()] = field(repr=False)
    id_card_number: Annotated[str, StrictText()] = field(repr=False)
    mobile: Annotated[str, StrictText()] = field(repr=False)
    #: `biz_data.protocol_no` on the wire.
    protocol_no: Annotated[str | None, ProtocolNumber()] = None
    #: Without one there is no callback. It may hold a notify token.
    notify_url: Annotated[
        str | None, StrictText(allowed="an http or https URL", pattern=re.compile(r"https?://\S+"), required=False)
    ] = field(default=None, repr=False)
    pay_type: Annotated[str, StrictText()]
    #: Exact, in the merchant's `AmountUnit`, by which its schema is chosen.
    amount: str

    def find_mistakes(self) -> Iterable[Mistake]:
        """Find that there is nothing to charge."""
        if not self.bank_card_number and not self.protocol_no:
            yield "", "missing; expected one of bank_card_number and biz_data.protocol_no, or both"


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleOrderQueryArgs:
    """Query an order's status (document: 4)."""

    biz_order_no: Annotated[str, OrderNumber()]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAnswer:
    """The fields that every answer of the gateway has."""

    #: As sent: `SUCCEEDED`, `FAILED`, or an undocumented value.
    status: Annotated[
        str,
        LenientText(expected_characters=66, required=True, needed=f"{SUCCEEDED} (success) or {FAILED} (failure)"),
    ]
    message: Annotated[str, LenientText(expected_characters=250)] = ""

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
    unique_code: Annotated[str | None, WrappedText("unique_code")] = None

    def find_mistakes(self) -> Iterable[Mistake]:
        """Find that a success has no code."""
        if self.succeeded and self.unique_code is None:
            yield "response.unique_code", "missing; required where status is 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmTiedCardAnswer(GatewayAnswer):
    """The answer to `ConfirmTiedCardArgs`."""

    #: Not None if it succeeded.
    protocol_no: Annotated[str | None, WrappedText("protocol_no")] = None

    def find_mistakes(self) -> Iterable[Mistake]:
        """Find that a success has no protocol number."""
        if self.succeeded and self.protocol_no is None:
            yield "response.protocol_no", "missing; required where status is 1"


class OrderInResponse(fields.Nested):
    """The order in an answer's `response`; None where that names no order, whatever else is in it."""

    def __init__(self) -> None:
        super().__init__(
            lambda: make_message_schema(OrderStatement, "order", OrderStatementSchema),
            data_key="response",
            load_default=None,
        )

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Like any field's, but null, [], {} and "" are empty, and a failure may have anything there."""
        response = _unwrap(value)
        if not isinstance(response, dict) or response.get("biz_order_no") in (None, ""):
            return None
        return super().deserialize(response, attr, data, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderAnswer(GatewayAnswer):
    """The answer to `SingleWithholdArgs` or `SingleOrderQueryArgs`.

    A withhold that failed may still move money, and one that succeeded is accepted, not paid.
    """

    #: None if the answer holds no order. Not None if it succeeded.
    order: Annotated[OrderStatement | None, OrderInResponse()] = None

    def find_mistakes(self) -> Iterable[Mistake]:
        """Find that a success has no order."""
        if self.succeeded and self.order is None:
            yield "response", "empty; needed is an order where status is 1"


REQUEST_ENVELOPE = make_message_schema(RequestEnvelope, "request")
PRE_TIED_CARD_ARGS = make_message_schema(PreTiedCardArgs, "pre-tied-card")
CONFIRM_TIED_CARD_ARGS = make_message_schema(ConfirmTiedCardArgs, "confirm-tied-card")
#: By the unit of the merchant's amounts.
SINGLE_WITHHOLD_ARGS: Mapping[AmountUnit, MessageSchema[SingleWithholdArgs]] = {
    unit: make_message_schema(SingleWithholdArgs, "single-withhold", amount=Amount(unit)) for unit in AmountUnit
}
SINGLE_ORDER_QUERY_ARGS = make_message_schema(SingleOrderQueryArgs, "single-order-query")
PRE_TIED_CARD_ANSWER = make_message_schema(PreTiedCardAnswer, "answer to pre-tied-card")
CONFIRM_TIED_CARD_ANSWER = make_message_schema(ConfirmTiedCardAnswer, "answer to confirm-tied-card")
#: The answer to a withhold or a query.
ORDER_ANSWER = make_message_schema(OrderAnswer, "answer about an order")


def new_request_id() -> str:
    """A unique requestId that cannot be guessed from others."""
    return secrets.token_hex(16)


def write_envelope(
    method: RequestMethod,
    args: str,
    *,
    ua: str,
    aes_key: Secret,
    dialect: RequestDialect,
    request_id: str,
    sent_at: datetime,
    sign: str = "",
) -> bytes:
    """The body to post, with encrypted args and their sign. The probe sends a wrong `sign` of its own."""
    envelope = RequestEnvelope(
        ua=ua,
        args=args,
        sign=sign or sign_request(ua=ua, key=aes_key.reveal(), method=method, args=args, dialect=dialect),
        request_id=request_id,
        method=method,
        timestamp=str(int(sent_at.timestamp())),
    )
    return json.dumps(REQUEST_ENVELOPE.write(envelope)).encode()


def sign_request(*, ua: str, key: str, method: str, args: str, dialect: RequestDialect) -> str:
    """The sign of a request envelope: md5 hex of ua, key, method and args (the ciphertext as sent), joined.

    `key` is the key as the gateway handed it out, before anything is derived from it.
    """
    text = dialect.sign_separator.join((ua, key, method, args))
    sign = md5(text.encode("utf-8", "surrogateescape")).hexdigest()
    return sign.upper() if dialect.sign_case is SignCase.UPPER else sign


def verify_request(*, sign: str, ua: str, key: str, method: str, args: str, dialect: RequestDialect) -> None:
    """Raise `RequestRefused` unless `sign` is exactly the sign of the envelope. Compares in constant time."""
    expected = sign_request(ua=ua, key=key, method=method, args=args, dialect=dialect)
    if not hmac.compare_digest(expected.encode(), sign.encode("utf-8", "surrogatepass")):
        raise RequestRefused("the sign does not fit ua, key, method and args")
