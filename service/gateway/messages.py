# ruff: noqa: ARG002 - marshmallow passes every field the same arguments.
"""Every message of the gateway's document: a dataclass whose annotations say how it is read and written.

What we send is checked strictly, field by field as documented. What the gateway sends is read leniently. Personal data
is left out of every repr.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from marshmallow import EXCLUDE, INCLUDE, ValidationError, fields, missing, post_dump, post_load

from service.config.schema import NOT_A_KEY, DataclassSchema, Mistake, make_schema
from service.domain.order_numbers import MAX_ORDER_NO_CHARACTERS, is_order_no
from service.gateway.bodies import JsonValue, NumberToken
from service.gateway.errors import FieldProblem, MessageInvalid
from service.gateway.json_dialects import UNICODE
from service.runtime.logs import Logger

_log = Logger(__name__)


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

# PostgreSQL cannot store NUL, and UTF-8 cannot encode surrogates.
_UNENCODABLE = re.compile("[\0\ud800-\udfff]")
_AMOUNTS = {
    AmountUnit.YUAN: (
        "an amount in yuan above 0: digits with at most two decimals, e.g. 100.00",
        re.compile(r"(?=.*[1-9])(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,2})?"),
    ),
    AmountUnit.FEN: ("an amount in fen above 0: digits only, e.g. 10000", re.compile(r"[1-9][0-9]{0,13}")),
}


class StrictText(fields.Field[str]):
    """A string, checked and never converted. Its errors say what is wrong and what is allowed; they quote no value."""

    def __init__(
        self,
        *,
        allowed: str = "a string that is not empty",
        pattern: re.Pattern[str] | None = None,
        required: bool = True,
        data_key: str | None = None,
    ) -> None:
        """`allowed` describes what `pattern` matches."""
        super().__init__(
            required=required,
            data_key=data_key,
            error_messages={"required": f"missing; needed is {allowed}", "null": f"null; allowed is {allowed}"},
        )
        self._allowed = allowed
        self._pattern = pattern

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(f"{_kind(value)}; allowed is {self._allowed}")
        if not self._fits(value):
            found = f"{len(value)} characters that do not fit" if value else "empty"
            raise ValidationError(f"{found}; allowed is {self._allowed}")
        return value

    def _fits(self, value: str) -> bool:
        return bool(value) if self._pattern is None else self._pattern.fullmatch(value) is not None


class Amount(StrictText):
    """An exact amount of money in one unit, as text; never rounded, never a number."""

    def __init__(self, unit: AmountUnit) -> None:
        allowed, pattern = _AMOUNTS[unit]
        super().__init__(allowed=allowed, pattern=pattern)


class OrderNumber(StrictText):
    """A merchant's order number. A JSON number is read as its text."""

    def __init__(self) -> None:
        super().__init__(allowed=f"1 to {MAX_ORDER_NO_CHARACTERS} printable characters")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        return super()._deserialize(value.text if isinstance(value, NumberToken) else value, attr, data, **kwargs)

    def _fits(self, value: str) -> bool:
        return is_order_no(value)


class LenientText(fields.Field[str]):
    """Any JSON value, as text: "" for null and for an empty list or object, JSON text for other values but strings.

    A value longer than expected is kept, with a warning in the log. NUL and lone surrogates become U+FFFD.
    """

    def __init__(self, *, expected_characters: int, required: bool = False, needed: str = "a string") -> None:
        """`needed` describes what a required value is."""
        super().__init__(
            required=required,
            allow_none=True,
            load_default=missing if required else "",
            error_messages={"required": f"missing; needed is {needed}"},
        )
        self._expected_characters = expected_characters

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Like any field's, but null is converted like other values, and no validators run."""
        if value is missing:
            return super().deserialize(value, attr, data, **kwargs)
        text = to_text(value)
        if len(text) > self._expected_characters:
            _log.warning(
                "gateway_value_too_long", field=attr, characters=len(text), expected_most=self._expected_characters
            )
        return text


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
            error_messages={"required": "missing; needed is an object, with protocol_no where there is one"},
        )

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | None:
        if not isinstance(value, dict) and value != []:
            raise ValidationError(f"{_kind(value)}; allowed is an object, or [] for an empty one")
        number = value.get("protocol_no") if isinstance(value, dict) else None
        if number is not None and (not isinstance(number, str) or not number):
            found = "empty" if number == "" else _kind(number)
            raise ValidationError({"protocol_no": [f"{found}; allowed is a string that is not empty"]})
        return number

    def _serialize(self, value: str | None, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, str] | list[str]:
        return [] if value is None else {"protocol_no": value}


