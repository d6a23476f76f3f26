import queue
import threading
from typing import Any

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.errors import BrokerUnavailable
from service.messaging.interface import Message
from tests.support.waiting import HANGS_AFTER_SECONDS

MESSAGE = Message(exchange="x", routing_key="m", body=b"", message_id="1", type="t")


class Counting:
    def __init__(self) -> None:
        self.made = self.published = self.closed = 0
        self.threads: set[int] = set()

    def __call__(self, _loop: Any) -> Any:
        self.made += 1
        return self

    def submit(self, message: Any, *, deadline: Any, on_settled: Any) -> None:
        self.threads.add(threading.get_ident())
        self.published += 1
        on_settled(None)

    async def close(self, *, timeout_seconds: Any) -> None:
        self.closed += 1


def publish(publisher: Any) -> Any:
    outcomes: queue.Queue[Any] = queue.Queue()
    publisher.submit(MESSAGE, deadline=1.0, on_settled=outcomes.put)
    return outcomes.get(timeout=HANGS_AFTER_SECONDS)


def test_many_threads_make_one_publisher() -> None:
    inner = Counting()
    publisher = BlockingPublisher(inner, name="test")
    start = threading.Barrier(8)

    def publish_at_once() -> None:
        start.wait()
        publish(publisher)

    threads = [threading.Thread(target=publish_at_once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publisher.close(timeout_seconds=1)
    assert (inner.made, inner.published, inner.closed) == (1, 8, 1)
    assert len(inner.threads) == 1


def test_closing_without_a_message_makes_none() -> None:
    inner = Counting()
    publisher = BlockingPublisher(inner, name="test")
    for _ in range(2):
        publisher.close(timeout_seconds=1)
    assert (inner.made, inner.closed) == (0, 0)
    assert isinstance(publish(publisher), BrokerUnavailable)
