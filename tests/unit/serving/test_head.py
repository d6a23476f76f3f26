"""A head in the plain form is read as gunicorn reads it, and gunicorn alone decides about every other."""

from typing import Any

import pytest
from gunicorn.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from service.serving import http
from service.serving.gunicorn_settings import common_settings

CFG = Config()
for name, value in common_settings().items():
    CFG.set(name, value)

ordinary = [
    b"Host: pay.example.com",
    b"Content-Length: 217",
    b"Content-Type: application/x-www-form-urlencoded; charset=UTF-8",
    b"User-Agent: Java/1.8.0_171",
    b"Accept: text/html, image/gif, */*; q=.2",
    b"Connection: keep-alive",
    b"Connection: Close",
    b"X-Forwarded-For: 10.1.2.3, 10.1.2.4",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"X-Empty:",
    b"Connection: upgrade, close",
    b"Expect: 100-continue",
    b"Transfer-Encoding: chunked",
]
doubtful = [
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length:",
    b"content_length: 5",
    b"Transfer-Encoding: identity",
    b" folded: line",
    b"NoColon",
    b": nameless",
    b"X: \x00",
    b"X: caf\xe9",
    b"X: a\tb",
    b"X : b",
    b"X: a\nY: b",
    b"X: a\rY: b",
    b"Long: " + b"a" * 8190,
]
targets = [
    b"/callbacks/acme/token-1.x~y",
    b"/",
    b"/a?b=c&d=%20",
    b"/?",
    b"//host/a",
    b"/a#b",
    b"*",
    b"http://h/a",
    b"/\xff",
]
lines = st.lists(st.sampled_from(ordinary) | st.sampled_from(doubtful) | st.binary(max_size=20), max_size=8)
likely_lines = st.lists(st.sampled_from(ordinary[:9]), max_size=8, unique=True)
methods = st.just(b"POST") | st.sampled_from([b"GET", b"HEAD", b"PUT", b"CONNECT", b"post", b"P OST"])
versions = st.just(b"HTTP/1.1") | st.sampled_from([b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 "])
paths = st.sampled_from(targets) | st.text("/?%&=+.:;,@!$*'()[]#ab", max_size=12).map(
    lambda text: ("/" + text).encode()
)


def judged_by_gunicorn(data: Any) -> Any:
    try:
        return http._read_any_head(data, CFG)
    except http.RequestRefused as error:
        return error.kind


@settings(max_examples=1000)
@given(methods, paths, versions, likely_lines | lines)
def test_what_is_read_as_plain_is_what_gunicorn_reads(method: Any, target: Any, version: Any, fields: Any) -> None:
    data = b"\r\n".join([b" ".join([method, target, version]), *fields, b"", b""])
    plain = http._read_plain_head(data)
    if plain is not None:
        assert plain == judged_by_gunicorn(data)


@settings(max_examples=1000)
@given(st.data())
def test_no_byte_more_or_less_is_taken_for_plain_where_gunicorn_differs(data: Any) -> None:
    whole = bytearray(b"POST /callbacks/acme/t?x=1 HTTP/1.1\r\n" + b"\r\n".join([*ordinary[:5], b"", b""]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    data_sent = bytes(whole)
    plain = http._read_plain_head(data_sent)
    if plain is not None:
        assert plain == judged_by_gunicorn(data_sent)


@pytest.mark.parametrize("end", [b"close", b"keep-alive", b""])
def test_a_callback_as_gateways_send_it_is_plain(end: bytes) -> None:
    data = b"\r\n".join([b"POST /callbacks/acme/t HTTP/1.1", *ordinary[:5], b"Connection: " + end, b"", b""])
    plain = http._read_plain_head(data)
    assert plain is not None
    assert plain.closes == (end == b"close")
    assert plain.body_length == 217


@pytest.mark.parametrize("field", [b"Expect: 100-continue", b"Transfer-Encoding: chunked", b"Host: again", *doubtful])
def test_gunicorn_decides_about_what_could_be_read_in_two_ways(field: Any) -> None:
    data = b"\r\n".join([b"POST /callbacks/acme/t HTTP/1.1", *ordinary[:2], field, b"", b""])
    assert http._read_plain_head(data) is None
