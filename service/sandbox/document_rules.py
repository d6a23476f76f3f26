"""The rules of the gateway's document for requests, and the checks of them. No I/O, no clock."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from marshmallow import ValidationError
from werkzeug.http import parse_options_header

from service.domain.masking import mask_personal
from service.gateway.bodies import JsonValue, NumberToken
from service.gateway.cipher import KeySorting
from service.gateway.json_dialects import KeyOrder
from service.gateway.messages import to_text
from service.gateway.requests import Amount, AmountUnit, RequestMethod

#: The document's name for the section on HTTP.
CALLS = "调用说明"
#: The one on what every request has in common.
ENVELOPE = "公共请求参数"
#: The one on args and sign.
ENCRYPTION = "加密流程描述"
#: The one on the methods.
METHODS = "接口明细"
#: The longest `message` in an answer, in characters (the document's 最大长度).
MAX_MESSAGE_CHARACTERS = 250


class DocumentRule(StrEnum):
    """A rule that can be switched off under `[strictness]`, by this name."""

    HTTP_METHOD = "http_method"
    CONTENT_TYPE = "content_type"
    REQUIRED = "required"
    TYPES = "types"
    TIMESTAMP = "timestamp"
    UNIQUE_REQUEST_ID = "unique_request_id"
    SORTED_ARGS = "sorted_args"
    UNKNOWN_PARAMETERS = "unknown_parameters"
    MESSAGE_LENGTH = "message_length"
    WAIT_PAY = "wait_pay"


#: The meaning of each rule. The last two bind the sandbox itself.
MEANINGS: Mapping[DocumentRule, str] = {
    DocumentRule.HTTP_METHOD: "a request is POST",
    DocumentRule.CONTENT_TYPE: "a request's Content-Type is application/json;charset=UTF-8",
    DocumentRule.REQUIRED: "a required parameter is there and not empty; an empty `biz_data` is fine",
    DocumentRule.TYPES: "a string is a JSON string; an array is a list or, as in PHP, an object",
    DocumentRule.TIMESTAMP: "`timestamp`, where there is one, is in unix seconds",
    DocumentRule.UNIQUE_REQUEST_ID: "a `requestId` is used once",
    DocumentRule.SORTED_ARGS: "the keys of the args are sorted in ascending order",
    DocumentRule.UNKNOWN_PARAMETERS: "no parameter is sent but those that the document names",
    DocumentRule.MESSAGE_LENGTH: "the `message` of an answer has 250 characters at most",
    DocumentRule.WAIT_PAY: "`wait_pay` is said in answers to queries only",
}
#: The rules that hold unless the settings say otherwise.
STRICT = frozenset(DocumentRule) - {DocumentRule.UNKNOWN_PARAMETERS}


@dataclass(frozen=True, slots=True)
class Breach:
    """A breach of a rule by a request. It quotes no value of the request."""

    #: None: no setting allows it, because the sandbox cannot serve such a request.
    rule: DocumentRule | None
    #: The document's heading of the rule.
    section: str
    #: What to do, in Chinese: part of the answer's `message`.
    chinese: str
    #: What was found and what is allowed, for the log and the admin pages.
    english: str


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    #: "string", "array", or "" where the document leaves it open.
    type: str = "string"
    required: bool = True
    #: 二级参数.
    members: tuple["_Parameter", ...] = ()


_ENVELOPE_PARAMETERS = (
    _Parameter("ua"),
    _Parameter("args"),
    _Parameter("sign"),
    _Parameter("timestamp", required=False),
    _Parameter("requestId"),
    _Parameter("method"),
)
_ARGS = {
    RequestMethod.PRE_TIED_CARD: (
        "1.预绑卡接口",
        tuple(map(_Parameter, ("id_card_number", "bank_card_number", "mobile", "name", "pay_type"))),
    ),
    RequestMethod.CONFIRM_TIED_CARD: (
        "2.确认签约接口",
        tuple(map(_Parameter, ("verification_code", "unique_code", "bank_card_number", "pay_type"))),
    ),
    RequestMethod.SINGLE_WITHHOLD: (
        "3.单笔代扣接口",
        (
            _Parameter("biz_order_no"),
            _Parameter("amount"),
            _Parameter("bank_card_number", required=False),
            _Parameter("name"),
            _Parameter("id_card_number"),
            _Parameter("mobile"),
            _Parameter("biz_data", type="array", members=(_Parameter("protocol_no", required=False),)),
            _Parameter("notify_url", type="", required=False),
            _Parameter("pay_type", type=""),
        ),
    ),
    RequestMethod.SINGLE_ORDER_QUERY: ("3.单笔代扣结果查询接口", (_Parameter("biz_order_no"),)),
}
# Thirteen digits are milliseconds.
_UNIX_SECONDS = re.compile(r"[0-9]{1,12}")
_HTTP_URL = re.compile(r"https?://\S+", re.IGNORECASE)
_AMOUNTS = {AmountUnit.YUAN: "单位元, 最多两位小数", AmountUnit.FEN: "单位分, 整数"}
_KINDS = {
    type(None): "null",
    str: "a string",
    NumberToken: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
# Half a character, which no encoding can write.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_NAME = 40
_MAX_NAMES = 5


def check_http(http_method: str, content_type: str) -> Iterator[Breach]:
    """Check how a request was sent."""
    if http_method != "POST":
        found = f"the request is {_shown(http_method)}; the document wants POST"
        yield Breach(DocumentRule.HTTP_METHOD, CALLS, "须使用post请求", found)
    media_type, parameters = parse_options_header(content_type)
    if media_type.lower() != "application/json" or parameters.get("charset", "").lower() != "utf-8":
        wanted = "application/json;charset=UTF-8"
        yield Breach(DocumentRule.CONTENT_TYPE, CALLS, f"Content-Type须为{wanted}", f"the Content-Type is not {wanted}")


def check_envelope(values: Mapping[str, JsonValue]) -> Iterator[Breach]:
    """Check the parameters that all requests have, except the sign."""
    yield from _check_parameters(values, _ENVELOPE_PARAMETERS, ENVELOPE)
    timestamp = text_of(values, "timestamp")
    if timestamp and not _UNIX_SECONDS.fullmatch(timestamp):
        yield Breach(
            DocumentRule.TIMESTAMP,
            ENVELOPE,
            "timestamp须为以秒为单位的UnixTimestamp",
            "timestamp: not in unix seconds, written in digits",
        )
    method = text_of(values, "method")
    if method not in list(RequestMethod):
        yield Breach(
            None,
            METHODS,
            f"method须为{'、'.join(RequestMethod)}之一",
            f"method: none of the document's; expected one of {', '.join(RequestMethod)}",
        )


def check_args(
    method: RequestMethod, args: Mapping[str, JsonValue], *, amount_unit: AmountUnit, key_sorting: KeySorting
) -> Iterator[Breach]:
    """Check a method's decrypted args. Their keys are in the order in which they were sent.

    `key_sorting`: which keys have to be sorted: those at the top, those at every depth, or none.
    """
    section, parameters = _ARGS[method]
    yield from _check_parameters(args, parameters, section)
    if not _is_sorted(args, key_sorting):
        yield Breach(
            DocumentRule.SORTED_ARGS,
            ENCRYPTION,
            "args的参数key须升序排序后再转成json",
            "args: the keys are not sorted in ascending order before they are turned into JSON",
        )
    if method is RequestMethod.SINGLE_WITHHOLD:
        yield from _check_amount(text_of(args, "amount"), amount_unit, section)
        yield from _check_notify_url(text_of(args, "notify_url"), section)


def repeated_request_id() -> Breach:
    """The breach of a repeated `requestId`."""
    return Breach(
        DocumentRule.UNIQUE_REQUEST_ID,
        ENVELOPE,
        "requestId重复, 请求流水号须唯一",
        "requestId: used before by this ua; every request, a repeated one too, needs a number of its own",
    )


def text_of(values: Mapping[str, JsonValue], name: str, member: str | None = None) -> str:
    """A parameter, or a `member` of an array, as text: "" if it is absent or null, JSON if it is no string."""
    value = values.get(name)
    if member is not None:
        value = _members(value).get(member)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else to_text(value)


def _check_parameters(
    values: Mapping[str, JsonValue], parameters: Sequence[_Parameter], section: str, path: str = ""
) -> Iterator[Breach]:
    for parameter in parameters:
        name, value = f"{path}{parameter.name}", values.get(parameter.name)
        if parameter.required and (value is None or (value == "" and parameter.type != "array")):
            found = "missing" if parameter.name not in values else "null" if value is None else "empty"
            yield Breach(
                DocumentRule.REQUIRED, section, f"{name}为必选参数, 不可缺少或为空", f"{name}: {found}, and required"
            )
        elif parameter.name in values and (allowed := _allowed_instead(parameter.type, value)):
            found = _KINDS[type(value)]
            yield Breach(
                DocumentRule.TYPES, section, f"{name}类型须为{parameter.type}", f"{name}: {found}; expected {allowed}"
            )
        if parameter.members:
            yield from _check_parameters(_members(value), parameter.members, section, f"{name}.")
    known = {parameter.name for parameter in parameters}
    if unknown := [f"{path}{_shown(name)}" for name in values if name not in known]:
        names = ", ".join(unknown[:_MAX_NAMES])
        yield Breach(
            DocumentRule.UNKNOWN_PARAMETERS, section, f"文档中没有参数{names}", f"{names}: not in the document"
        )


def _allowed_instead(type_name: str, value: JsonValue) -> str:
    """What is allowed instead of a value of a wrong type; "" for a value of the right type."""
    match type_name, value:
        case "string", str() if not _LONE_SURROGATE.search(value):
            return ""
        case "string", _:
            return "a string of Unicode characters"
        case "array", dict() | [] | [dict()]:
            return ""
        case "array", _:
            return "an object, or a list that is empty or holds one object"
    return ""


def _members(value: JsonValue) -> Mapping[str, JsonValue]:
    # PHP writes its arrays as objects, and empty ones as [].
    match value:
        case dict() as members:
            return members
        case [dict() as members]:
            return members
    return {}


def _is_sorted(values: Mapping[str, JsonValue], key_sorting: KeySorting) -> bool:
    if key_sorting is KeySorting.NONE:
        return True
    names = list(values)
    # Languages sort keys that the document does not have differently. Any of their orders is accepted.
    if not any(order.sort(names) == names for order in KeyOrder if order is not KeyOrder.AS_SENT):
        return False
    if key_sorting is KeySorting.TOP_LEVEL:
        return True
    return all(_is_sorted(_members(value), key_sorting) for value in values.values())


def _check_amount(amount: str, unit: AmountUnit, section: str) -> Iterator[Breach]:
    try:
        Amount(unit).deserialize(amount)
    except ValidationError as error:
        found = f"amount: {' '.join(map(str, error.messages))}"
        yield Breach(None, section, f"amount须为大于0的金额, {_AMOUNTS[unit]}", found)


def _check_notify_url(url: str, section: str) -> Iterator[Breach]:
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        usable = not url or bool(_HTTP_URL.fullmatch(url) and parts.hostname and parts.port != 0)
    except ValueError:
        usable = False
    if not usable:
        found = "notify_url: no http or https URL with a host; leave it out, or empty, for no callbacks"
        yield Breach(None, section, "notify_url须为http或https地址", found)


def _shown(name: str) -> str:
    # A caller can put anything here.
    return mask_personal(_LONE_SURROGATE.sub("?", name))[:_LONGEST_NAME]
