"""Messages for tests of queues."""

from collections.abc import Callable
from functools import partial

import pika

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.errors import NotConfirmed
from service.messaging.interface import Message, Publisher
from service.messaging.rabbitmq.publisher import RabbitPublisher
from service.messaging.rabbitmq.session import BrokerSession
from service.messaging.rabbitmq.subscriber import RabbitSubscriber
from service.messaging.rabbitmq.topology import CALLBACKS_EXCHANGE, LEDGER_QUEUE
from service.messaging.sqlite.queue import EmbeddedPublisher, EmbeddedQueue
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

#: What the fixtures of these names make.
Connect = Callable[..., BlockingPublisher]
Subscribe = Callable[..., RabbitSubscriber]


def make_message(message_id: str, *, routing_key: str = "acme", exchange: str = CALLBACKS_EXCHANGE) -> Message:
    """A small message whose body is its id."""
    return Message(
        exchange=exchange,
        routing_key=routing_key,
        body=message_id.encode(),
        message_id=message_id,
        type="test.v1",
        headers={"traceparent": "00-1-2-01"},
    )


def rabbit_publisher(*urls: str, connection_name: str = "test", max_in_flight: int = 1000) -> BlockingPublisher:
    """A publisher to RabbitMQ that waits."""
    make = partial(RabbitPublisher, urls=urls, connection_name=connection_name, max_in_flight=max_in_flight)
    return BlockingPublisher(lambda loop: make(loop=loop), name=connection_name)


def embedded_publisher(queue: EmbeddedQueue, *, max_bytes: int | None = None) -> BlockingPublisher:
    """A publisher to the embedded queue that waits."""
    return BlockingPublisher(lambda loop: EmbeddedPublisher(queue=queue, loop=loop, max_bytes=max_bytes), name="test")


def publish_until_confirmed(publisher: Publisher, message: Message) -> None:
    """Publish again and again, as the gateway does, until it is confirmed."""

    def confirmed() -> bool:
        try:
            publisher.publish(message, timeout_seconds=2)
        except NotConfirmed:
            return False
        return True

    eventually(confirmed)


def count_messages(url: str, queue: str = LEDGER_QUEUE) -> int:
    """How many messages wait in a queue of the broker."""
    with BrokerSession(urls=[url], connection_name="test-count", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        return session.count(queue)


def delete_queue(url: str, queue: str) -> None:
    """Delete a queue of the broker, with what is in it."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_delete(queue)
    connection.close()
