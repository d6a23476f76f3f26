"""What a publisher and a subscriber do while the broker is killed, frozen, restarted and out of memory."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pika
import pytest
from pika.exceptions import AMQPError

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.errors import BrokerUnavailable, ConfirmTimeout, NotConfirmed
from service.messaging.rabbitmq import publisher as rabbit_publisher
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.subscriber import RabbitSubscriber
from tests.support.messages import Connect, Subscribe, count_messages, make_message, publish_until_confirmed
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


@pytest.fixture
def broker(own_rabbitmq: RabbitMQ) -> RabbitMQ:
    return own_rabbitmq


@pytest.fixture
def url(broker: RabbitMQ) -> str:
    """A virtual host of its own, with our topology in it."""
    url = broker.create_virtual_host()
    topology.declare([url], timeout_seconds=HANGS_AFTER_SECONDS)
    return url


@pytest.fixture
def soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without confirms is given up after 2 s, in place of 8."""
    monkeypatch.setattr(rabbit_publisher, "_SILENT_SECONDS", 2.0)


@contextmanager
def _out_of_memory(broker: RabbitMQ) -> Iterator[None]:
    broker.block_publishers()
    try:
        yield
    finally:
        broker.unblock_publishers()


@contextmanager
def _frozen(broker: RabbitMQ) -> Iterator[None]:
    broker.freeze()
    try:
        yield
    finally:
        broker.thaw()


def test_everything_confirmed_around_a_kill_is_delivered(
    connect: Connect, subscribe: Subscribe, broker: RabbitMQ, url: str
) -> None:
    publisher = connect(url)
    confirmed: set[str] = set()
    stop = threading.Event()

    def publish(thread: int) -> None:
        number = 0
        while not stop.is_set():
            message_id = f"{thread}-{number}"
            number += 1
            try:
                publisher.publish(make_message(message_id), timeout_seconds=2)
            except NotConfirmed:
                stop.wait(0.05)
                continue
            confirmed.add(message_id)

    with ThreadPoolExecutor(4) as threads:
        try:
            for thread in range(4):
                threads.submit(publish, thread)
            eventually(lambda: len(confirmed) > 100)
            broker.kill()
            broker.start()
            before = len(confirmed)
            eventually(lambda: len(confirmed) > before + 100)
        finally:
            stop.set()

    assert confirmed <= _drain(subscribe(url), at_least=len(confirmed))


def _drain(subscriber: RabbitSubscriber, *, at_least: int) -> set[str]:
    seen: set[str] = set()

    def enough() -> bool:
        deliveries = subscriber.receive(max_messages=100, wait_seconds=1)
        seen.update(delivery.message.message_id for delivery in deliveries)
        subscriber.acknowledge(deliveries)
        return not deliveries and len(seen) >= at_least

    eventually(enough)
    return seen


def test_publishing_fails_at_once_while_the_broker_is_down(connect: Connect, broker: RabbitMQ, url: str) -> None:
    publisher = connect(url)
    publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    broker.stop()

    with pytest.raises(BrokerUnavailable, match="no connection"):
        eventually(lambda: publisher.publish(make_message("two"), timeout_seconds=30))


def test_a_memory_alarm_is_reported_at_once_and_forgotten_when_it_ends(
    connect: Connect, broker: RabbitMQ, url: str
) -> None:
    publisher = connect(url)
    publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)

    with _out_of_memory(broker):
        with pytest.raises(NotConfirmed, match="blocks publishers"):
            publisher.publish(make_message("two"), timeout_seconds=HANGS_AFTER_SECONDS)
        with pytest.raises(BrokerUnavailable, match="blocks publishers"):
            publisher.publish(make_message("three"), timeout_seconds=HANGS_AFTER_SECONDS)

    publish_until_confirmed(publisher, make_message("four"))


def test_after_one_confirm_has_timed_out_others_fail_at_once_until_one_comes(
    connect: Connect, broker: RabbitMQ, url: str
) -> None:
    publisher = connect(url)
    publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)

    with _frozen(broker):
        with pytest.raises(ConfirmTimeout):
            publisher.publish(make_message("two"), timeout_seconds=0.5)
        with pytest.raises(BrokerUnavailable, match="since a confirm timed out"):
            publisher.publish(make_message("three"), timeout_seconds=30)

    publish_until_confirmed(publisher, make_message("four"))
    eventually(lambda: count_messages(url) >= 3)


