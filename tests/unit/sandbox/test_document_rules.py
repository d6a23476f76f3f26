"""What a request has to keep of the gateway's document, rule by rule, and what the document allows."""

from typing import Any

import pytest

from service.gateway.bodies import read_object
from service.gateway.cipher import KeySorting
from service.gateway.requests import AmountUnit, RequestMethod
from service.sandbox.document_rules import (
    MEANINGS,
    STRICT,
    DocumentRule,
    check_args,
    check_envelope,
    check_http,
    text_of,
)

ENVELOPE = {
    "ua": '"ACME"',
    "args": '"AAAA"',
    "sign": '"0"',
    "timestamp": '"1562000000"',
    "requestId": '"R1"',
    "method": '"single-withhold"',
}
ARGS = {
    RequestMethod.PRE_TIED_CARD: {
        "bank_card_number": '"6222021234567890128"',
        "id_card_number": '"11010519491231002X"',
        "mobile": '"13800138000"',
        "name": '"张三"',
        "pay_type": '"baofoo_001"',
    },
    RequestMethod.CONFIRM_TIED_CARD: {
        "bank_card_number": '"6222021234567890128"',
        "pay_type": '"baofoo_001"',
        "unique_code": '"U1"',
        "verification_code": '"123456"',
    },
    RequestMethod.SINGLE_WITHHOLD: {
        "amount": '"10.00"',
        "bank_card_number": '"6222021234567890128"',
        "biz_data": '{"protocol_no": "P1"}',
        "biz_order_no": '"T1"',
        "id_card_number": '"11010519491231002X"',
        "mobile": '"13800138000"',
        "name": '"张三"',
        "notify_url": '"https://pay.example.com/notify"',
        "pay_type": '"baofoo_001"',
    },
    RequestMethod.SINGLE_ORDER_QUERY: {"biz_order_no": '"T1"'},
}
OPTIONAL = {"bank_card_number", "notify_url"}


def write(members: Any) -> Any:
    """JSON of members that are JSON already, in the order given; one that is None is left out."""
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items() if value is not None) + "}"


def read(members: Any) -> Any:
    return read_object(write(members)).values


def envelope_breaches(**changes: Any) -> Any:
    return list(check_envelope(read({**ENVELOPE, **changes})))


def breaches_of(
    method: Any, members: Any, *, key_sorting: Any = KeySorting.TOP_LEVEL, amount_unit: Any = AmountUnit.YUAN
) -> Any:
    return list(check_args(method, read(members), amount_unit=amount_unit, key_sorting=key_sorting))


def withhold_breaches(**changes: Any) -> Any:
    members = {**ARGS[RequestMethod.SINGLE_WITHHOLD], **changes}
    return breaches_of(RequestMethod.SINGLE_WITHHOLD, {name: members[name] for name in sorted(members)})


def rules(breaches: Any) -> Any:
    return [breach.rule for breach in breaches]


@pytest.mark.parametrize("method", RequestMethod)
def test_a_request_as_the_document_has_it_breaks_nothing(method: Any) -> None:
    assert breaches_of(method, ARGS[method]) == []
    assert envelope_breaches(method=f'"{method}"') == []


@pytest.mark.parametrize("absent", [None, '""', "null"], ids=["missing", "empty", "null"])
@pytest.mark.parametrize(
    ("method", "name"),
    [(method, name) for method, args in ARGS.items() for name in args if name != "biz_data"],
)
def test_what_the_document_requires_is_required_and_nothing_else(method: Any, name: Any, absent: str | None) -> None:
    breaches = breaches_of(method, {**ARGS[method], name: absent})
    required = not (method is RequestMethod.SINGLE_WITHHOLD and name in OPTIONAL)
    assert (DocumentRule.REQUIRED in rules(breaches)) == required
    if required:
        assert breaches[0].chinese == f"{name}为必选参数, 不可缺少或为空"
        assert breaches[0].section in ("1.预绑卡接口", "2.确认签约接口", "3.单笔代扣接口", "3.单笔代扣结果查询接口")


@pytest.mark.parametrize("absent", [None, '""', "null"], ids=["missing", "empty", "null"])
@pytest.mark.parametrize("name", ["ua", "args", "sign", "requestId", "method"])
def test_what_the_envelope_requires_is_required(name: str, absent: str | None) -> None:
    (first, *_) = envelope_breaches(**{name: absent})
    assert (first.rule, first.section) == (DocumentRule.REQUIRED, "公共请求参数")
    assert name in first.chinese


