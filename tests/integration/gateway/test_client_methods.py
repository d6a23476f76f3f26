"""Binding a card and querying an order: what is returned, what counts as an answer, what is tried again."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3

from service.gateway.client import GatewayClient
from service.gateway.errors import ArgumentsInvalid, NotSent, OutcomeUnknown, Refused, WithholdRefused
from service.gateway.requests import ConfirmTiedCardArgs, PreTiedCardArgs, SingleWithholdArgs
from service.sandbox.server import SandboxServer
from tests.support.gateway import status_of
from tests.support.http_server import Answer, ScriptedServer
from tests.support.logs import capture_logs
from tests.support.waiting import eventually

CARD = "6222021234567890128"
PERSON = {"name": "张三", "id_card_number": "11010519491231002X", "mobile": "13800138000"}
NOT_FOUND = "订单不存在"


def card(**changes: Any) -> PreTiedCardArgs:
    return PreTiedCardArgs(**{**PERSON, "bank_card_number": CARD, "pay_type": "baofoo_001", **changes})


def confirmation(unique_code: Any, code: Any) -> ConfirmTiedCardArgs:
    return ConfirmTiedCardArgs(
        unique_code=unique_code, verification_code=code, bank_card_number=CARD, pay_type="baofoo_001"
    )


def answer(status: Any, message: str = "", response: Any = None) -> Any:
    return json.dumps({"status": status, "message": message, "response": response or []})


def about(order: Any, pay_status: str = "success") -> Any:
    return answer(1, response={"biz_order_no": order, "pay_order_no": "P1", "pay_status": pay_status})


def test_a_card_is_bound_in_two_steps_and_charged_by_its_protocol(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
) -> None:
    server = start_sandbox()
    client = make_client(server.url)
    unique_code = client.pre_tie_card(card())
    (offered,) = urllib3.request("GET", f"{server.base_url}/admin/bindings").json()
    assert unique_code == offered["unique_code"]
    protocol_no = client.confirm_tied_card(confirmation(unique_code, offered["verification_code"]))
    accepted = client.withhold(args("T1", bank_card_number=None, protocol_no=protocol_no))
    assert accepted.order.biz_order_no == "T1"
    assert client.query("T1").order is not None
    assert server.sandbox.breach_log.breaches() == []


def test_a_wrong_code_is_refused_with_the_gateways_words_masked(
    start_sandbox: Callable[..., SandboxServer], make_client: Callable[..., GatewayClient]
) -> None:
    client = make_client(start_sandbox().url)
    with pytest.raises(Refused, match="验证码错误"):
        client.confirm_tied_card(confirmation(client.pre_tie_card(card()), "000000"))
    with (
        ScriptedServer(lambda _: Answer(body=answer(-1, f"卡{CARD}无效"))) as listener,
        pytest.raises(Refused) as refused,
    ):
        make_client(listener.url).pre_tie_card(card())
    assert "6222****0128" in str(refused.value)
    assert refused.value.request_id == listener.requests[0].json()["requestId"]


def test_a_success_without_its_code_is_no_answer(make_client: Callable[..., GatewayClient]) -> None:
    with ScriptedServer(lambda _: Answer(body=answer(1))) as listener:
        client = make_client(listener.url)
        with pytest.raises(OutcomeUnknown):
            client.pre_tie_card(card())
        with pytest.raises(OutcomeUnknown):
            client.confirm_tied_card(confirmation("U1", "123456"))
        assert len(listener.requests) == 2


def test_arguments_that_cannot_be_right_are_not_sent(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs]
) -> None:
    with ScriptedServer() as listener:
        client = make_client(listener.url)
        for attempt in (
            lambda: client.pre_tie_card(card(mobile="1")),
            lambda: client.confirm_tied_card(confirmation("", "1")),
            lambda: client.withhold(args("T1", pay_type="another's")),
            lambda: client.withhold(args("T1", amount="1.001")),
            lambda: client.query("no\nnumber"),
        ):
            with pytest.raises(ArgumentsInvalid):
                attempt()
        assert listener.requests == []


def test_a_refused_withhold_has_an_unknown_outcome_and_the_whole_message(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs]
) -> None:
    message = f"卡{CARD}余额不足"
    with ScriptedServer(lambda _: Answer(body=answer(-1, message))) as listener:
        with pytest.raises(WithholdRefused) as refused:
            make_client(listener.url).withhold(args("T1"))
        assert len(listener.requests) == 1
    assert isinstance(refused.value, OutcomeUnknown)
    assert refused.value.message == message
    # What is shown and logged is masked.
    assert CARD not in str(refused.value)


def test_a_query_returns_the_order_and_the_time_of_the_query(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
) -> None:
    client = make_client(start_sandbox().url)
    client.withhold(args("T1-instant-fail"))
    began = datetime.now(UTC)
    queried = client.query("T1-instant-fail")
    assert status_of(queried) == "fail"
    assert began <= queried.asked_at <= datetime.now(UTC)


def test_an_order_is_missing_only_if_the_gateway_answers_with_a_configured_message(
    start_sandbox: Callable[..., SandboxServer], make_client: Callable[..., GatewayClient]
) -> None:
    server = start_sandbox()
    found = make_client(server.url, not_found_messages=[NOT_FOUND]).query("T1")
    assert (found.order, found.message) == (None, NOT_FOUND)
    with pytest.raises(OutcomeUnknown, match="not_found_messages"):
        make_client(server.url).query("T1")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, about("OTHER")),
        (200, answer(-1, "系统繁忙")),
        (200, answer(1)),
        (200, "<html>"),
        (500, about("T1")),
        (302, ""),
    ],
)
def test_a_query_without_a_usable_answer_is_tried_three_times(
    make_client: Callable[..., GatewayClient], status: int, text: Any
) -> None:
    with ScriptedServer(lambda _: Answer(status=status, body=text)) as listener:
        with pytest.raises(OutcomeUnknown):
            make_client(listener.url, not_found_messages=[NOT_FOUND]).query("T1")
        envelopes = [heard.json() for heard in listener.requests]
    assert len({envelope["requestId"] for envelope in envelopes}) == 3
    assert {envelope["method"] for envelope in envelopes} == {"single-order-query"}


@pytest.mark.parametrize(
    ("status", "quoted"), [(0, "'0'"), ("OK", "'OK'"), (2, "'2'"), (None, "''"), (True, "'true'"), (1.0, "'1.0'")]
)
def test_an_undocumented_status_leaves_the_outcome_unknown(
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
    status: bool | float | str | None,
    quoted: str,
) -> None:
    with ScriptedServer(lambda _: Answer(body=answer(status, NOT_FOUND))) as listener:
        client = make_client(listener.url, not_found_messages=[NOT_FOUND])
        for call in (
            lambda: client.pre_tie_card(card()),
            lambda: client.confirm_tied_card(confirmation("U1", "123456")),
            lambda: client.withhold(args("T1")),
            lambda: client.query("T1", max_tries=1),
        ):
            with pytest.raises(OutcomeUnknown, match=f"status {quoted}, which is neither 1 nor -1"):
                call()


def test_an_order_in_a_list_of_one_is_the_answer(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs]
) -> None:
    listed = json.dumps({"status": 1, "response": [json.loads(about("T1"))["response"]]})
    with ScriptedServer(lambda _: Answer(body=listed)) as listener:
        client = make_client(listener.url)
        assert status_of(client.query("T1")) == "success"
        assert client.withhold(args("T1")).order.pay_order_no == "P1"


@pytest.mark.parametrize("asked", ["dk1", "DK1 ", "ＤＫ1", "ĎK1"])
def test_an_answer_about_another_spelling_means_that_there_is_no_such_order(
    make_client: Callable[..., GatewayClient], asked: str
) -> None:
    with ScriptedServer(lambda _: Answer(body=about("DK1"))) as listener:
        queried = make_client(listener.url).query(asked)
    assert queried.order is None
    assert queried.message == "the gateway has it in another spelling only"
    assert queried.other_spelling


def test_who_counts_questions_asks_once(make_client: Callable[..., GatewayClient]) -> None:
    with ScriptedServer(lambda _: Answer(status=500)) as listener:
        with pytest.raises(OutcomeUnknown):
            make_client(listener.url).query("T1", max_tries=1)
        assert len(listener.requests) == 1


def test_a_query_that_fails_once_is_answered_by_the_next_try(make_client: Callable[..., GatewayClient]) -> None:
    answers = iter([Answer(status=502), Answer(body=about("T1"))])
    with ScriptedServer(lambda _: next(answers)) as listener:
        queried = make_client(listener.url).query("T1")
        assert queried.request_id == listener.requests[1].json()["requestId"]


def test_all_tries_of_a_query_share_one_time_limit(make_client: Callable[..., GatewayClient]) -> None:
    with ScriptedServer() as server:
        server.behave = server.hang
        with pytest.raises(OutcomeUnknown):
            make_client(server.url, timeout_seconds=0.4).query("T1")
        eventually(lambda: len(server.requests) == 1)


def test_an_answer_whose_header_drips_is_cut_at_the_time_limit(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs]
) -> None:
    dripping = Answer(body=about("T1").encode(), pause_seconds=0.1)
    with ScriptedServer(lambda _: dripping) as server, pytest.raises(OutcomeUnknown):
        make_client(server.url, timeout_seconds=0.5).withhold(args("T1"))


def test_an_answer_whose_chunks_cannot_be_read_leaves_the_outcome_unknown(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs]
) -> None:
    with ScriptedServer() as server:
        server.behave = lambda _: Answer(headers={"transfer-encoding": "chunked"}, body=b"-5\r\nabc")
        with pytest.raises(OutcomeUnknown):
            make_client(server.url).withhold(args("T1"))


def test_a_gateway_is_trusted_with_the_pinned_certificates(
    make_client: Callable[..., GatewayClient], secure: ScriptedServer, certificate: Path
) -> None:
    secure.behave = lambda _: Answer(body=about("T1"))
    with pytest.raises(NotSent):
        make_client(secure.url).query("T1")
    assert make_client(secure.url, ca_certificates=certificate.read_text()).query("T1").order


def test_the_log_distinguishes_outcomes_and_quotes_nothing_of_the_gateway(
    start_sandbox: Callable[..., SandboxServer], make_client: Callable[..., GatewayClient]
) -> None:
    client = make_client(start_sandbox().url, not_found_messages=[NOT_FOUND])
    with capture_logs() as logs:
        unique_code = client.pre_tie_card(card())
        with pytest.raises(Refused):
            client.confirm_tied_card(confirmation(unique_code, "000000"))
        client.query("T1")
    assert [(line["method"], line["biz_order_no"], line["outcome"]) for line in logs] == [
        ("pre-tied-card", "", "accepted"),
        ("confirm-tied-card", "", "refused"),
        ("single-order-query", "T1", "not-found"),
    ]
    fields = {"event", "level", "method", "biz_order_no", "request_id", "seconds", "outcome"}
    assert all(set(line) == fields for line in logs)


def test_one_client_serves_many_threads(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
) -> None:
    client = make_client(start_sandbox().url)
    accepted = []
    threads = [
        threading.Thread(
            target=lambda number=number: accepted.append(client.withhold(args(f"T{number}")).order.biz_order_no)
        )
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(accepted) == sorted(f"T{number}" for number in range(20))
