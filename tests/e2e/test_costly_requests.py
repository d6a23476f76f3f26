"""Requests that a stranger makes costly: they are refused, and genuine callbacks go on."""

import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.support.deployment import ROLES, Deployment
from tests.support.downstream import Downstream
from tests.support.waiting import eventually

_HEAD = b"POST /notify/acme HTTP/1.1\r\nHost: receiver\r\n"
_FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"


def _in_one_byte_chunks() -> bytes:
    return _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 45_000 + b"0\r\n\r\n"


def _form_of_control_characters() -> bytes:
    body = b"sign=0123456789abcdef0123456789abcdef&biz_order_no=x&pay_status=&note=" + b"\b\x7f\f\x01\\" * 13_000
    return _HEAD + _FORM + b"Content-Length: %d\r\n\r\n" % len(body[: 64 * 1024]) + body[: 64 * 1024]


@pytest.mark.parametrize("make_request", [_in_one_byte_chunks, _form_of_control_characters])
def test_costly_requests_of_strangers_keep_no_genuine_callback_from_its_acknowledgement(
    fresh_deployment: Deployment, own_shop: Downstream, make_request: Callable[[], bytes]
) -> None:
    deployment = fresh_deployment
    deployment.start(*ROLES)
    deployment.wait_until_receiving()
    request, address = make_request(), urlsplit(deployment.url)

    def ask(_number: int) -> bytes:
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=60) as client:
            with contextlib.suppress(OSError):  # it may be answered before its end
                client.sendall(request)
            return client.recv(64)

    orders = [f"genuine-{number}" for number in range(20)]
    with ThreadPoolExecutor(4) as strangers:
        hostile = [strangers.submit(ask, number) for number in range(40)]
        answers = [deployment.sender.send(deployment.callback(order)) for order in orders]
        refused = {answered.result()[:12] for answered in hostile}
    assert all(answer.acknowledged for answer in answers)
    assert refused <= {b"HTTP/1.1 400", b"HTTP/1.1 413"}
    for order in orders:
        eventually(lambda order=order: own_shop.about(order))
