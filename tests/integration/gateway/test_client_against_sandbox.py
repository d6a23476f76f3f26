"""The client and the sandbox over real HTTP: what was done, what was surely not done, and unknown outcomes."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import urllib3

from service.gateway.client import GatewayClient
from service.gateway.errors import NotSent, OutcomeUnknown
from service.gateway.requests import AmountUnit, SingleWithholdArgs
from service.sandbox.server import SandboxServer
from tests.support.http_server import Answer, ScriptedServer
from tests.support.logs import capture_logs


def truth_of(server: Any) -> Any:
    orders = urllib3.request("GET", f"{server.base_url}/admin/orders").json()
    return {order["biz_order_no"]: order["pay_status"] for order in orders}


def test_an_accepted_withhold_returns_the_order(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
) -> None:
    server = start_sandbox()
    accepted = make_client(server.url).withhold(args("T1"))
    assert (accepted.order.biz_order_no, accepted.order.pay_status) == ("T1", "pending")
    assert accepted.order.pay_order_no
    assert len(accepted.request_id) == 32


@pytest.mark.parametrize(
    "dialect",
    [
        {"json": "unicode", "mode": "cbc", "iv": "sent", "encoding": "hex"},
        {
            "json": "python",
            "key": "aes_key | md5 | hex | upper",
            "mode": "cbc",
            "iv": "key | first 16",
            "encoding": "base64 | base64",
            "sign_case": "upper",
        },
        {"json": "gson", "key": "aes_key | sha256", "padding": "zero", "encoding": "base64url", "sign_separator": "|"},
    ],
    ids=str,
)
def test_client_and_gateway_understand_each_other_in_any_dialect(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
    dialect: dict[str, Any],
) -> None:
    server = start_sandbox(dialect=dialect)
    assert make_client(server.url, dialect=dialect).withhold(args("T1")).order.biz_order_no == "T1"
    assert server.sandbox.breach_log.breaches() == []


def test_amounts_in_fen_are_sent_as_they_are(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
) -> None:
    server = start_sandbox(amount_unit="fen")
    make_client(server.url, amount_unit=AmountUnit.FEN).withhold(args("T1", amount="1000"))
    assert truth_of(server).keys() == {"T1"}


@pytest.mark.parametrize("word", ["deny", "lost", "broken"])
def test_without_a_clear_answer_the_outcome_is_unknown_though_money_moved(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
    word: str,
) -> None:
    server = start_sandbox()
    with pytest.raises(OutcomeUnknown):
        make_client(server.url).withhold(args(f"T1-{word}-instant"))
    assert truth_of(server) == {f"T1-{word}-instant": "success"}


def test_an_answer_that_does_not_come_in_time_leaves_the_outcome_unknown(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
) -> None:
    server = start_sandbox()
    with pytest.raises(OutcomeUnknown):
        make_client(server.url, timeout_seconds=0.3).withhold(args("T1-stall-instant"))
    assert truth_of(server) == {"T1-stall-instant": "success"}


def test_a_refused_withhold_has_an_unknown_outcome(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
) -> None:
    server = start_sandbox()
    with pytest.raises(OutcomeUnknown):
        make_client(server.url).withhold(args("T1-refuse"))
    assert truth_of(server) == {}


def test_a_withhold_is_never_sent_twice_by_itself(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
) -> None:
    server = start_sandbox()
    client = make_client(server.url)
    client.withhold(args("T0"))
    for word in ("lost", "broken", "deny"):
        with pytest.raises(OutcomeUnknown):
            client.withhold(args(f"T1-{word}"))
    report = urllib3.request("GET", f"{server.base_url}/admin/report").json()
    assert report["withholds_normal"] == 1
    assert [report[f"withholds_{mode}"] for mode in ("lost", "broken", "denied")] == [1, 1, 1]


def test_a_request_to_an_unreachable_gateway_was_surely_not_sent(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs], free_port: int
) -> None:
    with pytest.raises(NotSent):
        make_client(f"http://127.0.0.1:{free_port}/gateway").withhold(args("T1"))


def test_arguments_that_the_document_does_not_allow_are_not_sent(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
) -> None:
    server = start_sandbox()
    with pytest.raises(NotSent, match="amount"):
        make_client(server.url).withhold(args("T1", amount="10.999"))
    assert truth_of(server) == {}


def test_a_gateway_with_an_untrusted_certificate_is_sent_nothing(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs], secure: ScriptedServer
) -> None:
    with pytest.raises(NotSent, match="SSLError"):
        make_client(secure.url).withhold(args("T1"))
    assert secure.requests == []


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, '{"status":"1","message":""}'),
        (200, '{"status":"1","message":"","response":{"biz_order_no":"OTHER","pay_status":"success"}}'),
        (200, '{"status":"-1","message":"系统繁忙","response":[]}'),
        (204, ""),
        (302, ""),
        (403, "no"),
        (502, '{"status":"1","message":"","response":{"biz_order_no":"T1","pay_status":"success"}}'),
        (200, "x" * 70_000),
    ],
)
def test_an_answer_that_settles_nothing_leaves_the_outcome_unknown(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs], status: int, text: Any
) -> None:
    with ScriptedServer(lambda _: Answer(status=status, body=text)) as listener:
        with pytest.raises(OutcomeUnknown):
            make_client(listener.url).withhold(args("T1"))
        assert len(listener.requests) == 1


def test_a_redirect_is_not_followed(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs]
) -> None:
    with ScriptedServer() as listener:
        answer = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {listener.url}/\r\nContent-Length: 0\r\n\r\n"
        with _Scripted(answer.encode()) as server, pytest.raises(OutcomeUnknown, match="HTTP 307"):
            make_client(server.url).withhold(args("T1"))
        assert listener.requests == []


def test_an_answer_that_drips_is_cut_at_the_time_limit(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"
    with _Scripted(head, drip=b" ") as server, pytest.raises(OutcomeUnknown, match="too slowly"):
        make_client(server.url, timeout_seconds=0.5).withhold(args("T1"))


def test_each_withhold_has_a_connection_of_its_own(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs]
) -> None:
    answer = '{"status":1,"message":"","response":{"biz_order_no":"T1","pay_status":"pending"}}'
    with ScriptedServer(lambda _: Answer(body=answer)) as listener:
        client = make_client(listener.url)
        for _ in range(3):
            client.withhold(args("T1"))
    assert len({request.connection for request in listener.requests}) == 3


def test_each_request_has_its_own_number_and_time(
    make_client: Callable[..., GatewayClient], args: Callable[..., SingleWithholdArgs]
) -> None:
    answer = '{"status":1,"message":"","response":{"biz_order_no":"T1","pay_status":"pending"}}'
    with ScriptedServer(lambda _: Answer(body=answer)) as listener:
        client = make_client(listener.url)
        client.withhold(args("T1"))
        client.withhold(args("T1"))
        envelopes = [heard.json() for heard in listener.requests]
    assert len({envelope["requestId"] for envelope in envelopes}) == 2
    assert all(len(envelope["requestId"]) == 32 for envelope in envelopes)
    assert all(envelope["timestamp"].isdigit() for envelope in envelopes)


def test_the_log_holds_the_order_and_the_outcome_and_nothing_else(
    start_sandbox: Callable[..., SandboxServer],
    make_client: Callable[..., GatewayClient],
    args: Callable[..., SingleWithholdArgs],
    free_port: int,
) -> None:
    server = start_sandbox()
    client = make_client(server.url)
    with capture_logs() as logs:
        client.withhold(args("T1"))
        with pytest.raises(OutcomeUnknown):
            client.withhold(args("T2-lost"))
        with pytest.raises(NotSent):
            make_client(f"http://127.0.0.1:{free_port}/").withhold(args("T3"))
    expected = {"event", "level", "method", "biz_order_no", "request_id", "seconds", "outcome"}
    assert all(set(line) == expected for line in logs)
    assert [(line["biz_order_no"], line["outcome"]) for line in logs] == [
        ("T1", "accepted"),
        ("T2-lost", "unknown"),
        ("T3", "not-sent"),
    ]


class _Scripted:
    """Reads one request and writes fixed bytes, then drips."""

    def __init__(self, answer: Any, *, drip: bytes = b"") -> None:
        self._answer = answer
        self._drip = drip
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/"

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            request = b""
            while not request.endswith(b"}"):  # the end of the envelope
                request += connection.recv(65536)
            connection.sendall(self._answer)
            while self._drip and not self._done.wait(0.05):
                try:
                    connection.sendall(self._drip)
                except OSError:
                    return
