"""Posts to a real server that answers well, badly, slowly or not at all."""

import gzip
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.runtime.http_client import HttpClient, HttpResponse, NoResponse
from tests.support.http_server import Answer as Scripted
from tests.support.http_server import ScriptedServer
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

MAX_BYTES = 1000
# Each byte comes well within the time limit; all of them would take longer than a test may.
DRIPPING_HEAD = Scripted(headers={"x-long": "x" * 1000}, pause_seconds=0.2)
CHUNKED = {"transfer-encoding": "chunked"}
GZIP = {"content-encoding": "gzip"}

Post = Callable[..., HttpResponse]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as made:
        yield made


@pytest.fixture
def make_post() -> Iterator[Callable[..., Post]]:
    with ExitStack() as stack:

        def make(url: str, *, trust: ssl.SSLContext | None = None) -> Post:
            client = HttpClient(urlsplit(url), connections=2, max_bytes=MAX_BYTES, trust=trust)
            stack.callback(client.close)

            def post(content: bytes = b"{}", *, timeout_seconds: float = HANGS_AFTER_SECONDS) -> HttpResponse:
                return client.post(content, headers={"x-mine": "1"}, timeout_seconds=timeout_seconds)

            return post

        yield make


@pytest.fixture
def post(make_post: Callable[..., Post], server: ScriptedServer) -> Post:
    return make_post(server.url + "?tenant=1")


def connections_of(server: ScriptedServer) -> int:
    return len({request.connection for request in server.requests})


def test_what_is_posted_arrives_and_what_is_answered_comes_back(post: Post, server: ScriptedServer) -> None:
    server.behave = lambda _request: Scripted(status=418, headers={"x-theirs": "2"}, body=b"tea")
    answer = post("壶".encode())
    [request] = server.requests
    assert (request.path, request.body) == ("/events?tenant=1", "壶".encode())
    assert (request.headers["x-mine"], request.headers["content-length"]) == ("1", "3")
    assert "transfer-encoding" not in request.headers
    assert (answer.status, answer.headers["X-Theirs"], answer.content, answer.fault) == (418, "2", b"tea", "")


@pytest.mark.parametrize(
    ("told", "content"),
    [
        (Scripted(), b""),
        (Scripted(status=204), b""),
        (Scripted(body=b"x" * MAX_BYTES), b"x" * MAX_BYTES),
        (Scripted(headers=CHUNKED, body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), b"abcde"),
        (Scripted(headers=GZIP, body=gzip.compress(b"packed")), b"packed"),
    ],
    ids=["empty", "none", "as long as may be", "in chunks", "packed"],
)
def test_a_connection_is_kept_after_a_body_that_was_read(
    post: Post, server: ScriptedServer, told: Scripted, content: bytes
) -> None:
    server.behave = lambda _request: told
    assert [post().content for _ in range(3)] == [content] * 3
    assert connections_of(server) == 1


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        (Scripted(body=b"x" * (MAX_BYTES + 1)), "the answer has more than 1000 bytes"),
        (Scripted(headers=GZIP, body=gzip.compress(b"x" * 5_000_000)), "the answer has more than 1000 bytes"),
        (Scripted(headers=CHUNKED, body=b"-5\r\nabc"), "the answer's chunks cannot be read"),
        (Scripted(headers=CHUNKED, body=b"zz\r\nabc"), "no answer came, or too slowly (ProtocolError)"),
        (Scripted(headers=GZIP, body=b"abc"), "no answer came, or too slowly (DecodeError)"),
    ],
    ids=["too long", "too long when unpacked", "negative chunk", "no chunk", "not packed"],
)
def test_a_body_that_cannot_be_had_leaves_the_status_and_the_next_answer_alone(
    post: Post, server: ScriptedServer, told: Scripted, fault: str
) -> None:
    server.behave = lambda _request: told
    answer = post()
    assert (answer.status, answer.content, answer.fault) == (200, None, fault)
    server.behave = lambda _request: Scripted(body=b"fine")
    assert post().content == b"fine"


def test_a_connection_to_which_the_rest_of_a_long_body_may_still_come_is_not_used_again(
    post: Post, server: ScriptedServer
) -> None:
    server.behave = lambda _request: Scripted(headers={"content-length": "5000"}, body=b"x" * (MAX_BYTES + 1))
    assert [post().content for _ in range(2)] == [None, None]
    assert connections_of(server) == 2


def test_a_body_that_drips_is_cut_at_the_time_limit(post: Post, server: ScriptedServer) -> None:
    server.behave = lambda _request: Scripted(body=b"x" * MAX_BYTES, pause_seconds=0.01)
    answer = post(timeout_seconds=2.0)
    assert (answer.status, answer.fault) == (200, "no answer came, or too slowly (ReadTimeoutError)")


def test_a_head_that_drips_is_cut_at_the_time_limit(post: Post, server: ScriptedServer) -> None:
    server.behave = lambda _request: DRIPPING_HEAD
    with pytest.raises(NoResponse, match="ReadTimeoutError"):
        post(timeout_seconds=0.6)


def test_a_head_that_drips_over_tls_is_cut_too(
    make_post: Callable[..., Post], secure: ScriptedServer, certificate: Path
) -> None:
    secure.behave = lambda _request: DRIPPING_HEAD
    post = make_post(secure.url, trust=ssl.create_default_context(cafile=certificate))
    with pytest.raises(NoResponse, match="ReadTimeoutError") as unanswered:
        post(timeout_seconds=0.6)
    assert unanswered.value.begun


def test_a_post_without_an_answer_was_begun(post: Post, server: ScriptedServer) -> None:
    server.behave = server.hang
    with pytest.raises(NoResponse) as unanswered:
        post(timeout_seconds=0.6)
    assert unanswered.value.begun
    assert (unanswered.value.kind, str(unanswered.value)) == ("ReadTimeoutError", "ReadTimeoutError (TimeoutError)")
    eventually(lambda: len(server.requests) == 1)


def test_a_post_to_a_closed_port_was_not_begun(make_post: Callable[..., Post], free_port: int) -> None:
    with pytest.raises(NoResponse) as unanswered:
        make_post(f"http://127.0.0.1:{free_port}/")()
    assert not unanswered.value.begun
    assert unanswered.value.kind == "NewConnectionError"


def test_a_post_to_a_server_with_an_untrusted_certificate_was_not_begun(
    make_post: Callable[..., Post], secure: ScriptedServer
) -> None:
    with pytest.raises(NoResponse) as unanswered:
        make_post(secure.url)()
    assert not unanswered.value.begun
    assert unanswered.value.kind == "SSLError"
    assert secure.requests == []


def test_whom_the_given_trust_vouches_for_is_posted_to_over_a_kept_connection(
    make_post: Callable[..., Post], secure: ScriptedServer, certificate: Path
) -> None:
    post = make_post(secure.url, trust=ssl.create_default_context(cafile=certificate))
    assert [post().status for _ in range(2)] == [200, 200]
    assert connections_of(secure) == 1


def test_a_redirect_is_an_answer_like_any_other(post: Post, server: ScriptedServer) -> None:
    server.behave = lambda _request: Scripted(status=307, headers={"location": server.url})
    assert post().status == 307
    assert len(server.requests) == 1
