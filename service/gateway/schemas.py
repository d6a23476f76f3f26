"""marshmallow schemas of every message in the document, each used both ways: by whoever sends it and whoever takes it.

What we send is checked strictly, field by field as the document has it; what the gateway sends is taken leniently.
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
    post_dump,
    post_load,
    pre_load,
    validates_schema,
)

from service.gateway.errors import MessageInvalid, Problem
from service.gateway.message_fields import (
    Amount,
    LenientText,
    OrderNumber,
    StrictText,
    StrictWrappedText,
    WrappedText,
    to_text,
    unwrapped,
)
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
from service.gateway.strict_json import JsonValue

Message = TypeVar("Message")


class MessageFormat(Generic[Message]):
    """One kind of message: how it is read off the wire and written onto it. Safe to share between threads."""

    def __init__(self, *, name: str, schema: Schema) -> None:
        #: What error messages call it.
        self.name = name
        self._schema = schema

    def read(self, values: Mapping[str, JsonValue]) -> Message:
        """The message in a decoded JSON object. Raises `MessageInvalid`, which names every field at fault."""
        try:
            message: Message = self._schema.load(values)
        except ValidationError as error:
            raise MessageInvalid(self.name, tuple(_list_problems(error.messages))) from error
        return message

    def write(self, message: Message) -> dict[str, JsonValue]:
        """The message as fields to send. Raises `MessageInvalid` for one that the document does not allow."""
        values: dict[str, JsonValue] = self._schema.dump(message)
        self.read(values)
        return values


def _list_problems(messages: Any, path: str = "") -> Iterator[Problem]:
    if isinstance(messages, Mapping):
        for name, nested in sorted(messages.items(), key=str):
            here = path if name == "_schema" else f"{path}.{name}".lstrip(".")
            yield from _list_problems(nested, here)
        return
    for text in messages:
        yield Problem(path, text)


class _MessageSchema(Schema):
    """Reads into `message_type` and leaves out what is None when writing. Unknown fields are passed over."""

    message_type: ClassVar[type]

    class Meta:
        unknown = EXCLUDE

    @post_load
    def _make_message(self, data: dict[str, Any], **_kwargs: Any) -> object:
        return self.message_type(**data)

    @post_dump
    def _leave_out_absent(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if value is not None}


class RequestEnvelopeSchema(_MessageSchema):
    """公共请求参数."""

    message_type = RequestEnvelope
    ua = StrictText()
    args = StrictText()
    sign = StrictText(allowed="32 hex digits", pattern=re.compile(r"[0-9a-fA-F]{32}"))
    timestamp = StrictText(allowed="unix seconds in digits", pattern=re.compile(r"[0-9]{1,12}"), required=False)
    request_id = StrictText(data_key="requestId")
    method = StrictText(
        allowed=f"one of {', '.join(RequestMethod)}", pattern=re.compile("|".join(map(re.escape, RequestMethod)))
    )


class PreTiedCardArgsSchema(_MessageSchema):
    """1. 预绑卡接口."""

    message_type = PreTiedCardArgs
    id_card_number = StrictText()
    bank_card_number = StrictText()
    mobile = StrictText()
    name = StrictText()
    pay_type = StrictText()


class ConfirmTiedCardArgsSchema(_MessageSchema):
    """2. 确认签约接口."""

    message_type = ConfirmTiedCardArgs
    verification_code = StrictText()
    unique_code = StrictText()
    bank_card_number = StrictText()
    pay_type = StrictText()


class _SingleWithholdArgsSchema(_MessageSchema):
    """3. 单笔代扣接口, but for the amount."""

    message_type = SingleWithholdArgs
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
    """3. 单笔代扣接口, at a gateway that counts in yuan."""

    amount = Amount(AmountUnit.YUAN)


class FenWithholdArgsSchema(_SingleWithholdArgsSchema):
    """3. 单笔代扣接口, at a gateway that counts in fen."""

    amount = Amount(AmountUnit.FEN)


class SingleOrderQueryArgsSchema(_MessageSchema):
    """4. 单笔代扣结果查询接口."""

    message_type = SingleOrderQueryArgs
    biz_order_no = OrderNumber()


class OrderStatementSchema(_MessageSchema):
    """The `response` of a withhold's or a query's answer. Fields that the document does not name are kept."""

    message_type = OrderStatement
    #: What the document requires and is believed without: its absence is recorded.
    expected: ClassVar[Sequence[str]] = ()
    biz_order_no = OrderNumber()
    pay_order_no = LenientText(expected_characters=128)
    order_type = LenientText(expected_characters=64)
    pay_type = LenientText(expected_characters=64)
    pay_status = LenientText(expected_characters=64, required=True)
    pay_time = LenientText(expected_characters=64)
    channel_response = LenientText(expected_characters=250)

    class Meta:
        """Unlike other messages."""

        unknown = INCLUDE

    @post_load(pass_original=True)
    def _make_message(self, data: dict[str, Any], original: Mapping[str, JsonValue], **_kwargs: Any) -> OrderStatement:
        strange = [name for name in data if name not in self.fields]
        unknown = {to_text(name): to_text(data.pop(name)) for name in strange}
        missing = tuple(name for name in self.expected if name not in original)
        return OrderStatement(**data, unknown_fields=unknown, missing_fields=missing)

    @post_dump(pass_original=True)
    def _add_unknown_fields(self, data: dict[str, Any], original: OrderStatement, **_kwargs: Any) -> dict[str, Any]:
        if not original.order_type:
            # Answers have none.
            del data["order_type"]
        return {**data, **original.unknown_fields}


class CallbackSchema(OrderStatementSchema):
    """5. 异步回调, without its sign. Named in it must be the order, the gateway's number for it, and the status."""

    expected = ("order_type", "pay_type", "pay_time", "channel_response")
    pay_order_no = LenientText(expected_characters=128, required=True)


