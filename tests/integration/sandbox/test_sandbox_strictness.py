"""The sandbox tells a caller where it breaks the gateway's document, and keeps the document itself."""

import itertools
import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from service.gateway.bodies import NumberToken
from service.sandbox.document_rules import STRICT, DocumentRule
from service.sandbox.server import SandboxServer
from service.sandbox.settings import EmptyResponse
from tests.support.gateway import WITHHOLD, GatewayCaller
from tests.support.http_server import ScriptedServer
from tests.support.logs import capture_logs
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

KEY = "0123456789abcdef"
JSON = "application/json;charset=UTF-8"


def breaches_of(server: Any) -> Any:
    return urllib3.request("GET", f"{server.base_url}/admin/breaches").json()


def send(server: Any, envelope: Any, *, http_method: str = "POST", content_type: Any = JSON) -> Any:
    headers = {"Content-Type": content_type} if content_type else {}
    return urllib3.request(http_method, server.url, body=json.dumps(envelope).encode(), headers=headers).json()


def unsorted(server: Any) -> GatewayCaller:
    """A caller that leaves its args in the order they are given in."""
    return GatewayCaller(url=server.url, ua="ACME", key=KEY, dialect={"key_sorting": "none"})


def repeat(server: Any, caller: Any) -> Any:
    envelope = caller.envelope("single-withhold", {**WITHHOLD, "biz_order_no": "T0"})
    send(server, envelope)
    other = caller.envelope("single-withhold", {**WITHHOLD, "biz_order_no": "T1"})
    return send(server, {**other, "requestId": envelope["requestId"]})


def withhold(caller: Any, **changes: Any) -> Any:
    args = {"biz_order_no": "T1", **WITHHOLD, **changes}
    return caller.envelope("single-withhold", {name: value for name, value in args.items() if value is not None})


#: A request per rule that breaks it and no other one, and what the answer says.
BREACHES: dict[DocumentRule, tuple[Callable[[Any, Any], Any], str]] = {
    DocumentRule.HTTP_METHOD: (lambda server, caller: send(server, withhold(caller), http_method="PUT"), "post"),
    DocumentRule.CONTENT_TYPE: (
        lambda server, caller: send(server, withhold(caller), content_type="application/json"),
        JSON,
    ),
    DocumentRule.REQUIRED: (lambda server, caller: send(server, withhold(caller, mobile="")), "mobile"),
    DocumentRule.TYPES: (lambda server, caller: send(server, withhold(caller, name=["张三"])), "name"),
    DocumentRule.TIMESTAMP: (
        lambda server, caller: send(server, {**withhold(caller), "timestamp": "1562000000000"}),
        "timestamp",
    ),
    DocumentRule.UNIQUE_REQUEST_ID: (repeat, "requestId重复"),
    DocumentRule.SORTED_ARGS: (lambda server, caller: send(server, withhold(unsorted(server))), "升序"),
    DocumentRule.UNKNOWN_PARAMETERS: (lambda server, caller: send(server, withhold(caller, remark="x")), "remark"),
}


@pytest.mark.parametrize("rule", BREACHES)
def test_a_request_that_breaks_a_rule_is_refused_with_an_explanation(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller], rule: Any
) -> None:
    server = start_sandbox(strictness=STRICT | {rule})
    request, word = BREACHES[rule]
    answer = request(server, call(server))
    assert answer["status"] == "-1"
    assert answer["message"].startswith("请求参数错误: ")
    assert word in answer["message"]
    assert call(server).query("T1")["message"] == "订单不存在"
    (breach,) = breaches_of(server)
    assert (breach["rule"], breach["refused"]) == (rule, True)
    assert f"({breach['section']})" in answer["message"]


@pytest.mark.parametrize("rule", BREACHES)
def test_a_rule_that_is_switched_off_lets_the_request_pass_and_lists_it(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller], rule: Any
) -> None:
    server = start_sandbox(strictness=STRICT - {rule})
    request, _ = BREACHES[rule]
    assert request(server, call(server))["status"] == "1"
    (breach,) = breaches_of(server)
    assert (breach["rule"], breach["refused"], breach["ua"]) == (rule, False, "ACME")
    report = urllib3.request("GET", f"{server.base_url}/admin/report").json()
    assert (report["breaches_refused"], report["breaches_served"]) == (0, 1)


