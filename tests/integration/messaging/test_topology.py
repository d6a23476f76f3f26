from collections.abc import Callable

import pytest

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.errors import BrokerUnavailable, TopologyMismatch
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.session import BrokerSession
from tests.support.messages import count_messages, make_message
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