class _AnswerSchema(_MessageSchema):
    status = LenientText(expected_characters=66, required=True, needed=f"{SUCCEEDED} (success) or {FAILED} (failure)")
    message = LenientText(expected_characters=250)


class PreTiedCardAnswerSchema(_AnswerSchema):
    """1. 预绑卡接口, 返回参数."""

    message_type = PreTiedCardAnswer
    unique_code = WrappedText("unique_code", data_key="response", required=False)

    @validates_schema
    def _success_has_a_code(self, data: dict[str, Any], **_kwargs: Any) -> None:
        _need_on_success(data, "unique_code")


class ConfirmTiedCardAnswerSchema(_AnswerSchema):
    """2. 确认签约接口, 返回参数."""

    message_type = ConfirmTiedCardAnswer
    protocol_no = WrappedText("protocol_no", data_key="response", required=False)

    @validates_schema
    def _success_has_a_protocol(self, data: dict[str, Any], **_kwargs: Any) -> None:
        _need_on_success(data, "protocol_no")


def _need_on_success(data: Mapping[str, Any], name: str) -> None:
    if data["status"] == SUCCEEDED and data.get(name) is None:
        raise ValidationError({"response": {name: ["missing; needed where status is 1"]}})


class OrderAnswerSchema(_AnswerSchema):
    """3. and 4., 返回参数."""

    message_type = OrderAnswer
    order = fields.Nested(OrderStatementSchema, data_key="response", load_default=None, allow_none=True)

    @pre_load
    def _see_empty_responses(self, data: Mapping[str, Any], **_kwargs: Any) -> dict[str, Any]:
        # null, [], {}, "" and absent are all empty, and a failure may say anything there that is no order.
        response = unwrapped(data.get("response"))
        names_an_order = isinstance(response, dict) and response.get("biz_order_no") not in (None, "")
        return {**data, "response": response if names_an_order else None}

    @validates_schema
    def _success_has_an_order(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if data["status"] == SUCCEEDED and data["order"] is None:
            raise ValidationError({"response": ["empty; needed is an order where status is 1"]})

    @post_dump
    def _write_empty_response(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        return {**data, "response": data.get("response", [])}


REQUEST_ENVELOPE = MessageFormat[RequestEnvelope](name="request", schema=RequestEnvelopeSchema())
PRE_TIED_CARD_ARGS = MessageFormat[PreTiedCardArgs](name="pre-tied-card", schema=PreTiedCardArgsSchema())
CONFIRM_TIED_CARD_ARGS = MessageFormat[ConfirmTiedCardArgs](
    name="confirm-tied-card", schema=ConfirmTiedCardArgsSchema()
)
#: By what the merchant's amounts count.
SINGLE_WITHHOLD_ARGS = {
    AmountUnit.YUAN: MessageFormat[SingleWithholdArgs](name="single-withhold", schema=YuanWithholdArgsSchema()),
    AmountUnit.FEN: MessageFormat[SingleWithholdArgs](name="single-withhold", schema=FenWithholdArgsSchema()),
}
SINGLE_ORDER_QUERY_ARGS = MessageFormat[SingleOrderQueryArgs](
    name="single-order-query", schema=SingleOrderQueryArgsSchema()
)
PRE_TIED_CARD_ANSWER = MessageFormat[PreTiedCardAnswer](
    name="answer to pre-tied-card", schema=PreTiedCardAnswerSchema()
)
CONFIRM_TIED_CARD_ANSWER = MessageFormat[ConfirmTiedCardAnswer](
    name="answer to confirm-tied-card", schema=ConfirmTiedCardAnswerSchema()
)
#: Of withholds and of queries.
ORDER_ANSWER = MessageFormat[OrderAnswer](name="answer about an order", schema=OrderAnswerSchema())
CALLBACK = MessageFormat[OrderStatement](name="callback", schema=CallbackSchema())
