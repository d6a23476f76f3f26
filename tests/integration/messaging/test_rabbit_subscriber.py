from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import pika
import pytest

from service.messaging.errors import BrokerUnavailable
from service.messaging.interface import Delivery
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.dead_letters import RabbitDeadLetters
from service.messaging.rabbitmq.subscriber import RabbitSubscriber
from service.messaging.rabbitmq.topology import DEAD_LETTERS
from tests.support.logs import capture_logs
from tests.support.messages import Connect, Subscribe, count_messages, delete_queue, make_message
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


@pytest.fixture
def ten(connect: Connect, declared_url: str) -> str:
    """A broker with ten messages in the ledger's queue, `m0` to `m9`."""
    publisher = connect(declared_url)
    for number in range(10):
        publisher.publish(make_message(f"m{number}"), timeout_seconds=HANGS_AFTER_SECONDS)
    return declared_url


def _receive(subscriber: RabbitSubscriber, count: int) -> Sequence[Delivery]:
    got: list[Delivery] = []

    def all_received() -> bool:
        got.extend(subscriber.receive(max_messages=count, wait_seconds=1))
        return len(got) >= count

    eventually(all_received)
    return got


def _ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.message_id for delivery in deliveries]


class _FarFuture(datetime):
    """A timestamp beyond the year 9999, such as milliseconds in the place of seconds make."""

    def utctimetuple(self) -> tuple[int, ...]:  # type: ignore[override]
        return 1970, 1, 20_000_000, 0, 0, 0


def test_a_header_that_cannot_be_decoded_holds_up_nothing_and_can_be_put_aside(
    connect: Connect, subscribe: Subscribe, declared_url: str
) -> None:
    publisher = connect(declared_url)
    unreadable = replace(make_message("m0"), headers={"sent-at": cast(Any, _FarFuture(2026, 1, 1))})
    for message in (unreadable, make_message("m1")):
        publisher.publish(message, timeout_seconds=HANGS_AFTER_SECONDS)
    subscriber = subscribe(declared_url)

    first, second = _receive(subscriber, 2)
    subscriber.dead_letter(first, reason="undecodable")
    subscriber.acknowledge([second])

    assert first.message == replace(make_message("m0"), headers={})
    assert [letter.id for letter in RabbitDeadLetters(urls=[declared_url], publisher=publisher).list(limit=10)] == [
        "m0"
    ]


def test_messages_arrive_whole_and_in_order(subscribe: Subscribe, ten: str) -> None:
    deliveries = _receive(subscribe(ten), 10)

    assert [delivery.message for delivery in deliveries] == [make_message(f"m{number}") for number in range(10)]
    assert {delivery.previous_deliveries for delivery in deliveries} == {0}


def test_an_empty_queue_gives_an_empty_batch_when_the_wait_is_over(subscribe: Subscribe, declared_url: str) -> None:
    assert subscribe(declared_url).receive(max_messages=10, wait_seconds=0.2) == []


def test_no_more_than_the_prefetch_is_handed_out_unsettled(subscribe: Subscribe, ten: str) -> None:
    subscriber = subscribe(ten, prefetch=4)
    first = _receive(subscriber, 4)
    assert subscriber.receive(max_messages=10, wait_seconds=0.2) == []

    subscriber.acknowledge(first)

    assert _ids(_receive(subscriber, 4)) == ["m4", "m5", "m6", "m7"]


@pytest.mark.parametrize("kept", [[], [0], [9], [4], [0, 9], [1, 3, 5], list(range(10))])
def test_just_the_acknowledged_ones_are_gone(subscribe: Subscribe, ten: str, kept: list[int]) -> None:
    subscriber = subscribe(ten)
    deliveries = _receive(subscriber, 10)

    subscriber.acknowledge([delivery for number, delivery in enumerate(deliveries) if number not in kept])
    subscriber.close()

    eventually(lambda: count_messages(ten) == len(kept))
    if kept:
        assert _ids(_receive(subscribe(ten), len(kept))) == [f"m{number}" for number in kept]


def test_acknowledging_twice_is_harmless(subscribe: Subscribe, ten: str) -> None:
    subscriber = subscribe(ten, prefetch=5)
    first = _receive(subscriber, 5)
    subscriber.acknowledge(first)
    subscriber.acknowledge(first)

    assert _ids(_receive(subscriber, 5)) == ["m5", "m6", "m7", "m8", "m9"]


def test_released_messages_go_to_another_consumer(subscribe: Subscribe, ten: str) -> None:
    subscriber = subscribe(ten, prefetch=10)
    subscriber.release(_receive(subscriber, 10))
    subscriber.close()

    again = _receive(subscribe(ten), 10)

    assert _ids(again) == [f"m{number}" for number in range(10)]


