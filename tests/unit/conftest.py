"""The API, the embedded queue and the receiver, without servers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from service.bootstrap.api_role import make_api
from service.bootstrap.ledger import make_ledger_engine
from service.config.reading import parse_settings
from service.config.settings import ReceiverSettings
from service.messaging.codec import decode_refusals
from service.messaging.errors import NotConfirmed
from service.messaging.interface import Message, OnSettled
from service.messaging.sqlite.queue import EmbeddedQueue
from service.receiver.app import Health, create_app
from service.receiver.refusal_counter import RefusalCounter
from service.runtime.metrics.logs import LogMetrics
from service.runtime.metrics.receiver import ReceiverMetrics
from service.serving.health import Drain
from tests.support.logs import capture_logs
from tests.support.receiver import merchants

# ---- the API ----------------------------------------------------------------------------------------------------

TOKEN = "a-token-of-the-shop-for-tests-only"
READER = "a-token-of-the-till-for-tests-only"
_SETTINGS = f"""
[[api.tokens]]
name = "shop"
token = "{TOKEN}"
scopes = ["read", "announce", "withhold", "cards", "inquire", "resolve"]

[[api.tokens]]
name = "till"
token = "{READER}"
scopes = ["read"]

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """The application; its ledger was never made."""
    settings = parse_settings(_SETTINGS, {}, name="test", folder=tmp_path)
    engine = make_ledger_engine(settings)
    yield make_api(settings, engine, Drain(), LogMetrics(lost=lambda: {"full": 3}, escaped=lambda: 1))
    engine.dispose()


@pytest.fixture
def anonymous(app: Flask) -> FlaskClient:
    """A client without a token."""
    return app.test_client()


@pytest.fixture
def shop(app: Flask) -> FlaskClient:
    """A client with a token."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


@pytest.fixture
def till(app: Flask) -> FlaskClient:
    """A client whose token may read and do nothing else."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {READER}"
    return client


# ---- the embedded queue -----------------------------------------------------------------------------------------


OpenQueue = Callable[[], EmbeddedQueue]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the queue's file will be."""
    return tmp_path / "queue.sqlite"


@pytest.fixture
def open_queue(path: Path) -> Iterator[OpenQueue]:
    """Opens the same file again and again, as several processes would; all are closed after the test."""
    opened: list[EmbeddedQueue] = []

    def make() -> EmbeddedQueue:
        opened.append(EmbeddedQueue(path))
        return opened[-1]

    yield make
    for queue in opened:
        queue.close(timeout_seconds=5)


# ---- the receiver -----------------------------------------------------------------------------------------------

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
    logs: list[dict[str, Any]]

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

    def log(self, event: str) -> dict[str, Any]:
        (found,) = [line for line in self.logs if line["event"] == event]
        return found


MakeReceiver = Callable[..., Receiver]


@pytest.fixture
def make_receiver() -> Iterator[MakeReceiver]:
    with capture_logs() as logs:

        def make(*, loop: asyncio.AbstractEventLoop | None = None, **settings: Any) -> Receiver:
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
