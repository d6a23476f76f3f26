"""A gateway behind a proxy, by tunnel or forwarding. Proxies from the environment are ignored."""

import base64
import http.client
import json
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.config.secrets import Proxy, Secret
from service.gateway.client import GatewayClient
from service.gateway.errors import NotSent, OutcomeUnknown, PlainHttpRefused
from tests.support.gateway import status_of
from tests.support.http_server import Answer, Interim, LocalServer, ScriptedServer, SilentHandler

FOUND = json.dumps(
    {"status": 1, "message": "", "response": {"biz_order_no": "T1", "pay_order_no": "P1", "pay_status": "success"}}
).encode()
USER, PASSWORD = "acme", "p@ss:wörd/%"


class HttpProxy(LocalServer):
    """Use it as a context manager. What it is told to send wrong, it sends in place of a good answer to CONNECT."""

    def __init__(self, *, user: str = "", password: str = "") -> None:
        """With a `user` it refuses who does not name itself so."""
        self._wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else None
        #: The request lines that it was sent, and what came in Proxy-Authorization.
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        #: Raw bytes in front of its answer to CONNECT, and right behind it.
        self.before = b""
        self.after = b""
        #: Answers CONNECT with this.
        self.status = 200
        #: It takes CONNECT and never answers.
        self.silent = False

        class Handler(_Handler):
            proxy = self

        super().__init__(Handler)

    def lets_in(self, authorization: str | None) -> bool:
        """Whether it serves whoever names itself so."""
        self.authorizations.append(authorization)
        return self._wanted is None or authorization == self._wanted