def test_a_dead_letter_keeps_its_message_and_says_why(subscribe: Subscribe, connect: Connect, ten: str) -> None:
    subscriber = subscribe(ten)
    deliveries = _receive(subscriber, 10)

    subscriber.dead_letter(deliveries[3], reason="field 'digest' is missing")
    subscriber.acknowledge([*deliveries[:3], *deliveries[4:]])
    subscriber.close()

    [letter] = RabbitDeadLetters(urls=[ten], publisher=connect(ten)).list(limit=10)
    assert letter.id == "m3"
    assert letter.reason == "field 'digest' is missing"
    assert (letter.message.body, letter.message.type) == (b"m3", "test.v1")
    eventually(lambda: count_messages(ten) == 0)


def test_a_dead_letter_that_is_not_stored_stays_in_the_queue(connect: Connect, ten: str, free_port: int) -> None:
    subscriber = RabbitSubscriber(
        urls=[ten],
        connection_name="test-subscriber",
        prefetch=100,
        dead_letter_publisher=connect(f"amqp://127.0.0.1:{free_port}/"),
    )
    deliveries = _receive(subscriber, 10)

    with pytest.raises(BrokerUnavailable):
        subscriber.dead_letter(deliveries[3], reason="field 'digest' is missing")
    subscriber.close()

    eventually(lambda: count_messages(ten) == 10)


def test_a_queue_that_is_deleted_and_declared_again_is_consumed_again(
    subscribe: Subscribe, connect: Connect, rabbitmq: RabbitMQ, declared_url: str
) -> None:
    subscriber = subscribe(declared_url)
    connect(declared_url).publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    subscriber.acknowledge(_receive(subscriber, 1))
    with capture_logs() as events:
        rabbitmq.ctl("delete_queue", "--vhost", declared_url.rpartition("/")[2], topology.LEDGER_QUEUE)
        eventually(lambda: any(event["event"] == "broker_lost" for event in events))
    topology.declare([declared_url], timeout_seconds=HANGS_AFTER_SECONDS)

    connect(declared_url).publish(make_message("two"), timeout_seconds=HANGS_AFTER_SECONDS)

    assert _ids(_receive(subscriber, 1)) == ["two"]


def test_a_queue_declared_again_before_its_consumers_notice_its_deletion_is_consumed_again(
    subscribe: Subscribe, connect: Connect, declared_url: str
) -> None:
    """About every second time the broker leaves them deaf, and without a word."""
    subscriber = subscribe(declared_url, longest_silence_seconds=1.0)
    publisher = connect(declared_url)
    for number in range(4):
        publisher.publish(make_message(f"before {number}"), timeout_seconds=HANGS_AFTER_SECONDS)
        subscriber.acknowledge(_receive(subscriber, 1))
        delete_queue(declared_url, topology.LEDGER_QUEUE)
        topology.declare([declared_url], timeout_seconds=HANGS_AFTER_SECONDS)

        publisher.publish(make_message(f"after {number}"), timeout_seconds=HANGS_AFTER_SECONDS)

        after = _receive(subscriber, 1)
        assert _ids(after)[-1] == f"after {number}"
        subscriber.acknowledge(after)


def test_silence_costs_no_message(subscribe: Subscribe, connect: Connect, ten: str) -> None:
    subscriber = subscribe(ten, longest_silence_seconds=0.02)
    publisher = connect(ten)
    received = list(_receive(subscriber, 10))
    # What is in hand keeps the channel as it is, however long nothing else comes.
    assert subscriber.receive(max_messages=1, wait_seconds=0.5) == []
    subscriber.acknowledge(received)
    for number in range(10, 60):
        publisher.publish(make_message(f"m{number}"), timeout_seconds=HANGS_AFTER_SECONDS)
        fresh = _receive(subscriber, 1)
        subscriber.acknowledge(fresh)
        received += fresh
    assert {*_ids(received)} == {f"m{number}" for number in range(60)}
    eventually(lambda: count_messages(ten) == 0)


def test_a_message_handed_out_too_often_is_put_aside_by_the_broker_with_its_reason(
    connect: Connect, declared_url: str
) -> None:
    connect(declared_url).publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    with closing(pika.BlockingConnection(pika.URLParameters(declared_url))) as connection:
        # Each channel ends with the message in its hands. RabbitMQ 4.3 does not count one that is given back.
        for _ in range(101):
            with closing(connection.channel()) as channel:
                eventually(lambda channel: channel.basic_get(topology.LEDGER_QUEUE)[0], channel)
    eventually(lambda: count_messages(declared_url, DEAD_LETTERS) == 1)

    [letter] = RabbitDeadLetters(urls=[declared_url], publisher=connect(declared_url)).list(limit=10)
    assert letter.message.body == b"one"
    assert letter.reason == "handed out too often without being settled"
    assert letter.died_at.year > 2000
