"""The spool, through an outage of a real broker."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.domain.depths import DepthReport
from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.codec import decode_depth
from service.messaging.errors import SpoolFull
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.publisher import RabbitPublisher
from service.messaging.sqlite.queue import Depth, EmbeddedQueue
from service.messaging.sqlite.spool import SpoolingPublisher, SpoolReporter
from service.runtime.clock import now
from tests.support.logs import capture_logs
from tests.support.messages import (
    Connect,
    Subscribe,
    count_messages,
    embedded_publisher,
    make_message,
    rabbit_publisher,
)
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

Spool = Callable[..., BlockingPublisher]


@pytest.fixture
def url(own_rabbitmq: RabbitMQ) -> str:
    url = own_rabbitmq.create_virtual_host()
    topology.declare([url], timeout_seconds=HANGS_AFTER_SECONDS)
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
    publisher.publish(make_message("before"), timeout_seconds=HANGS_AFTER_SECONDS)
    own_rabbitmq.kill()
    with ThreadPoolExecutor(8) as threads:
        list(
            threads.map(
                lambda n: publisher.publish(make_message(f"m{n}"), timeout_seconds=HANGS_AFTER_SECONDS), range(100)
            )
        )

    own_rabbitmq.start()

    eventually(lambda: count_messages(url) == 101)


def test_another_process_forwards_what_one_left_behind(spool: Spool, nowhere: str, declared_url: str) -> None:
    first = spool(nowhere)
    first.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    first.close(timeout_seconds=5)

    spool(declared_url).publish(make_message("two"), timeout_seconds=HANGS_AFTER_SECONDS)

    eventually(lambda: count_messages(declared_url) == 2)


def test_one_of_several_publishers_on_a_file_forwards_each_message_once(
    spool: Spool, nowhere: str, declared_url: str
) -> None:
    first = spool(nowhere)
    for number in range(200):
        first.publish(make_message(f"m{number}"), timeout_seconds=HANGS_AFTER_SECONDS)
    first.close(timeout_seconds=5)
    depths: list[Depth] = []

    for number in range(3):
        forwarding = spool(declared_url, on_depth=depths.append)
        forwarding.publish(make_message(f"n{number}"), timeout_seconds=HANGS_AFTER_SECONDS)

    eventually(lambda: depths and depths[-1].messages == 0)
    eventually(lambda: count_messages(declared_url) == 203)


def test_a_full_spool_is_a_clear_failure(spool: Spool, nowhere: str) -> None:
    publisher = spool(nowhere, max_bytes=1_000)

    def publish_many() -> None:
        for number in range(10):
            publisher.publish(make_message(f"m{number}"), timeout_seconds=HANGS_AFTER_SECONDS)

    with pytest.raises(SpoolFull, match="of 1000 bytes"):
        publish_many()


def test_the_depth_is_reported_while_the_broker_is_away(spool: Spool, nowhere: str) -> None:
    depths: list[Depth] = []
    publisher = spool(nowhere, on_depth=depths.append)

    for number in range(3):
        publisher.publish(make_message(f"m{number}"), timeout_seconds=HANGS_AFTER_SECONDS)

    eventually(lambda: depths and depths[-1].messages == 3)
    depth = depths[-1]
    assert depth.bytes > 0
    assert depth.oldest_at is not None
    assert depth.oldest_at.tzinfo is not None


def test_a_broker_that_hangs_costs_no_more_than_the_time_limit(spool: Spool, own_rabbitmq: RabbitMQ, url: str) -> None:
    publisher = spool(url)
    publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    own_rabbitmq.freeze()
    try:
        publisher.publish(make_message("two"), timeout_seconds=3.0)  # else it raises ConfirmTimeout
    finally:
        own_rabbitmq.thaw()

    eventually(lambda: count_messages(url) >= 2)


NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@pytest.fixture
def spooled(tmp_path: Path) -> Iterator[Callable[..., EmbeddedQueue]]:
    """Makes spools with some messages in them."""
    made: list[EmbeddedQueue] = []

    def make(name: str, *, messages: int = 0) -> EmbeddedQueue:
        made.append(EmbeddedQueue(tmp_path / name))
        (tmp_path / f"{name}.forwarder").touch()  # as whoever forwards the spool has
        publisher = embedded_publisher(EmbeddedQueue(tmp_path / name))
        for number in range(messages):
            publisher.publish(make_message(f"m{number}"), timeout_seconds=5)
        publisher.close(timeout_seconds=5)
        return made[-1]

    yield make
    for queue in made:
        queue.close(timeout_seconds=5)


@pytest.fixture
def received(subscribe: Subscribe, declared_url: str) -> Callable[[int], list[DepthReport]]:
    """Takes so many reports out of the broker's queue."""

    def receive(number: int) -> list[DepthReport]:
        subscriber = subscribe(declared_url)
        found: list[DepthReport] = []

        def all_there() -> bool:
            deliveries = subscriber.receive(max_messages=100, wait_seconds=1)
            subscriber.acknowledge(deliveries)
            found.extend(decode_depth(delivery.message) for delivery in deliveries)
            return len(found) >= number

        eventually(all_there)
        return found

    return receive