@pytest.mark.parametrize("value", ["1", "1.5", "true", "[]", "{}", '["x"]', '"\\ud800"'])
@pytest.mark.parametrize(
    ("method", "name"),
    [
        (method, name)
        for method, args in ARGS.items()
        for name in args
        if name != "biz_data" and (method, name) != (RequestMethod.SINGLE_WITHHOLD, "notify_url")
    ],
)
def test_a_string_is_a_string(method: Any, name: Any, value: str) -> None:
    breaches = breaches_of(method, {**ARGS[method], name: value})
    untyped = method is RequestMethod.SINGLE_WITHHOLD and name == "pay_type"
    assert (DocumentRule.TYPES in rules(breaches)) is not untyped


@pytest.mark.parametrize("absent", [None, "null"], ids=["missing", "null"])
def test_biz_data_is_required(absent: str | None) -> None:
    assert rules(withhold_breaches(biz_data=absent)) == [DocumentRule.REQUIRED]


def test_null_is_no_string_where_one_may_be_left_out() -> None:
    assert rules(withhold_breaches(bank_card_number="null")) == [DocumentRule.TYPES]
    assert rules(withhold_breaches(biz_data='{"protocol_no": null}')) == [DocumentRule.TYPES]
    assert rules(envelope_breaches(timestamp="null")) == [DocumentRule.TYPES]


@pytest.mark.parametrize(
    "biz_data", ["[]", "{}", '{"protocol_no": ""}', '{"protocol_no": "P1"}', '[{"protocol_no": "P1"}]']
)
def test_biz_data_may_be_any_array_also_an_empty_one_without_a_card(biz_data: str) -> None:
    assert withhold_breaches(biz_data=biz_data) == []
    assert withhold_breaches(biz_data=biz_data, bank_card_number=None) == []


@pytest.mark.parametrize("biz_data", ['""', '"[]"', "1", "false", '["P1"]', '[{"protocol_no": "P1"}, {}]'])
def test_biz_data_is_an_array(biz_data: str) -> None:
    assert rules(withhold_breaches(biz_data=biz_data)) == [DocumentRule.TYPES]


@pytest.mark.parametrize("biz_data", ['{"protocol_no": "P1"}', '[{"protocol_no": "P1"}]'])
def test_the_protocol_is_read_from_either_kind_of_array(biz_data: str) -> None:
    assert text_of(read({"biz_data": biz_data}), "biz_data", "protocol_no") == "P1"


@pytest.mark.parametrize("url", [None, "null", '""', '"http://a/"', '"HTTPS://a"'])
def test_a_notify_url_is_optional_and_has_no_type(url: str | None) -> None:
    assert withhold_breaches(notify_url=url) == []


@pytest.mark.parametrize(
    "url",
    ['"ftp://a/"', '"http://[bad/"', '"http:///x"', '"http://a:99999/"', '"http://a:x/"', '"/x"', '" "', "1", "[1]"],
)
def test_a_notify_url_is_an_address(url: str) -> None:
    (breach,) = withhold_breaches(notify_url=url)
    assert (breach.rule, breach.chinese) == (None, "notify_url须为http或https地址")


@pytest.mark.parametrize("timestamp", [None, '""', '"1562000000"'])
def test_a_timestamp_is_optional(timestamp: str | None) -> None:
    assert envelope_breaches(timestamp=timestamp) == []


@pytest.mark.parametrize("timestamp", ['"1562000000000"', '"1562000000.5"', '"-1"', '"2019-07-01 12:00:00"', '"now"'])
def test_a_timestamp_is_in_seconds(timestamp: str) -> None:
    assert rules(envelope_breaches(timestamp=timestamp)) == [DocumentRule.TIMESTAMP]


def test_a_timestamp_that_is_a_number_is_of_the_wrong_type_only() -> None:
    assert rules(envelope_breaches(timestamp="1562000000")) == [DocumentRule.TYPES]


@pytest.mark.parametrize("amount", ['"0"', '"-1"', '"1.234"', '"1,000.00"', '"abc"'])
@pytest.mark.parametrize("unit", AmountUnit)
def test_an_amount_is_one_in_the_accounts_unit(amount: str, unit: Any) -> None:
    members = {**ARGS[RequestMethod.SINGLE_WITHHOLD], "amount": amount}
    (breach,) = breaches_of(RequestMethod.SINGLE_WITHHOLD, members, amount_unit=unit)
    assert breach.rule is None
    assert breach.english.startswith("amount: ")