def test_with_every_rule_off_numbers_are_read_as_text_and_null_as_absent(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox(strictness=frozenset())
    caller = call(server)
    args = {
        **WITHHOLD,
        "biz_order_no": NumberToken("17"),
        "amount": NumberToken("12"),
        "mobile": None,
        "biz_data": None,
        "notify_url": None,
    }
    assert send(server, caller.envelope("single-withhold", args))["response"]["biz_order_no"] == "17"
    assert caller.query("17")["status"] == "1"


def test_all_breaches_of_a_request_are_reported_at_once(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox()
    message = send(server, withhold(unsorted(server), mobile=None, amount=NumberToken("12")))["message"]
    assert all(word in message for word in ("mobile", "amount", "升序"))
    message = send(server, {}, http_method="DELETE", content_type="")["message"]
    assert all(word in message for word in ("post", "Content-Type", "ua", "args"))


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{", b'{"ua":1,"ua":2}'])
def test_a_body_that_is_no_object_is_refused_with_an_explanation(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller], body: bytes
) -> None:
    server = start_sandbox()
    assert call(server).post(body).json()["message"] == "请求参数错误: 请求体须为UTF-8编码的json对象(调用说明)"
    assert breaches_of(server)[0]["detail"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"sign": "0" * 32}, "sign: "), ({"ua": "NOBODY"}, "ua: "), ({"args": "AAAA"}, "sign: ")],
)
def test_breaches_of_unknown_callers_are_listed_too(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller], changes: Any, word: str
) -> None:
    server = start_sandbox()
    assert send(server, {**withhold(call(server)), **changes})["status"] == "-1"
    (breach,) = breaches_of(server)
    assert breach["detail"].startswith(word)


def test_a_request_id_is_used_up_by_each_ua_alone_and_by_no_forged_request(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox()
    envelope = withhold(call(server))
    assert send(server, {**envelope, "sign": "0" * 32})["message"] == "签名错误"
    assert send(server, envelope)["status"] == "1"
    assert "requestId重复" in send(server, envelope)["message"]


def test_of_many_equal_requests_at_once_one_is_served(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox()
    envelope = call(server).envelope("pre-tied-card", {**PERSON, **CARD})
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: send(server, envelope), range(32)))
    assert [answer["status"] for answer in answers].count("1") == 1


PERSON = {"name": "张三", "id_card_number": "11010519491231002X", "mobile": "13800138000"}
CARD = {"bank_card_number": "6222021234567890128", "pay_type": "baofoo_001"}


