"""Withholds over HTTP: the outcome of each, and that none is sent twice."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, select

from service.ledger.tables import metadata
from tests.support.api import ApiCaller, order_path
from tests.support.http_server import Answer, Request, ScriptedServer
from tests.support.logs import capture_logs
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

PERSON = {"name": "张三丰", "id_card_number": "11010519491231002X", "mobile": "13800138000"}
WITHHOLD = {
    "merchant": "acme",
    "biz_order_no": "DK1",
    "amount": "10.00",
    "pay_type": "baofoo_001",
    "bank_card_number": "6222021234567890128",
    **PERSON,
}
DK1 = order_path("acme", "DK1")
#: The sandbox sends every card's owner this one.
CODE = "123456"


def answering(status: str, order: str = "DK1", message: str = "") -> Answer:
    response = {"biz_order_no": order, "pay_order_no": "P1", "pay_status": "pending"}
    body = {"status": status, "message": message, "response": response if status == "1" else {}}
    return Answer(body=json.dumps(body).encode())


def test_a_withhold_that_the_gateway_accepts_is_not_yet_paid(api: ApiCaller, gateway: ScriptedServer) -> None:
    gateway.behave = lambda _: answering("1")
    answer = api.post("/v1/withholds", WITHHOLD)
    assert (answer.status, answer.value["outcome"], answer.value["order"]["status"]) == (202, "accepted", "initial")
    assert answer.value["withhold"]["sent_by"] == "API token shop"
    assert answer.value["withhold"]["request_id"] == json.loads(gateway.requests[0].body)["requestId"]


@pytest.mark.parametrize(
    "reply", [answering("-1", message="系统繁忙"), answering("1", order="DK2"), Answer(status=500)]
)
def test_a_withhold_without_a_conclusive_answer_is_unknown_and_inquired(
    api: ApiCaller, gateway: ScriptedServer, reply: Answer
) -> None:
    gateway.behave = lambda _: reply
    answer = api.post("/v1/withholds", WITHHOLD)
    assert (answer.status, answer.value["outcome"]) == (202, "unknown")
    inquiry = api.get(DK1).value["inquiry"]
    assert (inquiry["state"], inquiry["reasons"]) == ("open", ["overdue", "unknown_outcome"])


def test_the_same_request_again_sends_nothing_and_returns_what_is_known(
    api: ApiCaller, gateway: ScriptedServer
) -> None:
    gateway.behave = lambda _: answering("-1")
    answers = [api.post("/v1/withholds", WITHHOLD), api.post("/v1/withholds", WITHHOLD)]
    assert answers[0] == answers[1]
    assert len(gateway.requests) == 1


def test_only_one_of_many_concurrent_equal_requests_is_sent(api: ApiCaller, gateway: ScriptedServer) -> None:
    gateway.behave = lambda _: answering("1")
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: api.post("/v1/withholds", WITHHOLD), range(4)))
    assert len(gateway.requests) == 1
    assert {answer.status for answer in answers} == {202}
    assert {answer.value["outcome"] for answer in answers} <= {"accepted", "sending"}


def test_a_withhold_that_never_reached_the_gateway_is_sent_by_the_next_request(api: ApiCaller) -> None:
    answers = [api.post("/v1/withholds", {**WITHHOLD, "merchant": "away"}) for _ in range(2)]
    assert {(answer.status, answer.value["outcome"]) for answer in answers} == {(502, "not-done")}
    assert answers[0].value["request_id"] != answers[1].value["request_id"]
    assert api.get(order_path("away", "DK1")).value["withhold"]["outcome"] == "not-done"


def test_an_order_announced_with_another_amount_is_not_sent(api: ApiCaller, gateway: ScriptedServer) -> None:
    api.announce({"merchant": "acme", "biz_order_no": "DK1", "amount": "9.00", "pay_type": "baofoo_001"})
    answer = api.post("/v1/withholds", WITHHOLD)
    assert (answer.status, gateway.requests) == (409, [])
    assert "amount" in answer.value["detail"]


def test_an_order_that_has_a_status_already_is_not_sent(api: ApiCaller, gateway: ScriptedServer) -> None:
    api.announce({"merchant": "acme", "biz_order_no": "DK1", "amount": "10.00", "pay_type": "baofoo_001"})
    api.post(f"{DK1}/resolve", {"status": "succeeded", "sequence": 0, "name": "Li", "reason": "paid by transfer"})
    answer = api.post("/v1/withholds", WITHHOLD)
    assert (answer.status, gateway.requests) == (409, [])


def test_invalid_arguments_announce_and_send_nothing(api: ApiCaller, gateway: ScriptedServer) -> None:
    for changes, where in (
        ({"id_card_number": "110105194912310021"}, "id_card_number"),
        ({"bank_card_number": "6222021234567890129"}, "bank_card_number"),
        ({"mobile": "12800138000"}, "mobile"),
        ({"amount": "0"}, "amount"),
        ({"pay_type": "other"}, "pay_type"),
        ({"name": ""}, "name"),
    ):
        answer = api.post("/v1/withholds", {**WITHHOLD, **changes})
        assert answer.status == 422, changes
        assert where in [error["where"] for error in answer.value["errors"]], changes
        assert api.get(DK1).status == 404
        assert gateway.requests == []


def test_a_merchant_without_a_gateway_sends_nothing(api: ApiCaller) -> None:
    assert api.post("/v1/withholds", {**WITHHOLD, "merchant": "mute", "amount": "1000"}).status == 409


def test_a_merchant_with_unusable_gateway_settings_sends_nothing_until_they_are_corrected(
    api: ApiCaller, gateway: ScriptedServer
) -> None:
    card = {"pay_type": WITHHOLD["pay_type"], "bank_card_number": WITHHOLD["bank_card_number"]}
    for path, body in (
        ("/v1/withholds", WITHHOLD),
        ("/v1/cards", {**card, **PERSON}),
        ("/v1/cards/confirm", {**card, "unique_code": "U1", "verification_code": CODE}),
    ):
        answer = api.post(path, {**body, "merchant": "wrong"})
        assert (answer.status, answer.value["outcome"]) == (503, "not-done")
        assert "merchants.wrong.gateway: key = 'aes_key'" in answer.value["detail"]
    assert api.get(order_path("wrong", "DK1")).value["withhold"]["outcome"] == "not-done"
    assert gateway.requests == []


def test_a_card_is_bound_and_charged_at_the_sandbox(api: ApiCaller) -> None:
    card = {"merchant": "sand", "bank_card_number": "6222021234567890128", "pay_type": "baofoo_001"}
    bound = api.post("/v1/cards", {**card, **PERSON})
    assert bound.status == 200
    confirmation = {**card, "unique_code": bound.value["unique_code"], "verification_code": CODE}
    confirmed = api.post("/v1/cards/confirm", confirmation)
    assert confirmed.value["protocol_no"]
    sent = api.post("/v1/withholds", {**WITHHOLD, "merchant": "sand"})
    assert (sent.status, sent.value["outcome"]) == (202, "accepted")


def test_a_binding_that_the_gateway_refuses_is_surely_not_done(api: ApiCaller, gateway: ScriptedServer) -> None:
    gateway.behave = lambda _: answering("-1", message="卡号 6222021234567890128 无效")
    card = {"merchant": "acme", "bank_card_number": "6222021234567890128", "pay_type": "baofoo_001", **PERSON}
    answer = api.post("/v1/cards", card)
    assert (answer.status, answer.value["outcome"]) == (502, "not-done")
    assert "6222021234567890128" not in json.dumps(answer.value)


@pytest.mark.parametrize("gateway_timeout_seconds", [1.0])
def test_a_binding_without_an_answer_is_unknown(api: ApiCaller, gateway: ScriptedServer) -> None:
    gateway.behave = gateway.hang
    card = {"merchant": "acme", "bank_card_number": "6222021234567890128", "pay_type": "baofoo_001", **PERSON}
    answer = api.post("/v1/cards", card)
    assert (answer.status, answer.value["outcome"]) == (504, "unknown")
    assert answer.value["request_id"]


def test_no_personal_data_reaches_the_log_or_the_ledger(
    api: ApiCaller, gateway: ScriptedServer, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.behave = lambda _: answering("-1", message="户名 张三丰 卡号 6222021234567890128 不符")
    with capture_logs() as logs:
        api.post("/v1/withholds", WITHHOLD)
        api.post("/v1/withholds", {**WITHHOLD, "biz_order_no": "DK2", "mobile": "1234567"})
    with engine.connect() as connection:
        rows = [connection.execute(select(table)).all() for table in metadata.sorted_tables]
    kept = f"{logs} {caplog.text} {rows}"
    assert "withhold_answered" in kept
    assert "DK1" in kept
    assert [secret for secret in (*PERSON.values(), WITHHOLD["bank_card_number"], "1234567") if secret in kept] == []


def test_a_gateway_that_hangs_takes_half_of_the_threads_and_no_more(api: ApiCaller, gateway: ScriptedServer) -> None:
    released = threading.Event()

    def hang(_request: Request) -> Answer:
        released.wait(HANGS_AFTER_SECONDS)
        return Answer(status=500)

    gateway.behave = hang
    orders = [{**WITHHOLD, "biz_order_no": f"DK{number}"} for number in range(5)]
    with ThreadPoolExecutor(4) as threads:
        hanging = [threads.submit(api.post, "/v1/withholds", order) for order in orders[:4]]
        eventually(lambda: len(gateway.requests) == 4)
        turned_away = api.post("/v1/withholds", orders[4])
        assert (turned_away.status, turned_away.value["outcome"]) == (503, "not-done")
        assert api.announce({"merchant": "acme", "biz_order_no": "DK9"}).status == 200
        released.set()
    assert {answer.result().value["outcome"] for answer in hanging} == {"unknown"}
    gateway.behave = lambda _: answering("1", order="DK4")
    assert api.post("/v1/withholds", orders[4]).value["outcome"] == "accepted"
