"""The exchanges and queues of the service on RabbitMQ: their declaration, and how many messages wait in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pika.channel import Channel

#: Topic exchange of incoming claims; the routing key is the merchant.
CALLBACKS_EXCHANGE = "payment.callbacks"
#: Quorum queue of the claims for the ledger.
LEDGER_QUEUE = "payment.callbacks.ledger"
#: Fanout exchange, and the quorum queue behind it, of messages that could not be applied.
DEAD_LETTERS = "payment.callbacks.dead"
#: Topic exchange of outgoing events; the routing key is `<merchant>.<order_type>.<status>`.
STATUS_EXCHANGE = "payment.status"
#: Fanout exchange, and the quorum queue behind it, of events for which no queue is bound.
UNROUTED_STATUS = "payment.status.unrouted"

_MEBIBYTE = 1024 * 1024
# A safety net: the consumer decides which messages are poison. Each crash of a consumer counts as a delivery of every
# message that it held, so a low limit would dead-letter healthy messages. Without one, RabbitMQ 4 takes 20.
_DELIVERY_LIMIT = 100
# Listing the dead letters counts as a delivery of each. A high limit, unlike -1, means the same to every RabbitMQ.
_UNLIMITED_DELIVERIES = 1_000_000_000

_Arguments = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str
    arguments: _Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A quorum queue, bound to one exchange."""

    name: str
    exchange: str
    #: Binding key; "" for a fanout exchange.
    routing_key: str
    arguments: _Arguments


#: In the order in which they are declared.
EXCHANGES = (
    Exchange(name=CALLBACKS_EXCHANGE, type="topic"),
    Exchange(name=DEAD_LETTERS, type="fanout"),
    Exchange(name=UNROUTED_STATUS, type="fanout"),
    Exchange(name=STATUS_EXCHANGE, type="topic", arguments={"alternate-exchange": UNROUTED_STATUS}),
)
QUEUES = (
    Queue(
        name=DEAD_LETTERS,
        exchange=DEAD_LETTERS,
        routing_key="",
        arguments={
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-max-length-bytes": 1024 * _MEBIBYTE,
            "x-delivery-limit": _UNLIMITED_DELIVERIES,
        },
    ),
    Queue(
        name=LEDGER_QUEUE,
        exchange=CALLBACKS_EXCHANGE,
        routing_key="#",
        arguments={
            "x-queue-type": "quorum",
            # A full queue refuses messages, and the gateway repeats. By default it would silently drop the oldest.
            "x-overflow": "reject-publish",
            "x-max-length-bytes": 4096 * _MEBIBYTE,
            "x-delivery-limit": _DELIVERY_LIMIT,
            "x-dead-letter-exchange": DEAD_LETTERS,
            "x-dead-letter-strategy": "at-least-once",
        },
    ),
    Queue(
        name=UNROUTED_STATUS,
        exchange=UNROUTED_STATUS,
        routing_key="",
        # For a person who wonders why nothing arrives, so the newest are kept. The ledger has all of them: RabbitMQ 4
        # may drop one that was looked at 20 times.
        arguments={"x-queue-type": "quorum", "x-overflow": "drop-head", "x-max-length-bytes": 64 * _MEBIBYTE},
    ),
)


def declare(urls: Sequence[str], *, timeout_seconds: float) -> None:
    """Declare every exchange, queue and binding on one of the brokers. Safe to repeat.

    Raises `TopologyMismatch` where one exists with other settings, and `BrokerUnavailable` where no broker can be
    reached or the whole takes longer than `timeout_seconds`.
    """
    from service.messaging.rabbitmq.session import BrokerSession  # pika only where there is a broker

    with BrokerSession(urls=urls, connection_name="topology", timeout_seconds=timeout_seconds) as session:
        for exchange in EXCHANGES:
            session.declare_exchange(exchange.name, type=exchange.type, arguments=exchange.arguments)
        for queue in QUEUES:
            session.declare_queue(queue.name, arguments=queue.arguments)
            session.bind_queue(queue.name, exchange=queue.exchange, routing_key=queue.routing_key)


def declare_on(channel: "Channel") -> None:
    """Begin to declare everything. The broker answers nothing, but closes the channel where it refuses something."""
    for exchange in EXCHANGES:
        channel.exchange_declare(exchange.name, exchange.type, durable=True, arguments=dict(exchange.arguments))
    for queue in QUEUES:
        channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        channel.queue_bind(queue.name, queue.exchange, queue.routing_key)


def count_messages(urls: Sequence[str], *, timeout_seconds: float = 5.0) -> Mapping[str, int]:
    """Messages in `ledger`, `dead` and `unrouted`, without those that a consumer holds.

    Connects for each call; `timeout_seconds` is for all of it. Raises `MessagingError`.
    """
    from service.messaging.rabbitmq.session import BrokerSession  # pika only where there is a broker

    queues = {"ledger": LEDGER_QUEUE, "dead": DEAD_LETTERS, "unrouted": UNROUTED_STATUS}
    with BrokerSession(urls=urls, connection_name="depths", timeout_seconds=timeout_seconds) as session:
        return {name: session.count(queue) for name, queue in queues.items()}
