import json
import re
from collections.abc import Callable
from typing import Any

import urllib3

from service.sandbox.document_rules import STRICT, DocumentRule
from service.sandbox.server import SandboxServer
from tests.support.gateway import GatewayCaller


def post_rule(server: Any, rule: Any) -> Any:
    return urllib3.request("POST", f"{server.base_url}/admin/rules", json=rule)


def test_the_help_page_explains_every_keyword(start_sandbox: Callable[..., SandboxServer]) -> None:
    text = urllib3.request("GET", start_sandbox().base_url).data.decode()
    assert "deny" in text
    assert "charged all the same" in text


def test_the_help_page_says_which_rules_of_the_document_are_enforced(
    start_sandbox: Callable[..., SandboxServer],
) -> None:
    server = start_sandbox(strictness=STRICT - {DocumentRule.SORTED_ARGS})
    text = urllib3.request("GET", server.base_url).data.decode()
    assert re.search(r"^sorted_args +off ", text, re.MULTILINE)
    assert all(re.search(rf"^{rule} +on ", text, re.MULTILINE) for rule in STRICT - {DocumentRule.SORTED_ARGS})


def test_a_rule_overrides_the_orders_own_keywords(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox()
    assert post_rule(server, {"pattern": "T1-*", "words": ["stuck", "initial"]}).status == 201
    assert call(server).withhold("T1-instant")["response"]["pay_status"] == "initial"


def test_a_rule_with_an_unknown_keyword_is_refused_with_the_known_ones(
    start_sandbox: Callable[..., SandboxServer],
) -> None:
    answer = post_rule(start_sandbox(), {"pattern": "*", "words": ["explode"]})
    assert answer.status == 400
    assert "success, fail" in answer.json()["error"]


def test_a_malformed_rule_is_refused(start_sandbox: Callable[..., SandboxServer]) -> None:
    server = start_sandbox()
    rules: list[Any] = [[], {}, {"pattern": 1, "words": []}]
    assert [post_rule(server, rule).status for rule in rules] == [400, 400, 400]


def test_verification_codes_that_are_drawn_can_be_read(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    server = start_sandbox(verification_code="")
    person = {"name": "张三", "id_card_number": "11010519491231002X", "mobile": "13800138000"}
    card = {"bank_card_number": "6222021234567890128", "pay_type": "baofoo_001"}
    offered = call(server).call("pre-tied-card", {**person, **card})["response"]
    (shown,) = json.loads(urllib3.request("GET", f"{server.base_url}/admin/bindings").data)
    confirmed = call(server).call("confirm-tied-card", {**card, **shown})
    assert shown["unique_code"] == offered["unique_code"]
    assert confirmed["status"] == "1"


def test_a_full_sandbox_refuses_with_a_message(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller]
) -> None:
    caller = call(start_sandbox(max_entries=1))
    assert caller.withhold("T1")["status"] == "1"
    assert caller.withhold("T2")["message"] == "沙箱已满"
