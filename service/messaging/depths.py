"""How much lies in the queues, for whoever watches them."""

from collections.abc import Mapping, Sequence

from service.messaging.rabbitmq.topology import DEAD_LETTERS, LEDGER_QUEUE, UNROUTED_STATUS
from service.messaging.sqlite.queue import EmbeddedQueue

_QUEUES = {"ledger": LEDGER_QUEUE, "dead": DEAD_LETTERS, "unrouted": UNROUTED_STATUS}


class RabbitDepths:
    """The queues of a broker. Each call is one visit to it."""

    def __init__(self, *, urls: Sequence[str], timeout_seconds: float = 5.0) -> None:
        """`timeout_seconds` is for a whole visit."""
        self._urls = urls
        self._timeout_seconds = timeout_seconds

    def count(self) -> Mapping[str, int]:
        """Messages in `ledger`, `dead` and `unrouted`, without those that a consumer holds. Raises MessagingError."""
        from service.messaging.rabbitmq.session import BrokerSession  # pika only where there is a broker

        with BrokerSession(urls=self._urls, connection_name="depths", timeout_seconds=self._timeout_seconds) as session:
            return {name: session.count(queue) for name, queue in _QUEUES.items()}


class EmbeddedDepths:
    """The embedded queue and its dead letters; events are not routed there."""

    def __init__(self, *, queue: EmbeddedQueue) -> None:
        self._queue = queue

    def count(self) -> Mapping[str, int]:
        """Messages in `ledger`, those that a consumer holds included, and in `dead`. Raises MessagingError."""
        return {"ledger": self._queue.depth().messages, "dead": self._queue.count_dead_letters()}
