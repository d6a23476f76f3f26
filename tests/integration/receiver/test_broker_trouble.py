"""What callers see while RabbitMQ is in trouble: a failure, never a hang, and a receiver that stays ready."""

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.rabbitmq import RabbitMQ
from tests.support.receiver import callback
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


def post_many(receiver: Any, prefix: Any, count: int = 24) -> Any:
    """At once."""
    with ThreadPoolExecutor(count) as clients:
        return list(clients.map(lambda number: receiver.post(callback(f"{prefix}-{number}")), range(count)))


def assert_all_failed(answers: Any) -> None:
    assert {(answer.status, answer.body) for answer in answers} == {(503, b"fail")}


def assert_taken_again(receiver: Any) -> None:
    eventually(lambda: receiver.post(callback("after")).status == 200)


def test_a_stopped_broker_means_503_and_a_ready_receiver(start_receiver: Any, own_rabbitmq: RabbitMQ) -> None:
    receiver = start_receiver(amqp_url=own_rabbitmq.create_virtual_host())
    assert receiver.post(callback("before")).status == 200
    own_rabbitmq.stop()
    for attempt in range(2):
        assert_all_failed(post_many(receiver, f"away-{attempt}"))
    assert receiver.is_ready()
    own_rabbitmq.start()
    assert_taken_again(receiver)
    assert {"before", "after"} <= set(receiver.queued_orders(2))


def test_a_receiver_that_starts_without_a_broker_answers_503(start_receiver: Any, own_rabbitmq: RabbitMQ) -> None:
    receiver = start_receiver(amqp_url=own_rabbitmq.create_virtual_host())
    own_rabbitmq.stop()
    assert_all_failed(post_many(receiver, "never"))
    assert receiver.is_ready()


def test_a_hung_broker_means_503(start_receiver: Any, own_rabbitmq: RabbitMQ) -> None:
    receiver = start_receiver(amqp_url=own_rabbitmq.create_virtual_host())
    assert receiver.post(callback("before")).status == 200
    own_rabbitmq.freeze()
    try:
        for attempt in range(2):
            assert_all_failed(post_many(receiver, f"hung-{attempt}"))
        assert receiver.is_ready()
    finally:
        own_rabbitmq.thaw()
    assert_taken_again(receiver)


def test_a_broker_with_an_alarm_means_503(start_receiver: Any, own_rabbitmq: RabbitMQ) -> None:
    receiver = start_receiver(amqp_url=own_rabbitmq.create_virtual_host())
    assert receiver.post(callback("before")).status == 200
    own_rabbitmq.block_publishers()
    try:
        assert_all_failed(post_many(receiver, "alarm"))
        assert receiver.is_ready()
    finally:
        own_rabbitmq.unblock_publishers()
    assert_taken_again(receiver)


def test_a_client_that_goes_while_its_callback_is_unconfirmed_is_logged_once_as_a_failure(
    start_receiver: Any, own_rabbitmq: RabbitMQ
) -> None:
    receiver = start_receiver("--workers", "1", amqp_url=own_rabbitmq.create_virtual_host())
    assert receiver.post(callback("before")).status == 200
    sent = callback("left")
    head = f"POST {sent.path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(sent.body)}\r\n\r\n".encode()
    own_rabbitmq.freeze()
    try:
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=HANGS_AFTER_SECONDS) as client:
            client.sendall(head + sent.body)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert receiver.is_ready()  # so that the loop has had its turn before the connection is reset
        eventually(lambda: '"ResponseAbandoned"' in receiver.process.output)
    finally:
        own_rabbitmq.thaw()
    assert_taken_again(receiver)
    assert receiver.process.output.count('"biz_order_no": "left"') == 1
