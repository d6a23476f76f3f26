"""Gateways, and proxies in front of them, that send interim answers: each call gets the answer that was sent for it."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.config.secrets import Secret
from service.config.settings import GatewaySettings
from service.gateway.cipher import ArgsCipher, RequestDialect
from service.gateway.client import GatewayClient
from service.gateway.errors import CipherError, OutcomeUnknown
from service.gateway.probe import Meaning, Probe
from service.gateway.requests import PreTiedCardArgs, sign_request
from tests.support.gateway import status_of
from tests.support.http_server import EVERY_INTERIM, NEVER_SECONDS, Answer, Interim, ScriptedServer

KEY = "0123456789abcdef"
CIPHER = ArgsCipher(key=KEY, dialect=RequestDialect())
STATUSES = {"T1": "success", "T2": "fail", "T3": "pending"}

every_interim = pytest.mark.parametrize("interim", EVERY_INTERIM, ids=str)


@pytest.fixture
def gateway() -> Iterator[Any]:
    with ScriptedServer() as made:
        yield made


def card_of(mobile: Any) -> PreTiedCardArgs:
    return PreTiedCardArgs(
        name="张三",
        id_card_number="11010519491231002X",
        mobile=mobile,
        bank_card_number="6222021234567890128",
        pay_type="baofoo_001",
    )


def after(interim: Any) -> Any:
    """Answers each question and each binding for the very one that was asked, after the interim answers."""

    def answer(request: Any) -> Answer:
        args = CIPHER.open(json.loads(request.body)["args"])
        if order := str(args.get("biz_order_no", "")):
            response = {"biz_order_no": order, "pay_order_no": f"P-{order}", "pay_status": STATUSES[order]}
        else:
            response = {"unique_code": f"code of {args['mobile']}"}
        body = json.dumps({"status": 1, "message": "", "response": response}).encode()
        return Answer(body=body, before=interim.content, ahead_seconds=interim.ahead_seconds)

    return answer


def connections_of(server: Any) -> Any:
    return len({request.connection for request in server.requests})


@every_interim
def test_each_query_gets_the_status_that_was_sent_for_its_order(
    make_client: Callable[..., GatewayClient], gateway: Any, interim: Any
) -> None:
    gateway.behave = after(interim)
    client = make_client(gateway.url)
    assert {order: status_of(client.query(order, max_tries=1)) for order in STATUSES} == STATUSES
    assert connections_of(gateway) == len(STATUSES)


@every_interim
def test_each_person_gets_the_code_that_was_sent_for_their_card(
    make_client: Callable[..., GatewayClient], gateway: Any, interim: Any
) -> None:
    gateway.behave = after(interim)
    client = make_client(gateway.url)
    mobiles = [f"1380013800{number}" for number in range(4)]
    codes = {}
    threads = [
        threading.Thread(target=lambda mobile=mobile: codes.update({mobile: client.pre_tie_card(card_of(mobile))}))
        for mobile in mobiles
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {mobile: f"code of {mobile}" for mobile in mobiles}
    assert {request.headers["connection"] for request in gateway.requests} == {"close"}
    assert connections_of(gateway) == len(mobiles)


@pytest.mark.parametrize(("status", "count"), [(102, 1), (103, 3)])
def test_an_interim_answer_without_a_final_one_leaves_the_outcome_unknown(
    make_client: Callable[..., GatewayClient], gateway: Any, status: int, count: int
) -> None:
    gateway.behave = after(Interim(status, count, NEVER_SECONDS))
    client = make_client(gateway.url, timeout_seconds=1.0)
    with pytest.raises(OutcomeUnknown):
        client.pre_tie_card(card_of("13800138000"))
    with pytest.raises(OutcomeUnknown):
        client.query("T1", max_tries=1)
    gateway.behave = after(Interim(status, count))
    assert status_of(client.query("T2", max_tries=1)) == "fail"
    assert client.pre_tie_card(card_of("13800138001")) == "code of 13800138001"


@pytest.mark.parametrize("before", [Interim(103, 17).content, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"])
def test_too_many_interim_answers_and_another_protocol_leave_the_outcome_unknown(
    make_client: Callable[..., GatewayClient], gateway: Any, before: Any
) -> None:
    gateway.behave = lambda _: Answer(before=before)
    with pytest.raises(OutcomeUnknown):
        make_client(gateway.url).query("T1", max_tries=1)


@pytest.mark.parametrize("over_tls", [False, True])
def test_what_comes_behind_an_answer_is_nobodys(
    make_client: Callable[..., GatewayClient], gateway: Any, secure: ScriptedServer, certificate: Path, over_tls: bool
) -> None:
    called = secure if over_tls else gateway
    others = b'{"status":1,"message":"","response":{"unique_code":"another\'s"}}'
    unasked = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(others), others)

    def answer(request: Any) -> Answer:
        return Answer(body=after(Interim(103))(request).body, after=unasked)

    called.behave = answer
    client = make_client(called.url, ca_certificates=certificate.read_text() if over_tls else "")
    for mobile in ("13800138000", "13800138001"):
        assert client.pre_tie_card(card_of(mobile)) == f"code of {mobile}"


@pytest.mark.parametrize("interim", [Interim(102), Interim(103, 3), Interim(103, 1, 0.05)], ids=str)
def test_a_probe_learns_what_the_final_answers_say(gateway: Any, interim: Interim) -> None:
    def answer(request: Any) -> Answer:
        envelope = json.loads(request.body)
        dialect = RequestDialect(sign_separator="|")
        right = sign_request(ua="ACME", key=KEY, method=envelope["method"], args=envelope["args"], dialect=dialect)
        message = "订单不存在" if envelope["sign"] == right else "签名错误"
        if message == "订单不存在":
            message = _complaint(envelope["args"]) or message
        body = json.dumps({"status": -1, "message": message, "response": []}).encode()
        return Answer(body=body, before=interim.content, ahead_seconds=interim.ahead_seconds)

    gateway.behave = answer
    result = Probe(
        settings=GatewaySettings(url=gateway.url, ua="ACME", aes_key=Secret(KEY)),
        clock=lambda: datetime.now(UTC),
        pause=lambda: None,
        on_request=lambda _: None,
        max_requests=400,
    ).run()
    assert result.dialect is not None
    assert result.not_found is not None
    assert (result.dialect.sign_separator, result.not_found.message) == ("|", "订单不存在")
    assert {group.kind.http_status for group in result.groups} == {200}
    assert {group.kind.message: group.meaning for group in result.groups}["签名错误"] is Meaning.SIGN_REFUSED
    assert connections_of(gateway) == len(gateway.requests)


def _complaint(args: Any) -> Any:
    try:
        return "" if "biz_order_no" in CIPHER.open(args) else "缺少订单号"
    except CipherError:
        return "解密失败"
