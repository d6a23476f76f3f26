"""Confirmed publishes per second, side by side: `python -m tests.benchmarks.publish`. Takes about a minute and a half.

The contestants run in turns, so that whatever else the machine does hits all of them.
"""

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

import pika

from service.messaging import topology
from service.messaging.contract import Message
from service.messaging.embedded_queue import EmbeddedQueue
from service.messaging.envelope import to_properties
from tests.support.messages import make_message, rabbit_publisher
from tests.support.rabbitmq import RabbitMQ

_THREADS = (1, 8, 32)
_ROUNDS = 3
_SECONDS = 2.0

Publish = Callable[[Message], None]


def main() -> None:
    """Start a private broker, let the contestants run, and print a table of medians."""
    rates: dict[tuple[str, int], list[float]] = {}
    with RabbitMQ() as broker, tempfile.TemporaryDirectory() as folder:
        url = broker.create_virtual_host()
        topology.declare([url], timeout_seconds=15)
        publisher = rabbit_publisher(url, connection_name="benchmark")
        queue = EmbeddedQueue(Path(folder) / "queue.sqlite")
        blocking = _BlockingPublisher(url)
        contestants: dict[str, Publish] = {
            "RabbitPublisher, one connection": lambda message: publisher.publish(message, timeout_seconds=10),
            "BlockingChannel per thread": blocking.publish,
            "EmbeddedQueue": lambda message: queue.put(message, timeout_seconds=10),
        }
        for _ in range(_ROUNDS):
            for threads in _THREADS:
                for name, publish in contestants.items():
                    rates.setdefault((name, threads), []).append(_rate(publish, threads))
        publisher.close(timeout_seconds=5)
        queue.close(timeout_seconds=5)
        blocking.close()
    print(f"{'confirmed publishes per second':40}" + "".join(f"{count:>4} threads" for count in _THREADS))
    for name in contestants:
        print(f"{name:40}" + "".join(f"{median(rates[name, count]):12.0f}" for count in _THREADS))


def _rate(publish: Publish, threads: int) -> float:
    message = replace(make_message("benchmark"), body=b"x" * 600)
    ends_at = time.perf_counter() + _SECONDS

    def work(_number: int) -> int:
        published = 0
        while time.perf_counter() < ends_at:
            publish(message)
            published += 1
        return published

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        return sum(pool.map(work, range(threads))) / (time.perf_counter() - began)


class _BlockingPublisher:
    """What most services do: pika's blocking channel with confirms, one for each thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._of_thread = threading.local()
        self._connections: list[pika.BlockingConnection] = []

    def publish(self, message: Message) -> None:
        if not hasattr(self._of_thread, "channel"):
            connection = pika.BlockingConnection(pika.URLParameters(self._url))
            self._connections.append(connection)
            self._of_thread.channel = connection.channel()
            self._of_thread.channel.confirm_delivery()
        self._of_thread.channel.basic_publish(
            message.exchange, message.routing_key, message.body, to_properties(message), mandatory=True
        )

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


if __name__ == "__main__":
    main()
