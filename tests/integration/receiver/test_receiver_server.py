import http.client
import os
import re
import signal
import socket
import struct
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.callbacks import Callback
from tests.support.processes import Processes, children_of, find_free_port
from tests.support.receiver import callback
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


@contextmanager
def connected(receiver: Any) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=HANGS_AFTER_SECONDS) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    """Everything until the server ends the connection."""
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def raw_post(sent: Callback, *headers: str, length: bool = True) -> bytes:
    lines = [f"POST {sent.path} HTTP/1.1", "Host: receiver", *headers]
    if length:
        lines.append(f"Content-Length: {len(sent.body)}")
    return "\r\n".join([*lines, "", ""]).encode() + sent.body


def worker_pids(receiver: Any) -> list[int]:
    return children_of(receiver.process.pid)


def test_an_acknowledged_callback_is_in_the_queue(receiver_on_either: Any) -> None:
    answer = receiver_on_either.post(callback("order-1"))
    assert (answer.status, answer.body) == (200, b"success by-capability")
    assert receiver_on_either.queued_orders(1) == ["order-1"]


def test_callbacks_of_many_clients_at_once_are_all_queued(receiver_on_either: Any) -> None:
    orders = [f"order-{number}" for number in range(400)]
    with ThreadPoolExecutor(32) as clients:
        answers = list(clients.map(lambda order: receiver_on_either.post(callback(order)), orders))
    assert {answer.status for answer in answers} == {200}
    assert sorted(receiver_on_either.queued_orders(len(orders))) == sorted(orders)


def test_counts_of_refusals_are_published_at_the_latest_when_the_receiver_ends(receiver_on_either: Any) -> None:
    good = callback("order-1")
    forged = {**{f"/notify/nobody-{n}": good.body for n in range(30)}, good.path: good.body[:-2]}
    for path, body in forged.items():
        assert receiver_on_either.ask("POST", path, body).status == 400
    receiver_on_either.process.signal(signal.SIGTERM)
    assert receiver_on_either.process.wait() == 0
    expected = {("", "unknown-merchant"): 30, ("by-capability", "not-json"): 1}
    assert receiver_on_either.queued_refusals(1) == expected


def test_one_connection_serves_many_callbacks(shared_receiver: Any) -> None:
    connection = shared_receiver.connect()
    for number in range(20):
        sent = callback(f"order-{number}")
        connection.request("POST", sent.path, sent.body)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"success by-capability")
    connection.close()


def test_pipelined_requests_are_answered_in_turn(shared_receiver: Any) -> None:
    requests = [raw_post(callback("order-1")), raw_post(Callback(biz_order_no="order-2", merchant="nobody"))]
    last = raw_post(callback("order-3"), "Connection: close")
    with connected(shared_receiver) as client:
        client.sendall(b"".join(requests) + last)
        assert re.findall(rb"HTTP/1.1 (\d+)", read_all(client)) == [b"200", b"400", b"200"]


def test_a_chunked_callback_is_taken(shared_receiver: Any) -> None:
    sent = callback("order-1")
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (sent.body[:7], sent.body[7:100], sent.body[100:])
    )
    head = raw_post(sent, "Transfer-Encoding: chunked", "Connection: close", length=False)
    with connected(shared_receiver) as client:
        client.sendall(head.removesuffix(sent.body) + chunks + b"0\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_a_client_that_waits_for_100_continue_gets_it_once(shared_receiver: Any) -> None:
    sent = callback("order-1")
    with connected(shared_receiver) as client:
        client.sendall(raw_post(sent, "Expect: 100-continue", "Connection: close").removesuffix(sent.body))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(sent.body)
        assert read_all(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /notify/by-query HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n" + b"x" * 65537,
        b"POST /notify/by-query HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n" + b"x" * 70000,
        b"POST /notify/by-query HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999\r\n\r\n" + b"x" * 300_000,
    ],
    ids=["fixed", "chunked", "huge"],
)
def test_a_body_over_64_kib_is_refused_as_too_large(shared_receiver: Any, request_bytes: Any) -> None:
    with connected(shared_receiver) as client:
        client.sendall(request_bytes)
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"\r\n\r\nfail")


