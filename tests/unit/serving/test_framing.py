from typing import Any

import pytest
from gunicorn.config import Config
from hypothesis import given
from hypothesis import strategies as st

from service.serving.gunicorn_settings import common_settings
from service.serving.http import RequestFraming, RequestRefused, make_environ

FIXED = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
BARE = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = (
    b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\nA;name=value\r\n0123456789\r\n0\r\n\r\n"
)
WITH_TRAILERS = CHUNKED[:-2] + b"X-Sum: 1\r\n\r\n"
WHOLE = {FIXED: b"hello", BARE: b"", CHUNKED: b"abc0123456789", WITH_TRAILERS: b"abc0123456789"}
CFG = Config()
for name, value in common_settings().items():
    CFG.set(name, value)


def framing(max_body_bytes: int = 2048) -> RequestFraming:
    return RequestFraming(cfg=CFG, max_head_bytes=1024, max_body_bytes=max_body_bytes)


def take(arriving: Any) -> Any:
    return arriving.take_request(now=1.0)


def take_all(arriving: Any) -> Any:
    taken = []
    while (request := take(arriving)) is not None:
        taken.append(request)
    return taken


@given(st.lists(st.sampled_from(list(WHOLE)), min_size=1, max_size=5), st.data())
def test_requests_are_cut_apart_however_their_bytes_come_in(requests: Any, data: Any) -> None:
    stream = b"".join(requests)
    arriving, taken = framing(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        arriving.feed(stream[:size])
        stream = stream[size:]
        taken += take_all(arriving)
    assert [request.body for request in taken] == [WHOLE[request] for request in requests]
    assert [request.head.path for request in taken] == [request.split()[1].decode() for request in requests]
    assert not arriving.buffered_bytes


@pytest.mark.parametrize("request_bytes", list(WHOLE))
def test_no_request_is_whole_before_its_last_byte(request_bytes: Any) -> None:
    arriving = framing()
    for number in range(len(request_bytes) - 1):
        arriving.feed(request_bytes[number : number + 1])
        assert take(arriving) is None
    arriving.feed(request_bytes[-1:])
    assert take(arriving).body == WHOLE[request_bytes]


def refused_status(arriving: Any) -> Any:
    with pytest.raises(RequestRefused) as refused:
        take(arriving)
    return refused.value.status


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length: ",
        b"Content-Length: 0x5",
        b"content-length : x",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)
@pytest.mark.parametrize("in_one_piece", [True, False])
def test_doubtful_framing_is_refused(headers: bytes, in_one_piece: bool) -> None:
    arriving = framing()
    head = b"POST /a HTTP/1.1\r\n" + headers + b"\r\n\r\n"
    arriving.feed(head + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n" if in_one_piece else head)
    assert refused_status(arriving) == 400


@pytest.mark.parametrize("piece_bytes", [1, 7, 100])
def test_a_head_whose_lines_end_in_lf_alone_is_refused_and_not_waited_for(piece_bytes: int) -> None:
    arriving = framing()
    head = FIXED.replace(b"\r\n", b"\n")
    first_line = head.index(b"\n") + 1
    for begin in range(0, first_line, piece_bytes):
        arriving.feed(head[begin : min(begin + piece_bytes, first_line - 1)])
        assert take(arriving) is None
    arriving.feed(head[first_line - 1 :])
    assert refused_status(arriving) == 400


@pytest.mark.parametrize(
    "chunk",
    [
        b"x\r\n",
        b"-1\r\n",
        b"\r\n",
        b"5 5\r\n",
        b"5 \r\nhello\r\n",
        b"1" * 1100,
        b"5\r\nhelloX\r\n",
        b"5\nhello\n0\n\n",
        b"1;=\r\nx\r\n",
        b"1;a\rb\r\nx\r\n",
        b"0\r\n" + b"x" * 5000,
        b"0\r\nX: 1\nY: 2\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
    ],
)
def test_broken_chunks_are_refused(chunk: Any) -> None:
    arriving = framing()
    arriving.feed(CHUNKED[: CHUNKED.index(b"\r\n\r\n") + 4] + chunk)
    assert refused_status(arriving) == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 1100, 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 2049\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n801\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 900 + b"\r\na\r\n", None),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"x" * 900 + b"\r\na\r\n") * 12, 413),
    ],
)
def test_a_request_is_bounded_in_its_head_and_its_body_and_on_the_wire(data: Any, status: int | None) -> None:
    arriving = framing()
    arriving.feed(data)
    if status is None:
        assert take(arriving) is None
        return
    assert refused_status(arriving) == status


def test_a_body_of_exactly_the_bound_is_taken() -> None:
    arriving = framing()
    arriving.feed(b"POST / HTTP/1.1\r\nContent-Length: 2048\r\n\r\n" + b"x" * 2048)
    assert take(arriving) is not None


def test_a_client_that_waits_for_100_continue_is_noticed_once() -> None:
    arriving = framing()
    arriving.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert take(arriving) is None
    assert arriving.take_continue()
    assert not arriving.take_continue()


@given(st.binary(max_size=200))
def test_any_bytes_are_framed_or_waited_for_or_refused(data: Any) -> None:
    arriving = framing()
    arriving.feed(b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    try:
        request = take(arriving)
    except RequestRefused:
        return
    assert request is None or len(request.body) <= 200


def test_a_body_in_more_chunks_than_any_client_sends_is_refused_before_it_is_read() -> None:
    arriving = framing(max_body_bytes=64 * 1024)
    arriving.feed(CHUNKED[: CHUNKED.index(b"\r\n\r\n") + 4])

    def drip() -> None:
        for _ in range(45_000):
            arriving.feed(b"1\r\na\r\n")
            take(arriving)

    with pytest.raises(RequestRefused, match="413 too many chunks"):
        drip()


@pytest.mark.parametrize("name", [b"X_Forwarded_User", b"X-Forwarded_User", b"x_forwarded-user"])
def test_a_header_that_the_environ_would_confuse_with_a_proxys_is_dropped(name: bytes) -> None:
    arriving = framing()
    arriving.feed(b"GET / HTTP/1.1\r\nHost: h\r\n" + name + b": mallory\r\nX-Forwarded-User: han\r\n\r\n")
    request = take(arriving)
    environ = make_environ(request, client=("192.0.2.7", 1), server=("192.0.2.1", 80))
    assert environ["HTTP_X_FORWARDED_USER"] == "han"
