# ruff: noqa: ARG002 - marshmallow passes every field the same arguments.
"""marshmallow schemas of every message in the document. Our side and the sandbox's side use the same schemas.

What we send is checked strictly, field by field as documented. What the gateway sends is read leniently.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from marshmallow import (
    EXCLUDE,
    INCLUDE,
    Schema,
    ValidationError,
    fields,
    missing,
    post_dump,
    post_load,
    pre_load,
    validates_schema,
)

from service.domain.order_numbers import MAX_ORDER_NO_CHARACTERS, is_order_no
from service.gateway.bodies import JsonValue, NumberToken
from service.gateway.errors import MessageInvalid, Problem
from service.gateway.json_dialects import UNICODE
from service.gateway.messages import (
    FAILED,
    SUCCEEDED,
    AmountUnit,
    ConfirmTiedCardAnswer,
    ConfirmTiedCardArgs,
    OrderAnswer,
    OrderStatement,
    PreTiedCardAnswer,
    PreTiedCardArgs,
    RequestEnvelope,
    RequestMethod,
    SingleOrderQueryArgs,
    SingleWithholdArgs,
)
from service.runtime.logs import Logger

# ruff: noqa: ARG002 - marshmallow passes every field the same arguments.


_log = Logger(__name__)

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
    """One string that the document puts into an object of its own, e.g. `biz_data.protocol_no`.

    The object may be the only item of a list. Anything else is read as None. None is written as `[]`, as PHP writes an
    empty array.
    """

    def __init__(self, inner: str, *, data_key: str, required: bool) -> None:
        super().__init__(
            required=required,
            allow_none=True,
            data_key=data_key,
            load_default=missing if required else None,
            error_messages={"required": f"missing; needed is an object, with {inner} where there is one"},
        )
        self._inner = inner

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | None:
        found = _unwrap(value)
        return (to_text(found.get(self._inner)) or None) if isinstance(found, dict) else None

    def _serialize(self, value: str | None, attr: str | None, obj: Any, **kwargs: Any) -> dict[str, str] | list[str]:
        return [] if value is None else {self._inner: value}


class StrictWrappedText(WrappedText):
    """A `WrappedText` that we send: an object with at most this string in it, or the empty list for none."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | None:
        if not isinstance(value, dict) and value != []:
            raise ValidationError(f"{_kind(value)}; allowed is an object, or [] for an empty one")
        inner = value.get(self._inner) if isinstance(value, dict) else None
        if inner is not None and (not isinstance(inner, str) or not inner):
            found = "empty" if inner == "" else _kind(inner)
            raise ValidationError({self._inner: [f"{found}; allowed is a string that is not empty"]})
        return inner


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


Message = TypeVar("Message")


def _list_problems(messages: Any, path: str = "") -> Iterator[Problem]:
    if isinstance(messages, Mapping):
        for name, nested in sorted(messages.items(), key=str):
            here = path if name == "_schema" else f"{path}.{name}".lstrip(".")
            yield from _list_problems(nested, here)
        return
    for text in messages:
        yield Problem(path, text)


class MessageSchema(Schema, Generic[Message]):
    """How one kind of message is read and written. Unknown fields are ignored. Safe to share between threads."""

    message_type: ClassVar[type]
    #: What error messages call the message.
    message_name: ClassVar[str]

    class Meta:
        """Ignores unknown fields."""

        unknown = EXCLUDE

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

    @post_load
    def _make_message(self, data: dict[str, Any], **_kwargs: Any) -> object:
        return self.message_type(**data)

    @post_dump
    def _leave_out_absent(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if value is not None}


class RequestEnvelopeSchema(MessageSchema[RequestEnvelope]):
    """公共请求参数."""

    message_type = RequestEnvelope
    message_name = "request"
    ua = StrictText()
    args = StrictText()
    sign = StrictText(allowed="32 hex digits", pattern=re.compile(r"[0-9a-fA-F]{32}"))
    timestamp = StrictText(allowed="unix seconds in digits", pattern=re.compile(r"[0-9]{1,12}"), required=False)
    request_id = StrictText(data_key="requestId")
    method = StrictText(
        allowed=f"one of {', '.join(RequestMethod)}", pattern=re.compile("|".join(map(re.escape, RequestMethod)))
    )


class PreTiedCardArgsSchema(MessageSchema[PreTiedCardArgs]):
    """1. 预绑卡接口."""

    message_type = PreTiedCardArgs
    message_name = "pre-tied-card"
    id_card_number = StrictText()
    bank_card_number = StrictText()
    mobile = StrictText()
    name = StrictText()
    pay_type = StrictText()


class ConfirmTiedCardArgsSchema(MessageSchema[ConfirmTiedCardArgs]):
    """2. 确认签约接口."""

    message_type = ConfirmTiedCardArgs
    message_name = "confirm-tied-card"
    verification_code = StrictText()
    unique_code = StrictText()
    bank_card_number = StrictText()
    pay_type = StrictText()