def test_a_log_line_says_in_english_what_was_wrong_and_quotes_nothing(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox()
    with capture_logs() as lines:
        send(server, withhold(call(server), mobile=NumberToken("13800138000"), id_card_number=["11010519491231002X"]))
    assert [line["detail"].partition(":")[0] for line in lines] == ["id_card_number", "mobile"]
    assert {line["event"] for line in lines} == {"document_rule_broken"}
    assert "13800138000" not in str(lines) + str(breaches_of(server))
    assert "11010519491231002X" not in str(lines) + str(breaches_of(server))


def test_a_message_has_250_characters_at_most(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox(not_found_message="订" * 300)
    assert call(server).query("T1")["message"] == "订" * 249 + "…"
    message = send(server, call(server).envelope("single-withhold", {}))["message"]
    assert (len(message), message[-1]) == (250, "…")
    assert len(breaches_of(server)) >= 8


def test_a_message_may_be_longer_where_the_settings_say_so(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox(not_found_message="订" * 300, strictness=STRICT - {DocumentRule.MESSAGE_LENGTH})
    assert call(server).query("T1")["message"] == "订" * 300


def test_failures_have_every_shape_of_an_empty_response_in_turn(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    caller = call(start_sandbox())
    answers = [caller.query("T1").get("response", "absent") for _ in range(10)]
    assert answers == [None, [], {}, "", "absent"] * 2


def test_the_shapes_of_an_empty_response_are_the_settings(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    caller = call(start_sandbox(empty_responses=[EmptyResponse.LIST]))
    refused = [caller.query("T1"), caller.withhold("T1-refuse"), caller.call("pre-tied-card", {})]
    assert [answer["response"] for answer in refused] == [[], [], []]


@pytest.mark.parametrize(("strict", "status"), [(True, "pending"), (False, "wait_pay")])
def test_wait_pay_is_used_in_queries_only_if_the_document_is_followed(
    start_sandbox: Callable[..., SandboxServer],
    call: Callable[[SandboxServer], GatewayCaller],
    listener: ScriptedServer,
    strict: bool,
    status: str,
) -> None:
    server = start_sandbox(strictness=STRICT if strict else STRICT - {DocumentRule.WAIT_PAY})
    answer = call(server).withhold("T1-waitpay-stuck", notify_url=f"{listener.origin}/notify/token")
    assert answer["response"]["pay_status"] == status
    assert call(server).query("T1-waitpay-stuck")["response"]["pay_status"] == "wait_pay"
    (heard,) = eventually(lambda: listener.requests)
    assert heard.json()["pay_status"] == status


def test_an_initial_order_is_called_back_as_initial(
    start_sandbox: Callable[..., SandboxServer],
    call: Callable[[SandboxServer], GatewayCaller],
    listener: ScriptedServer,
) -> None:
    server = start_sandbox()
    call(server).withhold("T1-initial", notify_url=f"{listener.origin}/notify/token")
    eventually(lambda: len(listener.requests) == 2)
    assert [heard.json()["pay_status"] for heard in listener.requests] == ["initial", "success"]


def test_every_answer_is_as_long_and_of_the_type_that_the_document_says(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    caller = call(start_sandbox())
    offered = caller.call("pre-tied-card", {**PERSON, **CARD})
    code = {"unique_code": offered["response"]["unique_code"], "verification_code": "123456"}
    confirmed = caller.call("confirm-tied-card", {**CARD, **code})
    protocol = {"protocol_no": confirmed["response"]["protocol_no"]}
    withheld = caller.withhold("T1-instant", biz_data=protocol)
    queried = caller.query("T1-instant")
    assert len(code["unique_code"]) <= 40
    assert len(protocol["protocol_no"]) <= 40
    for answer in (offered, confirmed, withheld, queried):
        texts = itertools.chain([answer["status"], answer["message"]], answer["response"].values())
        assert all(isinstance(text, str) for text in texts)
    order = {"biz_order_no", "pay_order_no", "pay_type", "pay_status", "pay_time", "channel_response"}
    assert withheld["response"].keys() == queried["response"].keys() == order


PHP = """
[$url, $key] = [$argv[1], $argv[2]];
foreach ([[], ["protocol_no" => ""]] as $number => $biz_data) {
    $args = ["pay_type" => "baofoo_001", "name" => "张三", "mobile" => "13800138000", "amount" => "10.00",
             "id_card_number" => "11010519491231002X", "biz_order_no" => "T$number", "biz_data" => $biz_data,
             "notify_url" => ""];
    ksort($args);
    $sealed = openssl_encrypt(json_encode($args), "AES-128-ECB", $key);
    $envelope = ["ua" => "ACME", "args" => $sealed, "method" => "single-withhold", "requestId" => uniqid("", true),
                 "sign" => md5("ACME" . $key . "single-withhold" . $sealed), "timestamp" => (string) time()];
    $context = stream_context_create(["http" => ["method" => "POST", "content" => json_encode($envelope),
                                                 "header" => "Content-Type: application/json;charset=UTF-8"]]);
    echo file_get_contents($url, false, $context), "\\n";
}
"""


def test_a_php_client_that_follows_the_document_breaks_nothing(start_sandbox: Callable[..., SandboxServer]) -> None:
    server = start_sandbox()
    run = subprocess.run(
        ["php", "-r", PHP, server.url, KEY], capture_output=True, text=True, check=True, timeout=HANGS_AFTER_SECONDS
    )
    assert [json.loads(line)["status"] for line in run.stdout.splitlines() if line] == ["1", "1"]
    assert breaches_of(server) == []
