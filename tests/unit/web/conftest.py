import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import structlog
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry
from structlog.typing import EventDict

from service.config.settings import ReceiverSettings
from service.messaging.codec import decode_refusals
from service.messaging.contract import Message, OnSettled
from service.messaging.errors import NotConfirmed
from service.runtime.metrics.receiver import ReceiverMetrics
from service.web.app import Health, create_app
from service.web.refusal_counter import RefusalCounter
from tests.support.receiver import merchants

NOW = datetime(2026, 7, 1, 4, 5, 6, tzinfo=UTC)


@dataclass
class RecordingPublisher:
    """Keeps what is published; fails with `failure` while that is set."""

    messages: list[Message] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    failure: NotConfirmed | None = None
    mistake: Exception | None = None
    made: int = 0
    threads: set[int] = field(default_factory=set)
    closed: bool = False

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        if self.mistake is not None:
            raise self.mistake
        self.threads.add(threading.get_ident())
        self.timeouts.append(deadline - time.monotonic())
        if self.failure is None:
            self.messages.append(message)
        on_settled(self.failure)

    async def close(self, *, timeout_seconds: float) -> None:
        self.closed = True


@dataclass
class Receiver:
    """A receiver without a server, and what it did."""

    client: FlaskClient
    publisher: RecordingPublisher
    registry: CollectorRegistry
    refusals: RefusalCounter
    health: Health
    logs: list[EventDict]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels, whatever others they have."""
        samples = [sample for family in self.registry.collect() for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def refusal_counts(self) -> dict[tuple[str, str], int]:
        """The refusals that were published to the ledger, by merchant and reason."""
        asyncio.run(self.refusals.close())
        return {
            (count.merchant, count.reason): count.callbacks for count in decode_refusals(self.publisher.messages[-1])
        }

    def log(self, event: str) -> EventDict:
        (found,) = [line for line in self.logs if line["event"] == event]
        return found


MakeReceiver = Callable[..., Receiver]


@pytest.fixture
def make_receiver() -> Iterator[MakeReceiver]:
    with structlog.testing.capture_logs() as logs:

        def make(*, loop: asyncio.AbstractEventLoop | None = None, **settings: object) -> Receiver:
            publisher, registry, health = RecordingPublisher(), CollectorRegistry(), Health()

            def make_publisher(_loop: asyncio.AbstractEventLoop) -> RecordingPublisher:
                publisher.made += 1
                return publisher

            app = create_app(
                merchants=merchants(),
                make_publisher=make_publisher,
                metrics=ReceiverMetrics(registry=registry, merchants=merchants()),
                clock=lambda: NOW,
                settings=ReceiverSettings(**settings),
                health=health,
                loop=loop,
            )
            return Receiver(
                client=app.test_client(),
                publisher=publisher,
                registry=registry,
                refusals=app.extensions["refusals"],
                health=health,
                logs=logs,
            )

        yield make


@pytest.fixture
def receiver(make_receiver: MakeReceiver) -> Receiver:
    return make_receiver()


@pytest.fixture
def unconfirmed(receiver: Receiver) -> Receiver:
    receiver.publisher.failure = NotConfirmed("the broker is gone")
    return receiver
