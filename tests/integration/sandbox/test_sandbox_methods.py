"""The four methods over real HTTP, as the gateway's document has them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from service.sandbox.server import SandboxServer
from tests.support.gateway import GatewayCaller
from tests.support.waiting import eventually


@pytest.fixture
def caller(start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]) -> Any:
    return call(start_sandbox())


def test_a_card_is_bound_in_two_steps_and_charged_by_its_protocol(caller: Any) -> None:
    person = {"name": "张三", "id_card_number": "11010519491231002X", "mobile": "13800138000"}
    card = {"bank_card_number": "6222021234567890128", "pay_type": "baofoo_001"}
    offered = caller.call("pre-tied-card", {**person, **card})
    assert offered["status"] == "1"
    code = {"unique_code": offered["response"]["unique_code"], "verification_code": "123456"}
    confirmed = caller.call("confirm-tied-card", {**card, **code})
    protocol_no = confirmed["response"]["protocol_no"]
    answer = caller.withhold("T1", bank_card_number=None, biz_data={"protocol_no": protocol_no})
    assert answer["status"] == "1"


def test_a_wrong_verification_code_binds_nothing(caller: Any) -> None:
    person = {"name": "张三", "id_card_number": "11010519491231002X", "mobile": "13800138000"}
    card = {"bank_card_number": "6222021234567890128", "pay_type": "baofoo_001"}
    offered = caller.call("pre-tied-card", {**person, **card})
    code = {"unique_code": offered["response"]["unique_code"], "verification_code": "000000"}
    answer = caller.call("confirm-tied-card", {**card, **code})
    assert (answer["status"], answer["message"]) == ("-1", "验证码错误")


def test_an_unknown_protocol_is_not_charged(caller: Any) -> None:
    answer = caller.withhold("T1", bank_card_number=None, biz_data={"protocol_no": "XY0"})
    assert (answer["status"], answer["message"]) == ("-1", "协议号不存在")
    assert caller.query("T1")["message"] == "订单不存在"


def test_an_accepted_order_is_pending_and_then_paid(caller: Any) -> None:
    accepted = caller.withhold("T1")["response"]
    assert accepted["pay_status"] == "pending"
    assert accepted["pay_time"] == ""
    paid = eventually(lambda: (answer := caller.query("T1")["response"])["pay_status"] == "success" and answer)
    assert paid["pay_order_no"] == accepted["pay_order_no"]
    assert paid["pay_time"]


def test_a_failed_order_says_what_the_channel_said(caller: Any) -> None:
    caller.withhold("T1-fail")
    failed = eventually(lambda: (answer := caller.query("T1-fail")["response"])["pay_status"] == "fail" and answer)
    assert failed["channel_response"] == "余额不足"


@pytest.mark.parametrize(
    ("order_no", "withhold_says", "query_says"),
    [
        ("T1-stuck", "pending", "pending"),
        ("T1-stuck-initial", "initial", "initial"),
        ("T1-stuck-waitpay", "pending", "wait_pay"),
        ("T1-instant", "success", "success"),
        ("T1-instant-fail", "fail", "fail"),
    ],
)
def test_keywords_in_the_order_number_script_the_order(
    caller: Any, order_no: str, withhold_says: str, query_says: str
) -> None:
    assert caller.withhold(order_no)["response"]["pay_status"] == withhold_says
    assert caller.query(order_no)["response"]["pay_status"] == query_says


def test_the_end_of_the_amount_scripts_the_order_too(caller: Any) -> None:
    caller.withhold("T1", amount="12.53")
    assert caller.query("T1")["response"]["pay_status"] == "pending"


def test_a_refused_withhold_makes_no_order(caller: Any) -> None:
    assert caller.withhold("T1-refuse")["status"] == "-1"
    assert caller.query("T1-refuse")["message"] == "订单不存在"


def test_a_denied_withhold_is_charged_all_the_same(caller: Any) -> None:
    assert caller.withhold("T1-deny-instant")["status"] == "-1"
    assert caller.query("T1-deny-instant")["response"]["pay_status"] == "success"


@pytest.mark.parametrize("order_no", ["T1-lost-instant", "T1-broken-instant"])
def test_a_withhold_without_an_answer_is_charged_all_the_same(caller: Any, order_no: str) -> None:
    with pytest.raises((urllib3.exceptions.ProtocolError, AssertionError)):
        caller.withhold(order_no)
    assert caller.query(order_no)["response"]["pay_status"] == "success"


def test_an_order_number_is_charged_once(caller: Any) -> None:
    caller.withhold("T1", amount="10.00")
    again = caller.withhold("T1", amount="20.00")
    assert (again["status"], again["message"]) == ("-1", "业务流水号已存在")


def test_of_many_equal_withholds_at_once_one_is_charged(caller: Any) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: caller.withhold("T1"), range(32)))
    assert [answer["status"] for answer in answers].count("1") == 1


@pytest.mark.parametrize("missing", ["amount", "name", "id_card_number", "mobile", "biz_data", "pay_type"])
def test_a_required_argument_that_is_missing_is_named(caller: Any, missing: str) -> None:
    answer = caller.withhold("T1", **{missing: None})
    assert answer["status"] == "-1"
    assert missing in answer["message"]


@pytest.mark.parametrize("biz_data", [[], {}, {"protocol_no": ""}], ids=str)
def test_an_empty_biz_data_is_charged_also_without_a_card(caller: Any, biz_data: Any) -> None:
    assert caller.withhold("T1", bank_card_number=None, biz_data=biz_data)["status"] == "1"


@pytest.mark.parametrize("url", ["ftp://example.com/", "http://[bad/notify", "http:///notify", "/notify"])
def test_a_malformed_notify_url_is_refused(caller: Any, url: str) -> None:
    assert caller.withhold("T1", notify_url=url)["status"] == "-1"
    assert caller.query("T1")["message"] == "订单不存在"


def test_an_empty_notify_url_means_no_callbacks(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox()
    assert call(server).withhold("T1-stuck", notify_url="")["status"] == "1"
    assert server.sandbox.outstanding() == 0


def test_an_unknown_pay_type_is_refused(caller: Any) -> None:
    assert caller.withhold("T1", pay_type="other")["message"] == "支付类型不存在"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ua": "NOBODY"}, "ua不存在"),
        ({"sign": "0" * 32}, "签名错误"),
        ({"args": "AAAA"}, "签名错误"),
        ({"method": "confirm-tied-card"}, "签名错误"),
        ({"sign": ""}, "请求参数错误"),
        ({"requestId": None}, "请求参数错误"),
        ({"method": "refund"}, "请求参数错误"),
    ],
)
def test_an_envelope_that_does_not_fit_is_answered_with_a_reason(caller: Any, changes: Any, message: str) -> None:
    envelope = {**caller.envelope("single-order-query", {"biz_order_no": "T1"}), **changes}
    answer = caller.post(envelope).json()
    assert answer["status"] == "-1"
    assert answer["message"].startswith(message)


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{" * 100_000, b'{"ua":1}'])
def test_a_body_that_is_no_request_is_answered_all_the_same(caller: Any, body: Any) -> None:
    response = caller.post(body)
    assert response.status in (200, 413)


def test_an_unseen_order_is_not_found_until_it_is_terminal(caller: Any) -> None:
    assert caller.withhold("T1-unseen-stuck")["status"] == "1"
    assert caller.query("T1-unseen-stuck")["message"] == "订单不存在"
    caller.withhold("T2-unseen-deny")
    found = eventually(lambda: (answer := caller.query("T2-unseen-deny"))["status"] == "1" and answer)
    assert found["response"]["pay_status"] == "success"
