"""Clients of the API that send half a request, or a malformed one."""

import re
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import urllib3

from tests.support.deployment import Deployment


@pytest.fixture
def api_url(fresh_deployment: Deployment) -> str:
    url = fresh_deployment.give_api(workers=1)
    fresh_deployment.start("api")
    fresh_deployment.role("api").wait_until(lambda: _status(url, "/healthz") == 200)
    return url


def _status(url: str, path: str) -> int:
    try:
        return urllib3.request("GET", url + path, retries=False, timeout=10).status
    except urllib3.exceptions.HTTPError:
        return 0


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)


def test_half_sent_requests_do_not_block_other_clients(api_url: str) -> None:
    with ExitStack() as clients:
        for number in range(60):
            client = clients.enter_context(_connect(api_url))
            body = b"Content-Length: 100\r\n\r\nhalf" if number % 2 else b""
            client.sendall(b"POST /v1/orders HTTP/1.1\r\nHost: api\r\n" + body)
        for _ in range(5):
            assert _status(api_url, "/healthz") == 200
        assert _status(api_url, "/v1/orders?merchant=acme") == 401


def test_a_malformed_request_is_answered_with_a_problem_that_quotes_nothing(
    api_url: str, fresh_deployment: Deployment
) -> None:
    secrets = [b"6222021234561234", b"Bearer-0123456789abcdef"]
    hostile = [
        # A body without Content-Length is read as the next request.
        b"POST /v1/cards/bind HTTP/1.1\r\nHost: api\r\n\r\n" + b'{"bank_card_number": "6222021234561234"}\r\n\r\n',
        b"GET /v1/orders HTTP/1.1\r\nHost: api\r\nAuthorization Bearer-0123456789abcdef\r\n\r\n",
        b"GET /v1/orders/6222021234561234 HTTP/9.9\r\nHost: api\r\n\r\n",
    ]
    for request in hostile:
        with _connect(api_url) as client:
            client.sendall(request)
            received = b""
            while data := client.recv(65536):
                received += data
        assert re.search(rb"HTTP/1\.1 400 [^\r]*\r\n(?:[^\r]+\r\n)*Content-Type: application/problem\+json", received)
        assert not any(secret in received for secret in secrets)
    assert not any(secret.decode() in fresh_deployment.output for secret in secrets)
