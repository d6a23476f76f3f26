"""A queue and a ledger, of either kind, for tests of what lies between them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from consumers.ledger import LedgerConsumer, Recorder
from service.bootstrap.ledger import make_ledger_engine, make_store
from service.config.settings import Settings
from service.domain.claims import Claim, ClaimSource
from service.domain.events import EventType
from service.domain.order_state import Verdict
from service.ledger.engine import READS_ONLY
from service.ledger.schema import migrate
from service.ledger.tables import claims, events
from service.messaging.codec import encode_claim
from service.messaging.contract import DeadLetter, Message, Publisher, Subscriber
from service.messaging.rabbitmq.dead_letters import RabbitDeadLetters
from service.messaging.rabbitmq.subscriber import RabbitSubscriber
from service.messaging.sqlite.embedded import EmbeddedDeadLetters, EmbeddedSubscriber
from service.messaging.sqlite.queue import EmbeddedQueue
from service.runtime.clock import now
from service.runtime.metrics.ledger import LedgerMetrics
from service.runtime.metrics.merchants import ClaimMetrics
from tests.support.messages import count_messages, embedded_publisher, rabbit_publisher

_PUBLISHERS_AT_ONCE = 16
_CONFIRM_SECONDS = 10


class Stack:
    """What `settings` name, with an empty, migrated ledger. Use it as a context manager."""

    def __init__(self, *, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.engine = make_ledger_engine(settings)
        # Else SQLite takes the write lock to look, which it may not get for long while consumers write.
        self._looking = self.engine.execution_options(**{READS_ONLY: True})
        self._publisher = self._make_publisher()

    def __enter__(self) -> Self:
        migrate(self.engine)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publisher.close(timeout_seconds=5)
        self.engine.dispose()

    def publish(self, messages: Iterable[Claim | Message]) -> None:
        """Put claims, or messages as they are, into the queue; all are confirmed on return."""
        ready = [encode_claim(item) if isinstance(item, Claim) else item for item in messages]
        with ThreadPoolExecutor(_PUBLISHERS_AT_ONCE) as threads:
            list(threads.map(lambda message: self._publisher.publish(message, timeout_seconds=_CONFIRM_SECONDS), ready))

    def make_consumer(self) -> LedgerConsumer:
        """A consumer from this queue to this ledger."""
        registry = CollectorRegistry()
        return LedgerConsumer(
            subscriber=self._make_subscriber(),
            recorder=Recorder(
                store=make_store(self.settings, self.engine),
                metrics=LedgerMetrics(registry=registry),
                claim_metrics=ClaimMetrics(
                    registry=registry,
                    merchants=self.settings.merchants,
                    source=ClaimSource.CALLBACK,
                    verdicts=list(Verdict),
                ),
                clock=now,
            ),
            settings=self.settings.ledger,
        )

    def dead_letters(self) -> list[DeadLetter]:
        """What was put aside."""
        if self._urls:
            return list(RabbitDeadLetters(urls=self._urls, publisher=self._publisher).list(limit=1000))
        with self._open_queue() as queue:
            return list(EmbeddedDeadLetters(queue=queue).list(limit=1000))

    def count_claims(self) -> int:
        """How many claims are recorded."""
        with self._looking.connect() as connection:
            return connection.scalar(select(func.count()).select_from(claims)) or 0

    def events_per_order(self) -> dict[str, int]:
        """How many events each order has made."""
        query = select(events.c.biz_order_no, func.count()).group_by(events.c.biz_order_no)
        with self._looking.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def count_terminal_events(self) -> int:
        """How many events say that an order has succeeded or failed."""
        query = select(func.count()).where(events.c.type.in_([EventType.SUCCEEDED, EventType.FAILED]))
        with self._looking.connect() as connection:
            return connection.scalar(query) or 0

    def count_queued(self) -> int:
        """How many messages wait in the queue, those that a consumer holds not counted on RabbitMQ."""
        if self._urls:
            return count_messages(self._urls[0])
        with self._open_queue() as queue:
            return queue.depth().messages

    @property
    def _urls(self) -> list[str]:
        return [url.reveal() for url in self.settings.broker.urls]

    @contextmanager
    def _open_queue(self) -> Iterator[EmbeddedQueue]:
        queue = self._make_queue()
        try:
            yield queue
        finally:
            queue.close(timeout_seconds=5)

    def _make_queue(self) -> EmbeddedQueue:
        return EmbeddedQueue(path=self.settings.data_directory / "callbacks.sqlite3")

    def _make_publisher(self) -> Publisher:
        if self._urls:
            return rabbit_publisher(*self._urls)
        return embedded_publisher(self._make_queue())

    def _make_subscriber(self) -> Subscriber:
        if self._urls:
            return RabbitSubscriber(
                urls=self._urls, connection_name="test-subscriber", prefetch=200, dead_letter_publisher=self._publisher
            )
        return EmbeddedSubscriber(queue=self._make_queue())
