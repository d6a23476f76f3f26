"""The spool, through an outage of a real broker."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.errors import SpoolFull
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.publisher import RabbitPublisher
from service.messaging.sqlite.queue import Depth, EmbeddedQueue
from service.messaging.sqlite.spool import SpoolingPublisher
from tests.support.messages import count_messages, make_message, rabbit_publisher
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

Spool = Callable[..., BlockingPublisher]


@pytest.fixture
def url(own_rabbitmq: RabbitMQ) -> str:
    url = own_rabbitmq.create_virtual_host()
    topology.declare([url], timeout_seconds=15)
    return url


@pytest.fixture
def nowhere(free_port: int) -> str:
    """The address of a broker that is away."""
    return f"amqp://127.0.0.1:{free_port}/"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """Makes spooling publishers on one file, as several processes would have; all are closed after the test."""
    made: list[BlockingPublisher] = []

    def make(
        url: str, *, max_bytes: int = 1_000_000, on_depth: Callable[[Depth], None] = lambda _depth: None
    ) -> BlockingPublisher:
        def make_on(loop: asyncio.AbstractEventLoop) -> SpoolingPublisher:
            return SpoolingPublisher(
                loop=loop,
                inner=RabbitPublisher(loop=loop, urls=[url], connection_name="test-spool"),
                forward_to=rabbit_publisher(url, connection_name="test-forward"),
                spool=EmbeddedQueue(tmp_path / "spool.sqlite"),
                max_bytes=max_bytes,
                on_depth=on_depth,
            )

        made.append(BlockingPublisher(make_on, name="test-spool"))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(timeout_seconds=5)


def test_what_was_published_during_an_outage_arrives_after_it(spool: Spool, own_rabbitmq: RabbitMQ, url: str) -> None:
    publisher = spool(url)
    publisher.publish(make_message("before"), timeout_seconds=5)
    own_rabbitmq.kill()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: publisher.publish(make_message(f"m{n}"), timeout_seconds=10), range(100)))

    own_rabbitmq.start()

    eventually(lambda: count_messages(url) == 101)


def test_another_process_forwards_what_one_left_behind(spool: Spool, nowhere: str, declared_url: str) -> None:
    first = spool(nowhere)
    first.publish(make_message("one"), timeout_seconds=10)
    first.close(timeout_seconds=5)

    spool(declared_url).publish(make_message("two"), timeout_seconds=5)

    eventually(lambda: count_messages(declared_url) == 2)


def test_one_of_several_publishers_on_a_file_forwards_each_message_once(
    spool: Spool, nowhere: str, declared_url: str
) -> None:
    first = spool(nowhere)
    for number in range(200):
        first.publish(make_message(f"m{number}"), timeout_seconds=10)
    first.close(timeout_seconds=5)
    depths: list[Depth] = []

    for number in range(3):
        spool(declared_url, on_depth=depths.append).publish(make_message(f"n{number}"), timeout_seconds=5)

    eventually(lambda: depths and depths[-1].messages == 0)
    assert count_messages(declared_url) == 203


def test_a_full_spool_is_a_clear_failure(spool: Spool, nowhere: str) -> None:
    publisher = spool(nowhere, max_bytes=1_000)

    def publish_many() -> None:
        for number in range(10):
            publisher.publish(make_message(f"m{number}"), timeout_seconds=10)

    with pytest.raises(SpoolFull, match="of 1000 bytes"):
        publish_many()


def test_the_depth_is_reported_while_the_broker_is_away(spool: Spool, nowhere: str) -> None:
    depths: list[Depth] = []
    publisher = spool(nowhere, on_depth=depths.append)

    for number in range(3):
        publisher.publish(make_message(f"m{number}"), timeout_seconds=10)

    depth = eventually(lambda: depths and depths[-1].messages == 3 and depths[-1])
    assert depth.bytes > 0
    assert depth.oldest_at is not None
    assert depth.oldest_at.tzinfo is not None


def test_a_broker_that_hangs_costs_no_more_than_the_time_limit(spool: Spool, own_rabbitmq: RabbitMQ, url: str) -> None:
    publisher = spool(url)
    publisher.publish(make_message("one"), timeout_seconds=5)
    own_rabbitmq.freeze()
    try:
        publisher.publish(make_message("two"), timeout_seconds=3.0)  # else it raises ConfirmTimeout
    finally:
        own_rabbitmq.thaw()

    eventually(lambda: count_messages(url) >= 2)