def malformed_requests() -> dict[str, bytes]:
    path = callback("order-1").path.encode()
    return {
        "version": b"POST " + path + b" HTTP/9.9\r\nHost: h\r\n\r\n",
        "no version": b"POST " + path + b"\r\nHost: h\r\n\r\n",
        "method": b"P\xffST " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        "blank in path": b"POST " + path + b" more HTTP/1.1\r\nHost: h\r\n\r\n",
        "header name": b"POST " + path + b" HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n",
        "folded header": b"POST " + path + b" HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        "two lengths": b"POST " + path + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "two framings": b"POST "
        + path
        + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunk size": b"POST " + path + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "chunk extension": b"POST "
        + path
        + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;=\r\nx\r\n0\r\n\r\n",
        "long line": b"POST " + path + b"?" + b"x" * 5000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        "long head": b"POST " + path + b" HTTP/1.1\r\n" + b"X-Filler: 1234567890\r\n" * 2000 + b"\r\n",
        "expectation": b"POST " + path + b" HTTP/1.1\r\nHost: h\r\nExpect: miracles\r\n\r\n",
    }


def test_malformed_requests_fail_plainly_and_no_token_reaches_the_log(receiver: Any) -> None:
    sent = callback("order-1")
    for kind, request_bytes in malformed_requests().items():
        with connected(receiver) as client:
            client.sendall(request_bytes)
            answer = read_all(client)
            assert re.match(rb"HTTP/1\.1 4\d\d ", answer), kind
            assert answer.endswith(b"\r\n\r\nfail"), kind
            assert b"Traceback" not in answer
    for method, path in [
        ("GET", sent.path),
        ("POST", sent.path + "/more"),
        ("POST", f"/{sent.token}"),
        ("POST", f"/notify/{sent.token}"),
        ("POST", f"/notify/by-query/{sent.token}"),
        ("POST", f"/notify/nobody/{sent.token}"),
        ("POST", f"{sent.path}?token={sent.token}"),
    ]:
        assert receiver.ask(method, path, b"{}").body == b"fail"
    assert receiver.post(sent).status == 200
    receiver.process.terminate()
    token_parts = sent.token.split(".")
    assert sent.token not in receiver.process.output
    assert token_parts[2] not in receiver.process.output
    assert "/notify/" not in receiver.process.output


def test_a_killed_worker_is_replaced_and_what_it_acknowledged_is_kept(receiver_on_either: Any) -> None:
    receiver = receiver_on_either
    acknowledged: list[str] = []

    def post(number: int) -> None:
        order = f"order-{number}"
        try:
            if receiver.post(callback(order)).status == 200:
                acknowledged.append(order)
        except (OSError, http.client.HTTPException):
            pass  # its worker was killed: nothing was acknowledged
        if number in (100, 200):
            os.kill(worker_pids(receiver)[0], signal.SIGKILL)

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(post, range(300)))
    eventually(lambda: len(worker_pids(receiver)) == 2)
    eventually(receiver.is_ready)
    assert len(acknowledged) > 200
    assert set(acknowledged) <= set(receiver.queued_orders(len(acknowledged)))


def test_shutdown_under_load_loses_no_acknowledged_callback(receiver_on_either: Any) -> None:
    receiver = receiver_on_either
    acknowledged: list[str] = []

    def post_until_refused(client: int) -> None:
        for number in range(10_000):
            order = f"order-{client}-{number}"
            try:
                answer = receiver.post(callback(order))
            except OSError:
                return
            assert answer.status == 200
            acknowledged.append(order)

    with ThreadPoolExecutor(16) as clients:
        running = [clients.submit(post_until_refused, client) for client in range(16)]
        eventually(lambda: len(acknowledged) > 100)
        assert receiver.process.terminate() == 0
        for client in running:
            client.result()
    assert set(acknowledged) <= set(receiver.queued_orders(len(acknowledged)))


