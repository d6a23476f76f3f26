from collections.abc import Callable

import pika
import pytest

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.errors import BrokerUnavailable, TopologyMismatch, TopologyMissing, Unroutable
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.session import BrokerSession
from tests.support.logs import capture_logs
from tests.support.messages import Subscribe, count_messages, delete_queue, make_message, publish_until_confirmed
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


def test_declaring_twice_is_safe(amqp_url: str) -> None:
    topology.declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
    topology.declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)


def test_a_queue_with_other_settings_is_named_with_the_way_to_mend_it(amqp_url: str) -> None:
    with BrokerSession(urls=[amqp_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        session.declare_queue(topology.LEDGER_QUEUE, arguments={"x-queue-type": "classic"})

    with pytest.raises(TopologyMismatch, match=r"queue 'payment.callbacks.ledger'.*delete_queue"):
        topology.declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)


def test_a_broker_that_is_away_is_reported_within_the_deadline(free_port: int) -> None:
    with pytest.raises(BrokerUnavailable, match="no broker can be reached"):
        topology.declare([f"amqp://127.0.0.1:{free_port}/"], timeout_seconds=5)


def test_a_frozen_broker_is_given_up_at_the_deadline(own_rabbitmq: RabbitMQ) -> None:
    own_rabbitmq.freeze()
    try:
        with pytest.raises(BrokerUnavailable):
            topology.declare([own_rabbitmq.url], timeout_seconds=1)
    finally:
        own_rabbitmq.thaw()


def test_an_event_without_a_bound_queue_is_confirmed_and_kept(
    connect: Callable[..., BlockingPublisher], declared_url: str
) -> None:
    event = make_message("event", exchange=topology.STATUS_EXCHANGE, routing_key="acme.withhold.succeeded")

    connect(declared_url).publish(event, timeout_seconds=HANGS_AFTER_SECONDS)

    eventually(lambda: count_messages(declared_url, topology.UNROUTED_STATUS) == 1)


def test_a_publisher_declares_again_a_queue_that_is_missing(
    connect: Callable[..., BlockingPublisher], declared_url: str
) -> None:
    publisher = connect(declared_url)
    publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    delete_queue(declared_url, topology.LEDGER_QUEUE)

    publish_until_confirmed(publisher, make_message("two"))

    eventually(lambda: count_messages(declared_url) == 1)


def test_a_publisher_declares_again_an_exchange_that_is_missing(
    connect: Callable[..., BlockingPublisher], declared_url: str
) -> None:
    publisher = connect(declared_url)
    publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
    connection = pika.BlockingConnection(pika.URLParameters(declared_url))
    connection.channel().exchange_delete(topology.CALLBACKS_EXCHANGE)
    connection.close()

    publish_until_confirmed(publisher, make_message("two"))

    eventually(lambda: count_messages(declared_url) == 2)


def test_a_subscriber_declares_again_a_queue_that_is_missing(
    subscribe: Subscribe, connect: Callable[..., BlockingPublisher], amqp_url: str
) -> None:
    subscriber = subscribe(amqp_url)

    def declared() -> bool:
        subscriber.receive(max_messages=1, wait_seconds=0.1)
        try:
            topology.count_messages([amqp_url])
        except TopologyMissing:
            return False
        return True

    eventually(declared)
    connect(amqp_url).publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)

    assert eventually(lambda: subscriber.receive(max_messages=1, wait_seconds=0.1))


def test_a_queue_with_other_settings_is_left_as_it_is_and_said_in_the_log(
    connect: Callable[..., BlockingPublisher], amqp_url: str
) -> None:
    with BrokerSession(urls=[amqp_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        session.declare_exchange(topology.CALLBACKS_EXCHANGE, type="topic", arguments={})
        session.declare_queue(topology.LEDGER_QUEUE, arguments={"x-queue-type": "classic"})

    publisher = connect(amqp_url)
    with capture_logs() as events:
        with pytest.raises(Unroutable, match="topology declare"):
            publisher.publish(make_message("one"), timeout_seconds=HANGS_AFTER_SECONDS)
        eventually(lambda: any(event["event"] == "topology_declaration_failed" for event in events))
        with pytest.raises(Unroutable):
            publisher.publish(make_message("two"), timeout_seconds=HANGS_AFTER_SECONDS)

    [failed] = [event for event in events if event["event"] == "topology_declaration_failed"]
    assert "PRECONDITION_FAILED" in failed["reason"]
    assert not [event for event in events if event["event"] == "broker_lost"]