def test_a_spool_is_reported_with_its_depth_under_a_name_that_outlives_the_process(
    spooled: Callable[..., EmbeddedQueue],
    connect: Connect,
    declared_url: str,
    received: Callable[[int], list[DepthReport]],
) -> None:
    first, other = spooled("a.sqlite", messages=2), spooled("b.sqlite")
    for spool in (first, first, other):  # each reporter is a process of its own
        SpoolReporter(publisher=connect(declared_url), spool=spool, clock=lambda: NOON).report(spool.depth())
    one, again, another = received(3)
    assert one == again
    assert (one.messages, one.oldest_at, one.reported_at) == (2, first.depth().oldest_at, NOON)
    assert one.name.endswith(f":{first.path}")
    assert (another.messages, another.oldest_at) == (0, None)
    assert another.reporter != one.reporter


def test_a_spool_is_reported_once_in_an_interval(
    spooled: Callable[..., EmbeddedQueue],
    connect: Connect,
    declared_url: str,
    received: Callable[[int], list[DepthReport]],
) -> None:
    spool = spooled("a.sqlite")
    rare, often = (
        SpoolReporter(publisher=connect(declared_url), spool=spool, clock=lambda: NOON, interval_seconds=interval)
        for interval in (86_400, 0)
    )
    for reporter in (rare, rare, rare, often, often):
        reporter.report(spool.depth())
    assert len(received(3)) == 3


def test_a_report_that_fails_is_logged_and_harms_nothing(
    spooled: Callable[..., EmbeddedQueue], connect: Connect, nowhere: str, declared_url: str
) -> None:
    spool, unreadable = spooled("a.sqlite"), spooled("b.sqlite")
    lock_file = unreadable.path.with_name("b.sqlite.forwarder")
    lock_file.unlink()
    lock_file.mkdir()
    with capture_logs() as logs:
        SpoolReporter(publisher=connect(nowhere), spool=spool, clock=now).report(spool.depth())
        SpoolReporter(publisher=connect(declared_url), spool=unreadable, clock=now).report(unreadable.depth())
    assert [line["reason"].partition(":")[0] for line in logs if line["event"] == "spool_depth_not_reported"] == [
        "BrokerUnavailable",
        "IsADirectoryError",
    ]


def test_the_process_that_forwards_a_spool_reports_it_and_no_report_goes_through_the_spool(
    spooled: Callable[..., EmbeddedQueue],
    connect: Connect,
    declared_url: str,
    spool: Spool,
) -> None:
    file = spooled("spool.sqlite")
    reporter = SpoolReporter(publisher=connect(declared_url), spool=file, clock=now)
    publisher = spool(declared_url, on_depth=reporter.report)
    publisher.publish(make_message("one"), timeout_seconds=5)
    eventually(lambda: count_messages(declared_url) == 2)
    assert file.depth().messages == 0
