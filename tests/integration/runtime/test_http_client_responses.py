"""Servers that send interim answers ahead of the final one, more than they say, or an answer that nobody asked for."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.runtime.http_client import HttpClient, HttpResponse, NoResponse
from tests.support.http_server import EVERY_INTERIM, NEVER_SECONDS, Interim, Request, ScriptedServer
from tests.support.http_server import Answer as Scripted
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

Post = Callable[..., HttpResponse]
STATUSES = (200, 500, 204, 409)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as made:
        yield made


@pytest.fixture
def make_post() -> Iterator[Callable[..., Post]]:
    with ExitStack() as stack:

        def make(url: str, *, connections: int = 2, trust: ssl.SSLContext | None = None) -> Post:
            client = HttpClient(urlsplit(url), connections=connections, max_bytes=1000, trust=trust)
            stack.callback(client.close)

            def post(status: int = 200, *, timeout_seconds: float = HANGS_AFTER_SECONDS) -> HttpResponse:
                return client.post(str(status).encode(), headers={}, timeout_seconds=timeout_seconds)

            return post

        yield make


@pytest.fixture
def post(make_post: Callable[..., Post], server: ScriptedServer) -> Post:
    return make_post(server.url)


def after(interim: Interim) -> Callable[[Request], Scripted]:
    """Answers with the status that was posted, after the interim answers."""

    def answer(request: Request) -> Scripted:
        status, body = int(request.body), b"" if request.body == b"204" else request.body
        return Scripted(status=status, body=body, before=interim.content, ahead_seconds=interim.ahead_seconds)

    return answer


def connections_of(server: ScriptedServer) -> int:
    return len({request.connection for request in server.requests})


@pytest.mark.parametrize("interim", EVERY_INTERIM, ids=str)
def test_each_post_gets_the_final_answer_that_was_sent_for_it_and_the_connection_is_kept(
    post: Post, server: ScriptedServer, interim: Interim
) -> None:
    server.behave = after(interim)
    answers = [post(status) for status in STATUSES]
    assert [answer.status for answer in answers] == list(STATUSES)
    assert [answer.content for answer in answers] == [b"200", b"500", b"", b"409"]
    assert connections_of(server) == 1


def test_so_it_is_over_tls(make_post: Callable[..., Post], secure: ScriptedServer, certificate: Path) -> None:
    secure.behave = after(Interim(103, 3, 0.1))
    post = make_post(secure.url, trust=ssl.create_default_context(cafile=certificate))
    assert [post(status).status for status in STATUSES] == list(STATUSES)
    assert connections_of(secure) == 1


def test_so_it_is_for_many_threads_at_once(post: Post, server: ScriptedServer) -> None:
    server.behave = after(Interim(102, 2, 0.01))
    statuses = [200 + number for number in range(40)]
    got: list[int] = []
    threads = [threading.Thread(target=lambda each=each: got.append(post(each).status - each)) for each in statuses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [0] * 40


@pytest.mark.parametrize("status", [100, 102, 103, 199])
@pytest.mark.parametrize("count", [1, 3])
def test_an_interim_answer_without_a_final_one_is_no_answer(
    post: Post, server: ScriptedServer, status: int, count: int
) -> None:
    server.behave = after(Interim(status, count, NEVER_SECONDS))
    with pytest.raises(NoResponse, match=r"ReadTimeoutError \(TimeoutError\)") as unanswered:
        post(timeout_seconds=0.5)
    assert unanswered.value.begun
    server.behave = after(Interim(status, count))
    assert post(500).status == 500


def test_a_server_that_hangs_up_after_an_interim_answer_gave_none(post: Post, server: ScriptedServer) -> None:
    # The final answer's head is a broken one, after which the server closes.
    server.behave = lambda _: Scripted(before=Interim(103).content + b"HTTP/1.1 20", headers={"connection": "close"})
    with pytest.raises(NoResponse, match="ProtocolError"):
        post()


@pytest.mark.parametrize("status", [100, 103])
def test_sixteen_interim_answers_are_passed_over_and_no_more(post: Post, server: ScriptedServer, status: int) -> None:
    server.behave = after(Interim(status, 16))
    assert post(201).status == 201
    server.behave = after(Interim(status, 17))
    with pytest.raises(NoResponse, match=r"ProtocolError \(TooManyInterimResponses\)"):
        post(201)
    assert connections_of(server) == 1
    server.behave = after(Interim(status, 1))
    assert post(202).status == 202
    assert connections_of(server) == 2


def interim_of(size: int) -> bytes:
    """One interim answer of so many bytes, in lines of at most 1000."""
    head, end = b"HTTP/1.1 103 Early Hints\r\n", b"\r\n"
    lines, rest = divmod(size - len(head) - len(end), 1000)
    return head + (b"x: " + b"a" * 995 + b"\r\n") * lines + b"y: " + b"a" * (rest - 5) + b"\r\n" + end


@pytest.mark.parametrize(
    ("before", "passed_over"),
    [
        (interim_of(64 * 1024), True),
        (interim_of(64 * 1024 + 1), False),
        (interim_of(16 * 1024) * 4, True),
        (interim_of(16 * 1024) * 4 + Interim(103).content, False),
        (b"HTTP/1.1 103 " + b"a" * 65_000 + b"\r\n" + b"x: " + b"a" * 65_000 + b"\r\n\r\n", False),
        (b"HTTP/1.1 103 " + b"a" * 70_000 + b"\r\n\r\n", False),
        (b"HTTP/1.1 103 Early Hints\r\nx: " + b"a" * 200_000 + b"\r\n\r\n", False),
        (b"HTTP/1.1 103 Early Hints\r\n" + b"a: b\r\n" * 500_000, False),
    ],
    ids=["64 KiB", "a byte more", "in four", "and a fifth", "a long status", "longer", "one line", "without end"],
)
def test_64_kib_of_interim_answers_are_passed_over_and_no_more(
    post: Post, server: ScriptedServer, before: bytes, passed_over: bool
) -> None:
    server.behave = lambda _: Scripted(before=before)
    if passed_over:
        assert post().status == 200
    else:
        with pytest.raises(NoResponse, match="ProtocolError"):
            post()


@pytest.mark.parametrize("ahead", [b"", Interim(103).content], ids=["alone", "after 103"])
def test_101_is_a_failure_and_closes_the_connection(post: Post, server: ScriptedServer, ahead: bytes) -> None:
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    server.behave = lambda _: Scripted(before=ahead + switched)
    with pytest.raises(NoResponse, match=r"ProtocolError \(ProtocolSwitched\)"):
        post()
    server.behave = lambda _: Scripted()
    assert post().status == 200
    assert connections_of(server) == 2


UNASKED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("garbage", [b"x", b"\r\n", UNASKED, b"x" * 20_000, Interim(103).content])
@pytest.mark.parametrize("body", [b"", b"longer"])
def test_an_answer_that_is_longer_than_it_said_costs_the_connection_and_answers_nothing_else(
    post: Post, server: ScriptedServer, garbage: bytes, body: bytes
) -> None:
    server.behave = lambda _: Scripted(body=body, after=garbage)
    assert (first := post()).status == 200
    assert first.content == body
    server.behave = lambda _: Scripted(status=500)
    assert post().status == 500
    assert connections_of(server) == 2


@pytest.mark.parametrize("over_tls", [False, True])
def test_what_waits_on_a_connection_before_a_post_is_no_answer_to_it(
    make_post: Callable[..., Post], server: ScriptedServer, secure: ScriptedServer, certificate: Path, over_tls: bool
) -> None:
    told, late = secure if over_tls else server, threading.Event()
    post = make_post(told.url, trust=ssl.create_default_context(cafile=certificate))
    told.behave = lambda _: Scripted(after=UNASKED, after_when=late)
    assert post().status == 200
    late.set()
    eventually(lambda: told.answered == 1)
    told.behave = lambda _: Scripted(status=500)
    assert post().status == 500
    assert connections_of(told) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "4, 4"},
        {"content-length": "+4"},
        {"content-length": "4", "Content-Length": "40"},
        {"transfer-encoding": "chunked", "content-length": "4"},
        {"transfer-encoding": "gzip, chunked"},
        {"connection": "close"},
        {"connection": "keep-alive, Close"},
    ],
    ids=str,
)
def test_a_connection_is_not_kept_where_the_end_of_the_answer_is_in_doubt(
    post: Post, server: ScriptedServer, headers: dict[str, str]
) -> None:
    server.behave = lambda _: Scripted(headers={"content-length": "4", **headers}, body=b"0\r\n\r\n"[:5])
    for _ in range(2):
        assert post(timeout_seconds=1.5).status == 200
    assert connections_of(server) == 2


def test_an_answer_that_ends_too_soon_costs_the_connection(post: Post, server: ScriptedServer) -> None:
    server.behave = lambda _: Scripted(headers={"content-length": "40"}, body=b"short")
    answer = post(timeout_seconds=1.5)
    assert (answer.status, answer.content) == (200, None)
    server.behave = lambda _: Scripted(status=500)
    assert post().status == 500
    assert connections_of(server) == 2


@pytest.mark.parametrize(
    "body", [b"-1\r\n" + b"x" * 3_000_000, b"0\r\n" + b"a: b\r\n" * 500_000], ids=["chunk", "trailers"]
)
def test_an_answer_without_end_is_cut_long_before_the_time_limit(
    post: Post, server: ScriptedServer, body: bytes
) -> None:
    server.behave = lambda _: Scripted(headers={"transfer-encoding": "chunked"}, body=body)
    answer = post(timeout_seconds=100.0)
    assert (answer.status, answer.fault) == (200, "no answer came, or too slowly (ProtocolError)")


def test_where_no_connection_is_kept_each_post_says_so(make_post: Callable[..., Post], server: ScriptedServer) -> None:
    post = make_post(server.url, connections=0)
    assert [post().status for _ in range(3)] == [200] * 3
    assert [request.headers["connection"] for request in server.requests] == ["close"] * 3
    assert connections_of(server) == 3


def test_a_connection_that_the_server_closed_meanwhile_is_not_used(post: Post, server: ScriptedServer) -> None:
    server.behave = lambda _: Scripted(hang_up=True)
    for number in range(1, 4):
        assert post().status == 200
        eventually(lambda number: server.hung_up == number, number)
    assert connections_of(server) == 3
