"""Publishers and subscribers on a declared topology, closed after the test."""

from collections.abc import Callable, Iterator

import pytest

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.subscriber import RabbitSubscriber
from tests.support.messages import rabbit_publisher

Connect = Callable[..., BlockingPublisher]
Subscribe = Callable[..., RabbitSubscriber]


@pytest.fixture
def declared_url(amqp_url: str) -> str:
    """A virtual host of the shared broker, with our topology in it."""
    topology.declare([amqp_url], timeout_seconds=15)
    return amqp_url


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes publishers; all are closed after the test."""
    made: list[BlockingPublisher] = []

    def make(*urls: str, max_in_flight: int = 1000) -> BlockingPublisher:
        made.append(rabbit_publisher(*urls, connection_name="test-publisher", max_in_flight=max_in_flight))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(timeout_seconds=3)


@pytest.fixture
def subscribe(connect: Connect) -> Iterator[Subscribe]:
    """Makes subscribers; all are closed after the test."""
    made: list[RabbitSubscriber] = []

    def make(*urls: str, prefetch: int = 100, longest_silence_seconds: float = 30.0) -> RabbitSubscriber:
        made.append(
            RabbitSubscriber(
                urls=urls,
                connection_name="test-subscriber",
                prefetch=prefetch,
                dead_letter_publisher=connect(*urls),
                longest_silence_seconds=longest_silence_seconds,
            )
        )
        return made[-1]

    yield make
    for subscriber in made:
        subscriber.close()
