from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.errors import BrokerUnavailable, NotConfirmed, Rejected, Unroutable
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.session import BrokerSession
from tests.support.messages import count_messages, make_message, publish_until_confirmed
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


def test_a_publish_that_returned_is_in_the_queue(connect: Callable[..., BlockingPublisher], declared_url: str) -> None:
    connect(declared_url).publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)

    eventually(lambda: count_messages(declared_url) == 1)


def test_many_threads_share_one_connection(connect: Callable[..., BlockingPublisher], declared_url: str) -> None:
    publisher = connect(declared_url)

    with ThreadPoolExecutor(32) as threads:
        list(
            threads.map(
                lambda n: publisher.publish(make_message(f"m{n}"), timeout_seconds=HANGS_AFTER_SECONDS), range(1000)
            )
        )

    eventually(lambda: count_messages(declared_url) == 1000)


def test_a_message_that_no_queue_is_bound_for_is_unroutable(
    connect: Callable[..., BlockingPublisher], declared_url: str
) -> None:
    with BrokerSession(urls=[declared_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        session.declare_exchange("lonely", type="topic", arguments={})

    with pytest.raises(Unroutable, match="topology declare"):
        connect(declared_url).publish(make_message("one", exchange="lonely"), timeout_seconds=HANGS_AFTER_SECONDS)


def test_an_unroutable_message_harms_no_other_in_flight(
    connect: Callable[..., BlockingPublisher], declared_url: str
) -> None:
    with BrokerSession(urls=[declared_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        session.declare_exchange("lonely", type="topic", arguments={})
    publisher = connect(declared_url)

    def publish(number: int) -> str:
        exchange = "lonely" if number % 10 == 0 else topology.CALLBACKS_EXCHANGE
        try:
            publisher.publish(make_message(f"m{number}", exchange=exchange), timeout_seconds=HANGS_AFTER_SECONDS)
        except Unroutable:
            return "unroutable"
        return exchange

    with ThreadPoolExecutor(16) as threads:
        outcomes = list(threads.map(publish, range(200)))

    assert outcomes == ["unroutable" if n % 10 == 0 else topology.CALLBACKS_EXCHANGE for n in range(200)]


def test_a_missing_exchange_fails_the_publish_and_the_next_one_works(
    connect: Callable[..., BlockingPublisher], declared_url: str
) -> None:
    publisher = connect(declared_url)
    with pytest.raises(NotConfirmed, match="no exchange 'missing'"):
        publisher.publish(make_message("one", exchange="missing"), timeout_seconds=HANGS_AFTER_SECONDS)

    publish_until_confirmed(publisher, make_message("two"))

    eventually(lambda: count_messages(declared_url) == 1)


def test_a_full_queue_rejects(connect: Callable[..., BlockingPublisher], declared_url: str) -> None:
    with BrokerSession(urls=[declared_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        session.declare_queue(
            "small", arguments={"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length": 1}
        )
        session.declare_exchange("into-small", type="topic", arguments={})
        session.bind_queue("small", exchange="into-small", routing_key="#")
    publisher = connect(declared_url)

    def publish_many() -> None:
        for number in range(20):  # the limit is soft by a few
            publisher.publish(make_message(f"m{number}", exchange="into-small"), timeout_seconds=HANGS_AFTER_SECONDS)

    with pytest.raises(Rejected):
        publish_many()


def test_more_than_the_bound_in_flight_is_refused_at_once(
    connect: Callable[..., BlockingPublisher], declared_url: str
) -> None:
    with pytest.raises(BrokerUnavailable, match="wait for their confirms"):
        connect(declared_url, max_in_flight=0).publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)


def test_a_name_that_amqp_cannot_carry_is_refused_and_the_connection_lives(
    connect: Callable[..., BlockingPublisher], declared_url: str
) -> None:
    publisher = connect(declared_url)

    with pytest.raises(Rejected, match="cannot be written"):
        publisher.publish(make_message("one", routing_key="k" * 300), timeout_seconds=HANGS_AFTER_SECONDS)
    publisher.publish(make_message("two"), timeout_seconds=HANGS_AFTER_SECONDS)


def test_a_first_host_that_is_dead_is_passed_over(
    connect: Callable[..., BlockingPublisher], declared_url: str, free_port: int
) -> None:
    for _ in range(4):  # the hosts are tried in random order
        publisher = connect(f"amqp://127.0.0.1:{free_port}/", declared_url)
        publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)


def test_a_broker_that_is_away_from_the_start_is_reported_at_once(
    connect: Callable[..., BlockingPublisher], free_port: int
) -> None:
    publisher = connect(f"amqp://127.0.0.1:{free_port}/")

    with pytest.raises(BrokerUnavailable):
        publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)


def test_a_closed_publisher_refuses(connect: Callable[..., BlockingPublisher], declared_url: str) -> None:
    publisher = connect(declared_url)
    publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    publisher.close(timeout_seconds=3)
    publisher.close(timeout_seconds=3)

    with pytest.raises(BrokerUnavailable, match="closed"):
        publisher.publish(make_message("two"), timeout_seconds=HANGS_AFTER_SECONDS)


def test_closing_waits_for_what_is_in_flight(connect: Callable[..., BlockingPublisher], declared_url: str) -> None:
    publisher = connect(declared_url)
    publisher.publish(make_message("first"), timeout_seconds=HANGS_AFTER_SECONDS)
    confirmed: list[int] = []

    def publish(number: int) -> None:
        try:
            publisher.publish(make_message(f"m{number}"), timeout_seconds=HANGS_AFTER_SECONDS)
        except BrokerUnavailable:
            return
        confirmed.append(number)

    with ThreadPoolExecutor(8) as threads:
        for number in range(300):
            threads.submit(publish, number)
        publisher.close(timeout_seconds=HANGS_AFTER_SECONDS)

    eventually(lambda: count_messages(declared_url) == len(confirmed) + 1)
