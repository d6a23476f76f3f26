"""Consuming claims from RabbitMQ."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pika
from pika.channel import Channel
from pika.spec import Basic

from service.messaging.interface import Delivery, Publisher
from service.messaging.loop_thread import LoopThread
from service.messaging.rabbitmq.connection import BrokerConnection
from service.messaging.rabbitmq.dead_letters import as_dead_letter
from service.messaging.rabbitmq.properties import from_delivery
from service.messaging.rabbitmq.topology import LEDGER_QUEUE

_CLOSE_SECONDS = 2.0
_DEAD_LETTER_SECONDS = 5.0
_LONGEST_SILENCE_SECONDS = 30.0
# RabbitMQ 4.3 cancels where earlier releases close the channel: after its `consumer_timeout`.
_CANCELLED = "the broker cancelled the consumer: the queue was deleted, or a delivery acknowledgement timed out"


@dataclass(frozen=True, slots=True)
class _Handle:
    #: The number of the channel that delivered it: delivery tags start again with each.
    generation: int
    tag: int


class RabbitSubscriber:
    """Consumes the callbacks' queue on a connection and thread of its own; see `Subscriber`.

    The broker delivers at most `prefetch` unsettled messages, so that is also the largest batch.
    `dead_letter_publisher` publishes dead letters; its owner closes it.

    If a queue is deleted and declared again before its channels have noticed, they may receive nothing any more
    (RabbitMQ 3.10): the queue counts them as consumers, but its deliveries get lost in the broker until the channel is
    closed. This looks like a quiet queue, so the channel is renewed after every `longest_silence_seconds` without a
    message.

    It consumes from the first `receive` on, and after a lost connection from the next `receive` on. While the database
    is away, its owner holds messages for long and calls no `receive`. The broker then takes them back once, after its
    `consumer_timeout`, and they stay in the queue. If they were delivered again each time, each delivery
    would count, and the queue's delivery limit would dead-letter them.
    """

    def __init__(
        self,
        *,
        urls: Sequence[str],
        connection_name: str,
        prefetch: int,
        dead_letter_publisher: Publisher,
        longest_silence_seconds: float = _LONGEST_SILENCE_SECONDS,
    ) -> None:
        self._thread = LoopThread(connection_name)
        self._connection = BrokerConnection(
            urls=urls, connection_name=connection_name, on_open=self._on_open, on_down=self._on_down
        )
        self._prefetch = prefetch
        self._dead_letter_publisher = dead_letter_publisher
        self._longest_silence_seconds = longest_silence_seconds
        # Guards everything down to the next comment.
        self._arrived = threading.Condition()
        self._deliveries: deque[Delivery] = deque()
        self._generation = 0
        self._receiving = False
        self._consuming = False
        self._closed = False
        # Used on the connection's thread only. The unsettled tags, in the order of delivery.
        self._channel: Channel | None = None
        self._unsettled: dict[int, None] = {}
        self._last_tag = 0

    def receive(self, *, max_messages: int, wait_seconds: float) -> Sequence[Delivery]:
        """Up to `max_messages`; connects on first use."""
        with self._arrived:
            if self._closed:
                return ()
            self._connection.start(self._thread.start())
            self._receiving = True
            if not self._consuming:
                self._connection.call_soon(self._consume)  # does nothing while there is no channel: see _on_open
            self._arrived.wait_for(lambda: self._deliveries or self._closed, wait_seconds)
            self._receiving = False
            count = 0 if self._closed else min(max_messages, len(self._deliveries))
            return [self._deliveries.popleft() for _ in range(count)]

    def holds(self, delivery: Delivery) -> bool:
        """Whether the channel that delivered it is still open."""
        handle = delivery.handle
        with self._arrived:
            return isinstance(handle, _Handle) and handle.generation == self._generation

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge them without waiting. If the connection is lost meanwhile, the queue delivers them again."""
        self._settle(deliveries, _acknowledge)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Requeue them. RabbitMQ before 4.3 counts this as a delivery, so it is not for retries."""
        self._settle(deliveries, _requeue)

    def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        """Publish it to the dead letters and, once that is confirmed, acknowledge it."""
        message = as_dead_letter(delivery.message, reason=reason, died_at=datetime.now(UTC))
        self._dead_letter_publisher.publish(message, timeout_seconds=_DEAD_LETTER_SECONDS)
        self.acknowledge([delivery])

    def close(self) -> None:
        """Send pending acknowledgements, then close the connection."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()
        self._thread.close(self._connection.close(), timeout_seconds=_CLOSE_SECONDS)

    def _settle(self, deliveries: Sequence[Delivery], settle: "_Settle") -> None:
        handles = [delivery.handle for delivery in deliveries]
        with self._arrived:
            generation = self._generation
        tags = {handle.tag for handle in handles if isinstance(handle, _Handle) and handle.generation == generation}
        if tags:
            self._connection.call_soon(lambda: self._settle_tags(generation, tags, settle))

    # On the connection's thread from here on.

    def _on_open(self, channel: Channel) -> None:
        self._forget_channel()  # the old one, if it was renewed
        self._channel = channel
        self._unsettled.clear()
        self._last_tag = 0
        channel.add_on_cancel_callback(lambda _frame: self._connection.drop(_CANCELLED))
        channel.basic_qos(prefetch_count=self._prefetch)
        with self._arrived:
            wanted = self._receiving
        if wanted:
            self._consume()

    def _on_down(self, _reason: str) -> None:
        self._forget_channel()

    def _forget_channel(self) -> None:
        self._channel = None
        with self._arrived:
            self._generation += 1
            self._consuming = False
            self._deliveries.clear()  # the queue delivers them again

    def _consume(self) -> None:
        if self._channel is None or not self._channel.is_open:
            return
        with self._arrived:
            begun, self._consuming = self._consuming, True
        if not begun:
            self._channel.basic_consume(LEDGER_QUEUE, self._on_message)
            self._watch_for_silence(self._channel)

    def _on_message(
        self, _channel: Channel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
    ) -> None:
        self._unsettled[method.delivery_tag] = None
        self._last_tag = method.delivery_tag
        delivery = Delivery(
            message=from_delivery(method, properties, body),
            previous_deliveries=_previous_deliveries(method, properties),
            handle=_Handle(self._generation, method.delivery_tag),
        )
        with self._arrived:
            self._deliveries.append(delivery)
            self._arrived.notify()

    def _watch_for_silence(self, channel: Channel) -> None:
        last_tag = self._last_tag

        def check() -> None:
            if channel is not self._channel:
                return
            if self._last_tag == last_tag and not self._unsettled:
                self._connection.renew(channel)
            else:
                self._watch_for_silence(channel)

        self._connection.call_later(self._longest_silence_seconds, check)

    def _settle_tags(self, generation: int, tags: set[int], settle: "_Settle") -> None:
        if self._channel is None or not self._channel.is_open or generation != self._generation:
            return
        tags &= self._unsettled.keys()
        # One frame settles all up to the first unsettled message that is not among them.
        together = 0
        for tag in self._unsettled:
            if tag not in tags:
                break
            together = tag
        if together:
            settle(self._channel, together, True)
        for tag in sorted(tags):
            if tag > together:
                settle(self._channel, tag, False)
            del self._unsettled[tag]


_Settle = Callable[[Channel, int, bool], None]


def _acknowledge(channel: Channel, tag: int, multiple: bool) -> None:
    channel.basic_ack(tag, multiple=multiple)


def _requeue(channel: Channel, tag: int, multiple: bool) -> None:
    channel.basic_nack(tag, multiple=multiple, requeue=True)


def _previous_deliveries(method: Basic.Deliver, properties: pika.BasicProperties) -> int:
    # Quorum queues count deliveries; others only tell whether there was one.
    count = (properties.headers or {}).get("x-delivery-count", int(method.redelivered))
    return count if isinstance(count, int) else 0
