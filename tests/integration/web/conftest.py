import http.client
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.messaging.codec import REFUSALS_V1, decode_claim, decode_refusals
from service.messaging.contract import Message, Subscriber
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.subscriber import RabbitSubscriber
from service.messaging.sqlite.embedded import EmbeddedSubscriber
from service.messaging.sqlite.queue import EmbeddedQueue
from tests.support.messages import rabbit_publisher
from tests.support.processes import Process, Processes, find_free_port
from tests.support.receiver import SentCallback


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    seconds: float


class Receiver:
    """A receiver process and the queue behind it."""

    def __init__(self, *, process: Process, port: int, subscribe: Callable[[], Subscriber]) -> None:
        self.process = process
        self.port = port
        self._subscribe = subscribe

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        started = time.monotonic()
        connection = self.connect()
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return Answer(response.status, response.read(), time.monotonic() - started)
        finally:
            connection.close()

    def post(self, sent: SentCallback) -> Answer:
        return self.ask("POST", sent.path, sent.body)

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz").status == 200
        except OSError:
            return False

    def queued_orders(self, at_least: int) -> list[str]:
        """The order numbers in the queue, taken out."""
        claims = (message for message in self._take_out(at_least) if message.type != REFUSALS_V1)
        return [decode_claim(message).biz_order_no for message in claims]

    def queued_refusals(self, at_least: int) -> Counter[tuple[str, str]]:
        """The refusals told of in `at_least` messages or more, by merchant and reason, each process's last word."""
        last = {
            (count.process, count.merchant, count.reason): count.callbacks
            for message in self._take_out(at_least)
            if message.type == REFUSALS_V1
            for count in decode_refusals(message)
        }
        counted: Counter[tuple[str, str]] = Counter()
        for (_, merchant, reason), callbacks in last.items():
            counted[merchant, reason] += callbacks
        return counted

    def _take_out(self, at_least: int) -> list[Message]:
        subscriber = self._subscribe()
        found: list[Message] = []
        deadline = time.monotonic() + 20
        try:
            while deliveries := subscriber.receive(
                max_messages=100, wait_seconds=0.3 if len(found) >= at_least else deadline - time.monotonic()
            ):
                found += [delivery.message for delivery in deliveries]
                subscriber.acknowledge(deliveries)
        finally:
            subscriber.close()
        return found


StartReceiver = Callable[..., Receiver]


@pytest.fixture
def start_receiver(processes: Processes, tmp_path: Path) -> StartReceiver:
    """Starts a receiver: on the embedded queue, or on RabbitMQ where `amqp_url` is given."""

    def start(*options: str, amqp_url: str | None = None) -> Receiver:
        port, file = find_free_port(), tmp_path / "queue.sqlite3"
        queue: Sequence[str] = ["--queue-file", str(file)]
        if amqp_url is not None:
            topology.declare([amqp_url], timeout_seconds=10)
            queue = ["--amqp-url", amqp_url]

        def subscribe() -> Subscriber:
            if amqp_url is not None:
                never_used = rabbit_publisher(amqp_url, connection_name="test")
                return RabbitSubscriber(
                    urls=[amqp_url], connection_name="test", prefetch=200, dead_letter_publisher=never_used
                )
            return EmbeddedSubscriber(queue=EmbeddedQueue(file))

        command = [sys.executable, "-m", "tests.support.receiver", "--bind", f"127.0.0.1:{port}"]
        process = processes.start_command(*command, *queue, *options, name="receiver")
        receiver = Receiver(process=process, port=port, subscribe=subscribe)
        process.wait_until(receiver.is_ready)
        return receiver

    return start


@pytest.fixture
def receiver(start_receiver: StartReceiver) -> Iterator[Receiver]:
    """On the embedded queue, with everything at its default."""
    return start_receiver()


@pytest.fixture(params=["embedded", "rabbitmq"])
def receiver_on_either(request: pytest.FixtureRequest, start_receiver: StartReceiver) -> Receiver:
    """On the embedded queue, and on RabbitMQ."""
    return start_receiver(amqp_url=request.getfixturevalue("amqp_url") if request.param == "rabbitmq" else None)
