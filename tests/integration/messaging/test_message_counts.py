"""How many messages the broker and the embedded queue report, and that neither is silently wrong."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.messaging.errors import BrokerUnavailable, QueueFileFailed, TopologyMissing
from service.messaging.rabbitmq.dead_letters import as_dead_letter
from service.messaging.rabbitmq.topology import STATUS_EXCHANGE, count_messages
from service.messaging.sqlite.queue import EmbeddedQueue, EmbeddedSubscriber
from tests.support.messages import Connect, Subscribe, embedded_publisher, make_message
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_broker_counts_what_waits_in_each_queue(connect: Connect, declared_url: str) -> None:
    publisher = connect(declared_url)
    for number in range(3):
        publisher.publish(make_message(f"m{number}"), timeout_seconds=HANGS_AFTER_SECONDS)
    for number in range(2):
        letter = as_dead_letter(make_message(f"d{number}"), reason="bad", died_at=_MOMENT)
        publisher.publish(letter, timeout_seconds=HANGS_AFTER_SECONDS)
    publisher.publish(
        make_message("event", exchange=STATUS_EXCHANGE, routing_key="acme.x.succeeded"),
        timeout_seconds=HANGS_AFTER_SECONDS,
    )
    eventually(lambda: count_messages([declared_url]) == {"ledger": 3, "dead": 2, "unrouted": 1})


def test_a_broker_leaves_out_what_a_consumer_holds(connect: Connect, subscribe: Subscribe, declared_url: str) -> None:
    connect(declared_url).publish(make_message("m1"), timeout_seconds=HANGS_AFTER_SECONDS)
    eventually(lambda: count_messages([declared_url])["ledger"] == 1)
    subscriber = subscribe(declared_url)
    assert subscriber.receive(max_messages=1, wait_seconds=HANGS_AFTER_SECONDS)
    eventually(lambda: count_messages([declared_url])["ledger"] == 0)


def test_queues_that_are_not_there_are_an_error_and_not_empty(amqp_url: str) -> None:
    with pytest.raises(TopologyMissing):
        count_messages([amqp_url])


def test_a_broker_that_is_away_is_an_error_and_the_next_one_of_the_list_is_asked(
    declared_url: str, free_port: int
) -> None:
    away = f"amqp://127.0.0.1:{free_port}/"
    with pytest.raises(BrokerUnavailable):
        count_messages([away])
    assert count_messages([away, declared_url])["ledger"] == 0


def test_a_broker_that_hangs_is_an_error_within_the_time_limit(own_rabbitmq: RabbitMQ) -> None:
    own_rabbitmq.freeze()
    with pytest.raises(BrokerUnavailable):
        count_messages([own_rabbitmq.url], timeout_seconds=1.0)


def test_the_embedded_queue_counts_its_messages_and_its_dead_letters(tmp_path: Path) -> None:
    queue = EmbeddedQueue(path=tmp_path / "queue.sqlite3")
    publisher, subscriber = embedded_publisher(queue), EmbeddedSubscriber(queue=queue)
    for number in range(3):
        publisher.publish(make_message(f"m{number}"), timeout_seconds=HANGS_AFTER_SECONDS)
    assert queue.count_messages() == {"ledger": 3, "dead": 0}
    (delivery,) = subscriber.receive(max_messages=1, wait_seconds=HANGS_AFTER_SECONDS)
    assert queue.count_messages() == {"ledger": 3, "dead": 0}  # held, and counted nevertheless
    subscriber.dead_letter(delivery, reason="bad")
    assert queue.count_messages() == {"ledger": 2, "dead": 1}
    queue.close(timeout_seconds=5)


def test_an_embedded_queue_whose_file_is_damaged_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite3"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(QueueFileFailed):
        EmbeddedQueue(path=path).count_messages()
