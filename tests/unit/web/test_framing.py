import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.web.framing import RequestFraming, RequestTooLarge

FIXED = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
BARE = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = (
    b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\nA;name=value\r\n0123456789\r\n0\r\n\r\n"
)
WITH_TRAILERS = CHUNKED[:-2] + b"X-Sum: 1\r\n\r\n"
WHOLE = [FIXED, BARE, CHUNKED, WITH_TRAILERS]


def framing():
    return RequestFraming(max_head_bytes=1024, max_body_bytes=2048)


def take_all(arriving):
    taken = []
    while (request := arriving.take_request()) is not None:
        taken.append(request)
        if request.broken:
            break
    return taken


@given(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=5), st.data())
def test_requests_are_cut_apart_however_their_bytes_come_in(requests, data):
    stream = b"".join(requests)
    arriving, taken = framing(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        arriving.feed(stream[:size])
        stream = stream[size:]
        taken += take_all(arriving)
    assert [request.data for request in taken] == requests
    assert not any(request.broken for request in taken)
    assert arriving.empty


@pytest.mark.parametrize("request_bytes", WHOLE)
def test_no_request_is_whole_before_its_last_byte(request_bytes):
    arriving = framing()
    for number in range(len(request_bytes) - 1):
        arriving.feed(request_bytes[number : number + 1])
        assert arriving.take_request() is None
    arriving.feed(request_bytes[-1:])
    assert arriving.take_request().data == request_bytes


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
def test_doubtful_framing_ends_the_connection(headers):
    arriving = framing()
    arriving.feed(b"POST /a HTTP/1.1\r\n" + headers + b"\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
    assert arriving.take_request().broken


@pytest.mark.parametrize("chunk", [b"x\r\n", b"-1\r\n", b"\r\n", b"5 5\r\n", b"1" * 1100, b"0\r\n" + b"x" * 5000])
def test_broken_chunks_end_the_connection(chunk):
    arriving = framing()
    arriving.feed(CHUNKED[: CHUNKED.index(b"\r\n\r\n") + 4] + chunk)
    assert arriving.take_request().broken


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
def test_a_request_is_bounded_in_its_head_and_its_body_and_on_the_wire(data, status):
    arriving = framing()
    arriving.feed(data)
    if status is None:
        assert arriving.take_request() is None
        return
    with pytest.raises(RequestTooLarge) as refused:
        arriving.take_request()
    assert refused.value.status == status


def test_a_body_of_exactly_the_bound_is_taken():
    arriving = framing()
    arriving.feed(b"POST / HTTP/1.1\r\nContent-Length: 2048\r\n\r\n" + b"x" * 2048)
    assert arriving.take_request() is not None


def test_a_client_that_waits_for_100_continue_is_noticed_once():
    arriving = framing()
    arriving.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert arriving.take_request() is None
    assert arriving.take_continue()
    assert not arriving.take_continue()


@given(st.binary(max_size=200))
def test_any_bytes_are_framed_or_waited_for_or_refused(data):
    arriving = framing()
    arriving.feed(b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    try:
        request = arriving.take_request()
    except RequestTooLarge:
        return
    assert request is None or request.data
