# ruff: noqa: ARG002 - marshmallow passes every field the same arguments.
"""How messages of the gateway's document are read and written, and what a callback says about an order (document: 5).

A message is a dataclass whose annotations are its fields. What we send is checked strictly, field by field as
documented. What the gateway sends is read leniently. Personal data is left out of every repr.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from marshmallow import EXCLUDE, INCLUDE, ValidationError, fields, missing, post_dump, post_load

from service.config.schema import NOT_A_KEY, DataclassSchema, make_schema
from service.domain.order_numbers import MAX_ORDER_NO_CHARACTERS, is_order_no
from service.gateway.bodies import JsonValue, NumberToken
from service.gateway.errors import FieldProblem, MessageInvalid
from service.gateway.json_dialects import UNICODE
from service.runtime.logs import Logger

_log = Logger(__name__)


# PostgreSQL cannot store NUL, and UTF-8 cannot encode surrogates.
_UNENCODABLE = re.compile("[\0\ud800-\udfff]")


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
            error_messages={"required": f"missing; expected {allowed}", "null": f"null; expected {allowed}"},
        )
        self._allowed = allowed
        self._pattern = pattern

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(f"{describe_kind(value)}; expected {self._allowed}")
        if not self._fits(value):
            found = f"{len(value)} characters that do not fit" if value else "empty"
            raise ValidationError(f"{found}; expected {self._allowed}")
        return value

    def _fits(self, value: str) -> bool:
        return bool(value) if self._pattern is None else self._pattern.fullmatch(value) is not None


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
            error_messages={"required": f"missing; expected {needed}"},
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


def describe_kind(value: object) -> str:
    """The kind of a JSON value, in the words of an error message."""
    kinds = {str: "a string", bytes: "bytes", bool: "true or false", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


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
            problems = sorted(list_problems(error.messages), key=lambda problem: problem.field)
            raise MessageInvalid(self.message_name, tuple(problems)) from error
        return message

    def write(self, message: Message) -> dict[str, JsonValue]:
        """The message as fields to send, without those that are None. Raises `MessageInvalid` if one is not allowed."""
        values: dict[str, JsonValue] = self.dump(message)
        self.read(values)
        return values

    @post_dump
    def _leave_out_absent(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if value is not None}


class OrderStatementSchema(MessageSchema[OrderStatement]):
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


def list_problems(messages: Any, path: str = "") -> Iterator[FieldProblem]:
    """marshmallow's messages about the field at `path`, and about all below it."""
    if isinstance(messages, Mapping):
        for name, nested in messages.items():
            yield from list_problems(nested, path if name == "_schema" else f"{path}.{name}".lstrip("."))
        return
    for text in messages:
        yield FieldProblem(path, str(text))


def make_message_schema(
    message: type[Message], name: str, base: type[MessageSchema[Any]] = MessageSchema, **overrides: Any
) -> MessageSchema[Message]:
    """The schema of a dataclass. `name` is what errors call the message; `overrides` are fields or class variables."""
    made: MessageSchema[Message] = make_schema(message, base, message_name=name, **overrides)()  # type: ignore[assignment]
    return made


#: A callback, without its sign (document: 5). Required are the order's numbers, ours and the gateway's, and its status.
CALLBACK = make_message_schema(
    OrderStatement,
    "callback",
    OrderStatementSchema,
    expected=("order_type", "pay_type", "pay_time", "channel_response"),
    pay_order_no=LenientText(expected_characters=128, required=True),
)
