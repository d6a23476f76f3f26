"""Clients that send slowly, or nothing: each is cut, and all of them together starve nobody."""

import resource
import selectors
import socket
from collections.abc import Callable, Sequence
from typing import Any, Self

from tests.support.receiver import callback
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


def silent(number: int) -> bytes:
    return b""


def dripping_head(number: int) -> bytes:
    return b"POST " + callback(f"slow-{number}").path.encode() + b" HTTP/1.1\r\nHost: h\r\nX-Filler: " + b"x" * 9000


def dripping_body(number: int) -> bytes:
    sent = callback(f"slow-{number}")
    return f"POST {sent.path} HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n".encode() + b" " * 9999


def dripping_chunks(number: int) -> bytes:
    sent = callback(f"slow-{number}")
    return f"POST {sent.path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + b"1\r\nx\r\n" * 999


class SlowClients:
    """Connections that each send a byte every 50 ms after a first piece: for minutes, if the server lets them."""

    def __init__(self, *, port: int, kinds: Sequence[Callable[[int], bytes]]) -> None:
        self._selector = selectors.DefaultSelector()
        self._to_send: dict[socket.socket, bytes] = {}
        self.answers: list[bytes] = []
        for number, kind in enumerate(kinds):
            client = socket.create_connection(("127.0.0.1", port), timeout=HANGS_AFTER_SECONDS)
            data = kind(number)
            client.send(data[:40])
            client.setblocking(False)
            self._to_send[client] = data[40:]
            self._selector.register(client, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for client in self._to_send:
            client.close()

    def drip(self) -> None:
        """Send each one's next byte, and see which were ended."""
        for key, _ in self._selector.select(0.05):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            try:
                answer = client.recv(1000)
            except ConnectionError:
                answer = b""
            self.answers.append(answer)
            self._selector.unregister(client)
            del self._to_send[client]
            client.close()
        for client, data in self._to_send.items():
            if data:
                try:
                    client.send(data[:1])
                except ConnectionError:
                    continue  # ended; the next look finds it
                self._to_send[client] = data[1:]

    @property
    def left(self) -> int:
        return len(self._to_send)


def test_200_slow_clients_are_cut_while_good_callbacks_are_answered(receiver: Any) -> None:
    kinds = [silent, dripping_head, dripping_body, dripping_chunks] * 50
    answered: list[tuple[int, bytes]] = []
    with SlowClients(port=receiver.port, kinds=kinds) as slow:

        def all_are_cut() -> bool:
            slow.drip()
            answer = receiver.post(callback(f"good-{len(answered)}"))
            answered.append((answer.status, answer.body))
            return not slow.left

        eventually(all_are_cut)
    assert set(answered) == {(200, b"success by-capability")}
    assert all(answer == b"" or answer.endswith(b"fail") for answer in slow.answers)
    assert callback("slow-1").token not in receiver.process.output


def test_more_silent_clients_than_connections_keep_out_no_callback(start_receiver: Any) -> None:
    receiver = start_receiver("--workers", "1", "--request-timeout-seconds", "600")
    with SlowClients(port=receiver.port, kinds=[silent] * 700):
        answer = receiver.post(callback("good"))
    assert answer.status == 200
    assert '"crowded-out"' in receiver.process.output


def test_an_idle_kept_connection_is_ended(receiver: Any) -> None:
    connection = receiver.connect()
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b"alive"
    assert connection.sock is not None
    assert connection.sock.recv(1) == b""
    connection.close()


def test_a_client_that_reads_no_answers_keeps_no_one_from_being_answered(start_receiver: Any) -> None:
    receiver = start_receiver("--workers", "1")
    sent = callback("order-1")
    request = f"POST {sent.path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(sent.body)}\r\n\r\n".encode() + sent.body
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=1) as client:
        for _ in range(20):
            client.sendall(request)
        assert receiver.post(callback("order-2")).status == 200


def test_shutdown_does_not_wait_for_slow_clients(start_receiver: Any) -> None:
    receiver = start_receiver("--request-timeout-seconds", "600")
    with SlowClients(port=receiver.port, kinds=[silent, dripping_head, dripping_body] * 5) as slow:
        slow.drip()
        assert receiver.process.terminate() == 0


def test_silent_clients_that_would_use_up_the_files_a_worker_may_open_end_no_worker(start_receiver: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        receiver = start_receiver("--workers", "1", "--request-timeout-seconds", "600")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with SlowClients(port=receiver.port, kinds=[silent] * 200):
        answer = receiver.post(callback("good"))
    assert answer.status == 200
    assert receiver.process.output.count("Booting worker") == 1