def _unwrap(value: Any) -> Any:
    """The item of a list of one, else the value: some gateways wrap an object in a list, as the document has it."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def to_text(value: Any) -> str:
    """A JSON value as text that any database and encoding can hold."""
    if isinstance(value, str):
        text = value
    elif value is None or value in ([], {}):
        return ""
    elif type(value) is int:
        text = str(value)
    else:
        text = UNICODE.write(value)
    return _UNENCODABLE.sub("\ufffd", text)


def _kind(value: object) -> str:
    kinds = {str: "a string", bytes: "bytes", bool: "true or false", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


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
            yield "", "missing; needed is one of bank_card_number and biz_data.protocol_no, or both"


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleOrderQueryArgs:
    """Query an order's status (document: 4)."""

    biz_order_no: Annotated[str, OrderNumber()]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStatement:
    """What the gateway says about one order, as sent: in a callback, or in the answer to a withhold or a query.

    "" stands for an absent, null or empty field.
    """

    biz_order_no: Annotated[str, OrderNumber()]
    pay_order_no: Annotated[str, LenientText(expected_characters=128)] = ""
    #: Callbacks only.
    order_type: Annotated[str, LenientText(expected_characters=64)] = ""
    pay_type: Annotated[str, LenientText(expected_characters=64)] = ""
    #: The gateway's spelling: success, fail, initial, pending, wait_pay, or an unknown one.
    pay_status: Annotated[str, LenientText(expected_characters=64, required=True)]
    pay_time: Annotated[str, LenientText(expected_characters=64)] = ""
    channel_response: Annotated[str, LenientText(expected_characters=250)] = field(default="", repr=False)
    #: Fields that the document requires and that were left out, by their documented names. Empty fields are not listed.
    missing_fields: Annotated[Sequence[str], NOT_A_KEY] = ()
    #: Fields that the document does not name. Strings are kept, other values are JSON text.
    unknown_fields: Annotated[Mapping[str, str], NOT_A_KEY] = field(default_factory=dict, repr=False)


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
            yield "response.unique_code", "missing; needed where status is 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmTiedCardAnswer(GatewayAnswer):
    """The answer to `ConfirmTiedCardArgs`."""

    #: Not None if it succeeded.
    protocol_no: Annotated[str | None, WrappedText("protocol_no")] = None

    def find_mistakes(self) -> Iterable[Mistake]:
        """Find that a success has no protocol number."""
        if self.succeeded and self.protocol_no is None:
            yield "response.protocol_no", "missing; needed where status is 1"


Message = TypeVar("Message")


class MessageSchema(DataclassSchema, Generic[Message]):
    """How one kind of message is read and written. Unknown fields are ignored. Safe to share between threads."""

    #: What error messages call the message.
    message_name: ClassVar[str]

    class Meta:
        """Ignores unknown fields."""

        unknown = EXCLUDE
        register = False

    def read(self, values: Mapping[str, JsonValue]) -> Message:
        """The message in a decoded JSON object. Raises `MessageInvalid`, which names every invalid field."""
        try:
            message: Message = self.load(values)
        except ValidationError as error:
            raise MessageInvalid(self.message_name, tuple(_list_problems(error.messages))) from error
        return message

    def write(self, message: Message) -> dict[str, JsonValue]:
        """The message as fields to send, without those that are None. Raises `MessageInvalid` if one is not allowed."""
        values: dict[str, JsonValue] = self.dump(message)
        self.read(values)
        return values

    @post_dump
    def _leave_out_absent(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if value is not None}


class _StatementSchema(MessageSchema[OrderStatement]):
    """Keeps fields that the document does not name."""

    #: Fields that the document requires and we do not: if one is absent, that is recorded.
    expected: ClassVar[Sequence[str]] = ()

    class Meta:
        """Keeps unknown fields."""

        unknown = INCLUDE
        register = False

    @post_load(pass_original=True)
    def _make(self, data: dict[str, Any], original: Mapping[str, JsonValue], **_kwargs: Any) -> OrderStatement:
        unknown_names = [name for name in data if name not in self.fields]
        unknown = {to_text(name): to_text(data.pop(name)) for name in unknown_names}
        missing = tuple(name for name in self.expected if name not in original)
        return OrderStatement(**data, unknown_fields=unknown, missing_fields=missing)


def _list_problems(messages: Any, path: str = "") -> Iterator[FieldProblem]:
    if isinstance(messages, Mapping):
        for name, nested in sorted(messages.items(), key=str):
            here = path if name == "_schema" else f"{path}.{name}".lstrip(".")
            yield from _list_problems(nested, here)
        return
    for text in messages:
        yield FieldProblem(path, text)


def _schema(
    message: type[Message], name: str, base: type[MessageSchema[Any]] = MessageSchema, **overrides: Any
) -> MessageSchema[Message]:
    made: MessageSchema[Message] = make_schema(message, base, message_name=name, **overrides)()  # type: ignore[assignment]
    return made


class OrderInResponse(fields.Nested):
    """The order in an answer's `response`; None where that names no order, whatever else is in it."""

    def __init__(self) -> None:
        super().__init__(
            lambda: _schema(OrderStatement, "order", _StatementSchema), data_key="response", load_default=None
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


REQUEST_ENVELOPE = _schema(RequestEnvelope, "request")
PRE_TIED_CARD_ARGS = _schema(PreTiedCardArgs, "pre-tied-card")
CONFIRM_TIED_CARD_ARGS = _schema(ConfirmTiedCardArgs, "confirm-tied-card")
#: By the unit of the merchant's amounts.
SINGLE_WITHHOLD_ARGS: Mapping[AmountUnit, MessageSchema[SingleWithholdArgs]] = {
    unit: _schema(SingleWithholdArgs, "single-withhold", amount=Amount(unit)) for unit in AmountUnit
}
SINGLE_ORDER_QUERY_ARGS = _schema(SingleOrderQueryArgs, "single-order-query")
PRE_TIED_CARD_ANSWER = _schema(PreTiedCardAnswer, "answer to pre-tied-card")
CONFIRM_TIED_CARD_ANSWER = _schema(ConfirmTiedCardAnswer, "answer to confirm-tied-card")
#: The answer to a withhold or a query.
ORDER_ANSWER = _schema(OrderAnswer, "answer about an order")
#: A callback, without its sign (document: 5). Required are the order's numbers, ours and the gateway's, and its status.
CALLBACK = _schema(
    OrderStatement,
    "callback",
    _StatementSchema,
    expected=("order_type", "pay_type", "pay_time", "channel_response"),
    pay_order_no=LenientText(expected_characters=128, required=True),
)