class _Handler(SilentHandler):
    proxy: HttpProxy

    def do_CONNECT(self) -> None:
        proxy = self.proxy
        proxy.asked.append(self.requestline)
        self.close_connection = True
        if not proxy.lets_in(self.headers["Proxy-Authorization"]):
            self.send_error(407)
            return
        if proxy.silent:
            proxy.closing.wait()
            return
        self.wfile.write(proxy.before)
        if proxy.status >= 300:
            self.send_error(proxy.status)
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as target:
            self.wfile.write(f"HTTP/1.1 {proxy.status} Connection established\r\n\r\n".encode() + proxy.after)
            _relay(self.connection, target)

    def do_POST(self) -> None:
        proxy = self.proxy
        proxy.asked.append(self.requestline)
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not proxy.lets_in(self.headers["Proxy-Authorization"]):
            self.send_error(407)
            return
        forwarded = http.client.HTTPConnection(url.netloc)
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        forwarded.request("POST", url.path, body, headers)
        answer = forwarded.getresponse()
        content = answer.read()
        forwarded.close()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Until either hangs up."""
    while True:
        for source in select.select([one, other], [], [])[0]:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)


@pytest.fixture
def proxy() -> Iterator[HttpProxy]:
    with HttpProxy(user=USER, password=PASSWORD) as made:
        yield made


@pytest.fixture
def gateway(secure: ScriptedServer) -> ScriptedServer:
    secure.behave = lambda _: Answer(body=FOUND)
    return secure


def through(proxy: Any, credentials: str = f"{USER}:{PASSWORD}") -> Proxy:
    return Proxy(host="127.0.0.1", port=proxy.port, credentials=Secret(credentials) if credentials else None)


@pytest.fixture
def ask(make_client: Callable[..., GatewayClient], gateway: ScriptedServer, certificate: Path) -> Any:
    def ask_through(proxy: Any, **changes: Any) -> Any:
        client = make_client(gateway.url, ca_certificates=certificate.read_text(), proxy=proxy, **changes)
        return status_of(client.query("T1", max_tries=1))

    return ask_through


def test_a_gateway_on_https_is_reached_through_a_tunnel_of_its_own(
    ask: Any, proxy: HttpProxy, gateway: ScriptedServer
) -> None:
    assert [ask(through(proxy)), ask(through(proxy))] == ["success", "success"]
    authority = gateway.url.removeprefix("https://").removesuffix("/events")
    assert proxy.asked == [f"CONNECT {authority} HTTP/1.1"] * 2
    assert [request.path for request in gateway.requests] == ["/events"] * 2
    assert all("proxy-authorization" not in request.headers for request in gateway.requests)


def test_a_gateway_on_plain_http_has_its_requests_forwarded(
    make_client: Callable[..., GatewayClient], proxy: HttpProxy
) -> None:
    with ScriptedServer(lambda _: Answer(body=FOUND)) as gateway:
        client = make_client(gateway.url, proxy=through(proxy), allow_plain_http=True)
        assert status_of(client.query("T1")) == "success"
        assert proxy.asked == [f"POST {gateway.url} HTTP/1.1"]
        assert "http://" + gateway.requests[0].headers["host"] + "/events" == gateway.url


def test_plain_http_is_for_loopback_only_where_no_proxy_can_read_it(
    make_client: Callable[..., GatewayClient], proxy: HttpProxy
) -> None:
    with pytest.raises(PlainHttpRefused, match="proxy"):
        make_client("http://127.0.0.1:8090/", proxy=through(proxy))


@pytest.mark.parametrize("credentials", ["", "acme:wrong"])
def test_a_proxy_that_refuses_has_let_nothing_out(
    ask: Any, proxy: HttpProxy, gateway: ScriptedServer, credentials: str
) -> None:
    with pytest.raises(NotSent, match=r"ProxyError \(HTTP 407\)") as refused:
        ask(through(proxy, credentials))
    assert "wrong" not in str(refused.value)
    assert gateway.requests == []


def test_a_proxy_that_cannot_reach_the_gateway_has_let_nothing_out(
    ask: Any, proxy: HttpProxy, gateway: ScriptedServer
) -> None:
    proxy.status = 503
    with pytest.raises(NotSent, match=r"ProxyError \(HTTP 503\)"):
        ask(through(proxy))
    assert gateway.requests == []


def test_a_proxy_that_is_away_has_let_nothing_out(ask: Any, free_port: int) -> None:
    with pytest.raises(NotSent, match=r"ProxyError \(ConnectionRefusedError\)"):
        ask(Proxy(host="127.0.0.1", port=free_port))


def test_a_proxy_that_does_not_answer_is_left_at_the_time_limit(ask: Any, proxy: HttpProxy) -> None:
    proxy.silent = True
    with pytest.raises(NotSent, match=r"ProxyError \(TimeoutError\)"):
        ask(through(proxy), timeout_seconds=0.5)


def test_interim_answers_of_a_proxy_are_passed_over(ask: Any, proxy: HttpProxy) -> None:
    proxy.before = Interim(103, 3).content
    assert ask(through(proxy)) == "success"


@pytest.mark.parametrize("status", [201, 299])
def test_any_2xx_of_a_proxy_makes_the_tunnel(ask: Any, proxy: HttpProxy, status: int) -> None:
    proxy.status = status
    assert ask(through(proxy)) == "success"


@pytest.mark.parametrize("count", [17, 40])
def test_a_proxy_that_sends_interim_answers_without_end_has_let_nothing_out(
    ask: Any, proxy: HttpProxy, gateway: ScriptedServer, count: int
) -> None:
    proxy.before = Interim(102, count).content
    with pytest.raises(NotSent, match="ProxyError"):
        ask(through(proxy))
    assert gateway.requests == []


def test_what_a_proxy_sends_behind_its_answer_is_no_answer_of_the_gateway(
    ask: Any, proxy: HttpProxy, gateway: ScriptedServer
) -> None:
    proxy.after = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(NotSent, match="ProxyError"):
        ask(through(proxy))
    assert gateway.requests == []


def test_a_gateway_behind_a_proxy_needs_its_certificate_all_the_same(
    make_client: Callable[..., GatewayClient], proxy: HttpProxy, gateway: ScriptedServer
) -> None:
    with pytest.raises(NotSent, match="SSLError"):
        make_client(gateway.url, proxy=through(proxy)).query("T1", max_tries=1)
    assert gateway.requests == []


def test_a_gateway_that_does_not_answer_behind_a_proxy_leaves_the_outcome_unknown(
    ask: Any, proxy: HttpProxy, gateway: ScriptedServer
) -> None:
    gateway.behave = gateway.hang
    with pytest.raises(OutcomeUnknown):
        ask(through(proxy), timeout_seconds=2.0)


@pytest.mark.parametrize("named", [True, False])
def test_variables_of_the_environment_change_nothing(
    ask: Any, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch, free_port: int, named: bool
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port}")
        monkeypatch.setenv(variable.lower(), f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("NO_PROXY", "*")
    assert ask(through(proxy) if named else None) == "success"
    assert len(proxy.asked) == named