def test_a_draining_worker_says_that_it_is_not_ready(receiver: Any) -> None:
    kept_alive = receiver.connect()
    kept_alive.request("GET", "/readyz")
    assert kept_alive.getresponse().read() == b"ready"
    receiver.process.signal(signal.SIGTERM)
    eventually(lambda: not receiver.is_ready())
    kept_alive.request("GET", "/readyz")
    answer = kept_alive.getresponse()
    assert (answer.status, answer.read(), answer.getheader("Connection")) == (503, b"draining", "close")
    assert receiver.process.wait() == 0


def test_the_metrics_are_those_of_all_workers_and_outlive_each(start_receiver: Any) -> None:
    port = find_free_port()
    receiver = start_receiver("--metrics-bind", f"127.0.0.1:{port}")

    def acknowledged() -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANGS_AFTER_SECONDS) as answer:
            text = answer.read().decode()
        found = re.search(
            r'^payment_callbacks_received_total\{merchant="by-capability",outcome="acknowledged",.*\} (\S+)',
            text,
            re.MULTILINE,
        )
        return float(found[1]) if found else 0.0

    with ThreadPoolExecutor(16) as clients:
        list(clients.map(lambda number: receiver.post(callback(f"order-{number}")), range(100)))
    assert acknowledged() == 100
    for pid in worker_pids(receiver):
        os.kill(pid, signal.SIGKILL)
    eventually(receiver.is_ready)
    receiver.post(callback("one more"))
    assert acknowledged() == 101
    receiver.process.terminate()
    assert not list(Path("/dev/shm").glob(f"payment-callbacks-metrics-{receiver.process.pid}-*"))


def test_a_taken_port_ends_the_receiver_and_leaves_nothing_behind(
    shared_receiver: Any, processes: Processes, tmp_path: Path
) -> None:
    options = ("--bind", f"127.0.0.1:{shared_receiver.port}", "--queue-file", tmp_path / "second.sqlite3")
    second = processes.start_module("tests.support.receiver", *options, name="second")
    assert second.wait() == 1
    assert "already in use" in second.output
    assert not list(Path("/dev/shm").glob(f"payment-callbacks-metrics-{second.pid}-*"))


def test_under_another_worker_of_gunicorn_a_callback_is_acknowledged_once_it_is_queued(
    start_receiver: Any, amqp_url: str
) -> None:
    receiver = start_receiver("--worker-class", "gthread", amqp_url=amqp_url)
    orders = [f"order-{number}" for number in range(100)]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda order: receiver.post(callback(order)), orders))
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"success by-capability")}
    assert sorted(receiver.queued_orders(len(orders))) == sorted(orders)


def test_a_client_that_sends_no_more_after_its_request_gets_its_answer(receiver_on_either: Any) -> None:
    with connected(receiver_on_either) as client:
        client.sendall(raw_post(callback("order-1")))
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_clients_that_reset_their_connections_do_not_affect_others(receiver_on_either: Any) -> None:
    for number in range(50):
        with connected(receiver_on_either) as client:
            client.sendall(raw_post(callback(f"order-{number}")))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert receiver_on_either.post(callback("another")).status == 200
    assert "Traceback" not in receiver_on_either.process.output


@pytest.mark.parametrize("in_one_piece", [True, False])
def test_compressed_chunks_are_refused_however_they_arrive(shared_receiver: Any, in_one_piece: bool) -> None:
    head = raw_post(callback("order-1"), "Transfer-Encoding: gzip, chunked", length=False).partition(b"\r\n\r\n")[0]
    with connected(shared_receiver) as client:
        client.sendall(head + b"\r\n\r\n" + (b"0\r\n\r\n" if in_one_piece else b""))
        assert read_all(client).startswith(b"HTTP/1.1 400")


def test_a_body_in_one_byte_chunks_is_refused(shared_receiver: Any) -> None:
    head = raw_post(callback("order-1"), "Transfer-Encoding: chunked", length=False).partition(b"\r\n\r\n")[0]
    with connected(shared_receiver) as client:
        client.sendall(head + b"\r\n\r\n" + b"1\r\na\r\n" * 45_000)
        assert client.recv(65536).startswith(b"HTTP/1.1 413")