@pytest.mark.parametrize("method", [method for method in RequestMethod if len(ARGS[method]) > 1])
def test_args_are_sorted_by_key(method: Any) -> None:
    backwards = dict(reversed(ARGS[method].items()))
    (breach,) = breaches_of(method, backwards)
    assert (breach.rule, breach.section) == (DocumentRule.SORTED_ARGS, "加密流程描述")
    assert breaches_of(method, backwards, key_sorting=KeySorting.NONE) == []


def test_keys_within_biz_data_are_sorted_only_where_the_account_says_so() -> None:
    members = {**ARGS[RequestMethod.SINGLE_WITHHOLD], "biz_data": '{"protocol_no": "P1", "a": "x"}'}
    unknown = [DocumentRule.UNKNOWN_PARAMETERS]
    assert rules(breaches_of(RequestMethod.SINGLE_WITHHOLD, members)) == unknown
    recursive = breaches_of(RequestMethod.SINGLE_WITHHOLD, members, key_sorting=KeySorting.RECURSIVE)
    assert rules(recursive) == [*unknown, DocumentRule.SORTED_ARGS]


@pytest.mark.parametrize("names", [("10", "9"), ("9", "10"), ("\U0001f600", "\uffe5"), ("\uffe5", "\U0001f600")])
def test_keys_in_the_ascending_order_of_any_language_are_sorted(names: tuple[str, ...]) -> None:
    assert rules(breaches_of(RequestMethod.SINGLE_ORDER_QUERY, dict.fromkeys(names, '"x"'))) == [
        DocumentRule.REQUIRED,
        DocumentRule.UNKNOWN_PARAMETERS,
    ]


def test_an_unknown_parameter_is_named_without_what_may_be_personal() -> None:
    (breach,) = withhold_breaches(notifyUrl='"https://pay.example.com"')
    assert (breach.rule, breach.chinese) == (DocumentRule.UNKNOWN_PARAMETERS, "文档中没有参数notifyUrl")
    (breach,) = withhold_breaches(zeta='"x"', zulu='"x"')
    assert breach.english == "zeta, zulu: not in the document"
    (breach,) = withhold_breaches(**{"6222021234567890128": '"x"'})
    assert "6222021234567890128" not in breach.chinese + breach.english


def test_a_method_is_one_of_the_documents() -> None:
    (breach,) = envelope_breaches(method='"refund"')
    assert breach.rule is None
    assert "single-withhold" in breach.chinese


@pytest.mark.parametrize(
    "content_type",
    ["application/json;charset=UTF-8", "application/json; charset=utf-8", 'Application/JSON ; Charset="UTF-8"'],
)
def test_a_request_is_posted_as_json_in_utf_8(content_type: str) -> None:
    assert list(check_http("POST", content_type)) == []


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "application/json;charset=GBK",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
    ],
)
def test_any_other_content_type_is_not_the_documents(content_type: str) -> None:
    (breach,) = check_http("POST", content_type)
    assert (breach.rule, breach.section) == (DocumentRule.CONTENT_TYPE, "调用说明")


@pytest.mark.parametrize("method", ["GET", "PUT", "post"])
def test_any_other_http_method_is_not_the_documents(method: str) -> None:
    assert rules(check_http(method, "application/json;charset=UTF-8")) == [DocumentRule.HTTP_METHOD]


def test_every_rule_is_explained_and_all_of_the_documents_are_enforced() -> None:
    assert MEANINGS.keys() == set(DocumentRule)
    assert set(DocumentRule) - STRICT == {DocumentRule.UNKNOWN_PARAMETERS}


def test_no_breach_quotes_a_value() -> None:
    secret = "SECRET-VALUE"
    broken = [
        *envelope_breaches(timestamp=f'"{secret}"', method=f'"{secret}"'),
        *withhold_breaches(
            amount=f'"{secret}"', notify_url=f'"{secret}"', biz_data=f'"{secret}"', name=f'["{secret}"]'
        ),
        *check_http("POST", secret),
    ]
    assert len(broken) == 7
    assert all(secret not in breach.chinese + breach.english for breach in broken)
