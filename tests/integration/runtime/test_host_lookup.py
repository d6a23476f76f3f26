"""Resolvers that hang, fail, or are asked for what is no name."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.config.secrets import Proxy
from service.runtime.dialer import HostLookup
from service.runtime.http_client import HttpClient, NoResponse
from tests.support.http_server import ScriptedServer
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

NAME = "shop.example.com"


class Resolver:
    """In the place of the system's: it hangs until it is released, and counts how often it was asked for a name."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked = 0
        self._real: Any = socket.getaddrinfo

    def ask(self, host: str, port: int, *args: Any, flags: int = 0, **options: Any) -> Any:
        if host == NAME and not flags & socket.AI_NUMERICHOST:
            self.asked += 1
            self.released.wait()
            host = "127.0.0.1"
        return self._real(host, port, *args, flags=flags, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made.ask)
    yield made
    made.released.set()
    eventually(lambda: not lookups_under_way())


def lookups_under_way() -> int:
    return sum(thread.name.startswith("lookup-") for thread in threading.enumerate())


def post_to(client: HttpClient) -> Callable[[], None]:
    def post() -> None:
        with suppress(NoResponse):
            client.post(b"{}", headers={}, timeout_seconds=0.3)

    return post


def test_a_resolver_that_hangs_holds_a_post_no_longer_than_its_time_limit(resolver: Resolver) -> None:
    client = HttpClient(urlsplit(f"http://{NAME}/"), connections=1, max_bytes=1000)
    with pytest.raises(NoResponse, match=r"ConnectTimeoutError \(TimeoutError\)") as unanswered:
        client.post(b"{}", headers={}, timeout_seconds=0.3)
    assert not unanswered.value.begun


def test_the_name_of_a_proxy_is_looked_up_within_the_time_limit_too(resolver: Resolver) -> None:
    proxy = Proxy(host=NAME, port=3128)
    client = HttpClient(urlsplit("https://gateway.example.com/"), connections=0, max_bytes=1000, proxy=proxy)
    with pytest.raises(NoResponse, match=r"ProxyError \(TimeoutError\)"):
        client.post(b"{}", headers={}, timeout_seconds=0.3)


def test_a_resolver_that_hangs_holds_one_thread_however_many_wait_for_it(resolver: Resolver) -> None:
    client = HttpClient(urlsplit(f"http://{NAME}/"), connections=1, max_bytes=1000)
    for _ in range(3):
        threads = [threading.Thread(target=post_to(client)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (resolver.asked, lookups_under_way()) == (1, 1)


def test_posts_go_on_once_the_resolver_answers_again(resolver: Resolver) -> None:
    with ScriptedServer() as server:
        port = urlsplit(server.url).port
        client = HttpClient(urlsplit(f"http://{NAME}:{port}/events"), connections=1, max_bytes=1000)
        post_to(client)()
        resolver.released.set()
        assert client.post(b"{}", headers={}, timeout_seconds=HANGS_AFTER_SECONDS).status == 200
        assert server.requests[0].headers["host"] == f"{NAME}:{port}"
        client.close()


def test_results_of_a_lookup_are_not_cached(resolver: Resolver) -> None:
    resolver.released.set()
    lookup = HostLookup(NAME, 80)
    for _ in range(2):
        assert lookup.find(timeout_seconds=HANGS_AFTER_SECONDS)[0][4] == ("127.0.0.1", 80)
    assert resolver.asked == 2


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3"])
def test_an_address_needs_no_lookup(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    assert HostLookup(address, 8080).find(timeout_seconds=HANGS_AFTER_SECONDS)[0][4][:2] == (address, 8080)


@pytest.mark.parametrize("name", ["a..example", "x" * 64 + ".example", "."])
def test_what_is_no_name_is_not_found(name: str) -> None:
    with pytest.raises(socket.gaierror):
        HostLookup(name, 80).find(timeout_seconds=HANGS_AFTER_SECONDS)
    with pytest.raises(NoResponse, match="NameResolutionError") as unanswered:
        HttpClient(urlsplit(f"http://{name}/"), connections=1, max_bytes=1000).post(
            b"{}", headers={}, timeout_seconds=HANGS_AFTER_SECONDS
        )
    assert not unanswered.value.begun