@pytest.mark.usefixtures("soon_given_up")
def test_a_connection_that_brings_no_confirm_any_more_is_given_up_for_one_to_another_broker(
    connect: Connect, broker: RabbitMQ, url: str, declared_url: str
) -> None:
    def connected_to_the_first() -> BlockingPublisher | None:
        before = count_messages(url)
        publisher = connect(url, declared_url)
        publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
        return publisher if count_messages(url) > before else None

    publisher = eventually(connected_to_the_first)
    assert publisher is not None
    before = count_messages(declared_url)
    with _frozen(broker):  # its kernel goes on answering, as that of a broker whose queue is stuck
        publish_until_confirmed(publisher, make_message("two"))
        eventually(lambda: count_messages(declared_url) == before + 1)


@pytest.mark.usefixtures("soon_given_up")
def test_a_connection_that_is_given_up_again_and_again_leaves_no_file_open(
    connect: Connect, broker: RabbitMQ, url: str
) -> None:
    publisher = connect(url)
    publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    open_files = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with _frozen(broker):
            eventually(lambda: _reason_for_no_publish(publisher).endswith("no confirm in 2.0 s"))
        publish_until_confirmed(publisher, make_message("more"))
    assert len(os.listdir("/proc/self/fd")) <= open_files


def _reason_for_no_publish(publisher: BlockingPublisher) -> str:
    try:
        publisher.publish(make_message("lost"), timeout_seconds=1)
    except NotConfirmed as error:
        return str(error)
    return ""


def test_acknowledging_after_a_reconnect_is_passed_over_and_the_message_comes_again(
    connect: Connect, subscribe: Subscribe, broker: RabbitMQ, url: str
) -> None:
    publish_until_confirmed(connect(url), make_message("one"))
    subscriber = subscribe(url)
    [old] = eventually(lambda: subscriber.receive(max_messages=10, wait_seconds=1))

    broker.ctl("close_all_connections", "--global", "test")
    [new] = eventually(lambda: subscriber.receive(max_messages=10, wait_seconds=1))
    subscriber.acknowledge([old])
    subscriber.close()

    assert new.message == old.message
    assert new.previous_deliveries == 1
    eventually(lambda: count_messages(url) == 1)


def test_a_message_whose_consumers_have_died_30_times_is_delivered_again(
    connect: Connect, subscribe: Subscribe, broker: RabbitMQ, url: str
) -> None:
    """Without a limit of its own, a queue of RabbitMQ 4 gives a message up after 20 deliveries."""
    publish_until_confirmed(connect(url), make_message("one"))
    for _ in range(30):
        connection = pika.BlockingConnection(pika.URLParameters(url))
        next(connection.channel().consume(topology.LEDGER_QUEUE))
        broker.kill_connections()
        with suppress(AMQPError):
            connection.close()

    subscriber = subscribe(url)
    [delivery] = eventually(lambda: subscriber.receive(max_messages=10, wait_seconds=1))

    assert delivery.message == make_message("one")
    assert count_messages(url, topology.DEAD_LETTERS) == 0


def test_what_is_held_for_longer_than_the_broker_allows_is_taken_back_once_and_then_left_alone(
    connect: Connect, subscribe: Subscribe, broker: RabbitMQ
) -> None:
    broker.limit_holding(seconds=0.5)
    holding_url, receiving_url = broker.create_virtual_host(), broker.create_virtual_host()
    for url in (holding_url, receiving_url):
        topology.declare([url], timeout_seconds=HANGS_AFTER_SECONDS)
        connect(url).publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    holding, receiving = subscribe(holding_url), subscribe(receiving_url)
    [old] = eventually(lambda: holding.receive(max_messages=10, wait_seconds=1))

    # Who goes on receiving shows how time passes: the broker takes the same from it three times.
    for _ in range(4):
        eventually(lambda: receiving.receive(max_messages=10, wait_seconds=1))

    assert not holding.holds(old)
    eventually(lambda: count_messages(holding_url) == 1)
    [again] = eventually(lambda: holding.receive(max_messages=10, wait_seconds=1))
    assert again.previous_deliveries <= 1  # RabbitMQ 4.3 does not count what it takes back
    holding.acknowledge([old])
    holding.acknowledge([again])
    holding.close()
    eventually(lambda: count_messages(holding_url) == 0)