class _SingleWithholdArgsSchema(MessageSchema[SingleWithholdArgs]):
    """3. 单笔代扣接口, without the amount."""

    message_type = SingleWithholdArgs
    message_name = "single-withhold"
    biz_order_no = OrderNumber()
    bank_card_number = StrictText(required=False)
    name = StrictText()
    id_card_number = StrictText()
    mobile = StrictText()
    protocol_no = StrictWrappedText("protocol_no", data_key="biz_data", required=True)
    notify_url = StrictText(allowed="an http or https URL", pattern=re.compile(r"https?://\S+"), required=False)
    pay_type = StrictText()

    @validates_schema
    def _needs_a_card_or_a_protocol(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if not data.get("bank_card_number") and not data.get("protocol_no"):
            raise ValidationError("missing; needed is one of bank_card_number and biz_data.protocol_no, or both")


class YuanWithholdArgsSchema(_SingleWithholdArgsSchema):
    """3. 单笔代扣接口, for a gateway whose amounts are in yuan."""

    amount = Amount(AmountUnit.YUAN)


class FenWithholdArgsSchema(_SingleWithholdArgsSchema):
    """3. 单笔代扣接口, for a gateway whose amounts are in fen."""

    amount = Amount(AmountUnit.FEN)


class SingleOrderQueryArgsSchema(MessageSchema[SingleOrderQueryArgs]):
    """4. 单笔代扣结果查询接口."""

    message_type = SingleOrderQueryArgs
    message_name = "single-order-query"
    biz_order_no = OrderNumber()


class OrderStatementSchema(MessageSchema[OrderStatement]):
    """The `response` of a withhold's or a query's answer. Fields that the document does not name are kept."""

    message_type = OrderStatement
    #: Fields that the document requires and we do not: if one is absent, that is recorded.
    expected: ClassVar[Sequence[str]] = ()
    biz_order_no = OrderNumber()
    pay_order_no = LenientText(expected_characters=128)
    order_type = LenientText(expected_characters=64)
    pay_type = LenientText(expected_characters=64)
    pay_status = LenientText(expected_characters=64, required=True)
    pay_time = LenientText(expected_characters=64)
    channel_response = LenientText(expected_characters=250)

    class Meta:
        """Keeps unknown fields."""

        unknown = INCLUDE

    @post_load(pass_original=True)
    def _make_message(self, data: dict[str, Any], original: Mapping[str, JsonValue], **_kwargs: Any) -> OrderStatement:
        unknown_names = [name for name in data if name not in self.fields]
        unknown = {to_text(name): to_text(data.pop(name)) for name in unknown_names}
        missing = tuple(name for name in self.expected if name not in original)
        return OrderStatement(**data, unknown_fields=unknown, missing_fields=missing)

    @post_dump(pass_original=True)
    def _add_unknown_fields(self, data: dict[str, Any], original: OrderStatement, **_kwargs: Any) -> dict[str, Any]:
        if not original.order_type:
            # Only callbacks have one.
            del data["order_type"]
        return {**data, **original.unknown_fields}


class CallbackSchema(OrderStatementSchema):
    """5. 异步回调, without its sign. Required are the order's two numbers, ours and the gateway's, and its status."""

    message_name = "callback"
    expected = ("order_type", "pay_type", "pay_time", "channel_response")
    pay_order_no = LenientText(expected_characters=128, required=True)


class _AnswerSchema(MessageSchema[Message]):
    #: The field that a success must have, and the error if it has none.
    result: ClassVar[str]
    no_result: ClassVar[Any]
    status = LenientText(expected_characters=66, required=True, needed=f"{SUCCEEDED} (success) or {FAILED} (failure)")
    message = LenientText(expected_characters=250)

    @validates_schema
    def _require_result_on_success(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if data["status"] == SUCCEEDED and data.get(self.result) is None:
            raise ValidationError({"response": self.no_result})


class PreTiedCardAnswerSchema(_AnswerSchema[PreTiedCardAnswer]):
    """1. 预绑卡接口, 返回参数."""

    message_type = PreTiedCardAnswer
    message_name = "answer to pre-tied-card"
    result, no_result = "unique_code", {"unique_code": ["missing; needed where status is 1"]}
    unique_code = WrappedText("unique_code", data_key="response", required=False)


class ConfirmTiedCardAnswerSchema(_AnswerSchema[ConfirmTiedCardAnswer]):
    """2. 确认签约接口, 返回参数."""

    message_type = ConfirmTiedCardAnswer
    message_name = "answer to confirm-tied-card"
    result, no_result = "protocol_no", {"protocol_no": ["missing; needed where status is 1"]}
    protocol_no = WrappedText("protocol_no", data_key="response", required=False)


class OrderAnswerSchema(_AnswerSchema[OrderAnswer]):
    """3. and 4., 返回参数."""

    message_type = OrderAnswer
    message_name = "answer about an order"
    result, no_result = "order", ["empty; needed is an order where status is 1"]
    order = fields.Nested(OrderStatementSchema, data_key="response", load_default=None, allow_none=True)

    @pre_load
    def _read_response_without_order_as_none(self, data: Mapping[str, Any], **_kwargs: Any) -> dict[str, Any]:
        # null, [], {}, "" and an absent response are all empty, and a failure may have anything there.
        response = _unwrap(data.get("response"))
        names_an_order = isinstance(response, dict) and response.get("biz_order_no") not in (None, "")
        return {**data, "response": response if names_an_order else None}

    @post_dump
    def _write_empty_response(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        return {**data, "response": data.get("response", [])}


REQUEST_ENVELOPE = RequestEnvelopeSchema()
PRE_TIED_CARD_ARGS = PreTiedCardArgsSchema()
CONFIRM_TIED_CARD_ARGS = ConfirmTiedCardArgsSchema()
#: By the unit of the merchant's amounts.
SINGLE_WITHHOLD_ARGS: Mapping[AmountUnit, MessageSchema[SingleWithholdArgs]] = {
    AmountUnit.YUAN: YuanWithholdArgsSchema(),
    AmountUnit.FEN: FenWithholdArgsSchema(),
}
SINGLE_ORDER_QUERY_ARGS = SingleOrderQueryArgsSchema()
PRE_TIED_CARD_ANSWER = PreTiedCardAnswerSchema()
CONFIRM_TIED_CARD_ANSWER = ConfirmTiedCardAnswerSchema()
#: The answer to a withhold or a query.
ORDER_ANSWER = OrderAnswerSchema()
CALLBACK = CallbackSchema()
