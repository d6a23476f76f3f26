import threading

import pytest

from service.messaging.contract import Message
from service.messaging.errors import BrokerUnavailable
from service.web.process_publisher import ProcessPublisher

MESSAGE = Message(exchange="x", routing_key="m", body=b"", message_id="1", type="t")


class Counting:
    def __init__(self):
        self.made = self.published = self.closed = 0

    def __call__(self):
        self.made += 1
        return self

    def publish(self, message, *, timeout_seconds):
        self.published += 1

    def close(self, *, timeout_seconds):
        self.closed += 1


def test_many_threads_make_one_publisher():
    inner = Counting()
    publisher = ProcessPublisher(inner)
    start = threading.Barrier(8)

    def publish():
        start.wait()
        publisher.publish(MESSAGE, timeout_seconds=1)

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inner.made, inner.published) == (1, 8)


def test_opening_makes_it_before_the_first_message():
    inner = Counting()
    ProcessPublisher(inner).open()
    assert inner.made == 1


def test_closing_without_a_message_makes_none():
    inner = Counting()
    publisher = ProcessPublisher(inner)
    publisher.close(timeout_seconds=1)
    publisher.close(timeout_seconds=1)
    assert (inner.made, inner.closed) == (0, 0)
    with pytest.raises(BrokerUnavailable):
        publisher.publish(MESSAGE, timeout_seconds=1)
