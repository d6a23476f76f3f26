"""How much one consumer process moves: `python -m tests.benchmarks.consume [ORDERS]`.

From a RabbitMQ queue into PostgreSQL, and from PostgreSQL's outbox to a local HTTP server that answers at once or after
20 ms; every commit is flushed to disk. Then what an idle dispatcher costs the database.
"""

import base64
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from consumers.dispatcher import Dispatcher
from consumers.sinks.webhook import WebhookSink
from service.claims import Trust
from service.ledger.engine import make_engine
from service.ledger.outbox import Outbox
from service.ledger.tables import deliveries
from service.messaging import topology
from service.metrics.dispatcher import DispatcherMetrics
from service.settings import BrokerSettings, DispatcherSettings, EndpointSettings, MerchantSettings, Secret, Settings
from tests.support.claims import a_claim
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ
from tests.support.running import running
from tests.support.scripted_server import Answer, ScriptedServer
from tests.support.stack import Stack
from tests.support.waiting import eventually

_SECRET = "whsec_" + base64.b64encode(b"benchmark-benchmark-1234").decode()
_IDLE_SECONDS = 5
_MOST_SECONDS = 120


@contextmanager
def a_stack(folder: Path, endpoint: EndpointSettings) -> Iterator[Stack]:
    """RabbitMQ and a durable PostgreSQL, with our topology and an empty ledger."""
    with RabbitMQ() as broker, PostgreSQL(durable=True) as cluster:
        merchant = MerchantSettings(
            slug="acme", pay_types=frozenset({"bank"}), amount_unit="yuan", configured_trust=Trust.CAPABILITY
        )
        settings = Settings(
            merchants={"acme": merchant},
            endpoints=[endpoint],
            data_directory=folder,
            database_url=Secret(cluster.create_database()),
            broker=BrokerSettings(urls=[Secret(broker.url)]),
        )
        topology.declare([broker.url], timeout_seconds=15)
        with Stack(settings=settings, folder=folder) as stack:
            yield stack


def measure_ledger(stack: Stack, orders: int) -> float:
    """Claims a second, from a full queue."""
    before = stack.count_claims()
    stack.publish(a_claim(order=f"L{before}-{number}") for number in range(orders))
    began = time.monotonic()
    with running(stack.make_consumer()):
        eventually(lambda: stack.count_claims() == before + orders, within_seconds=_MOST_SECONDS)
        return orders / (time.monotonic() - began)


def measure_dispatcher(stack: Stack, endpoint: EndpointSettings) -> float:
    """Events a second, from a full outbox."""
    waiting = _count_open(stack)
    began = time.monotonic()
    with running(make_dispatcher(stack, endpoint)):
        eventually(lambda: _count_open(stack) == 0, within_seconds=_MOST_SECONDS)
        return waiting / (time.monotonic() - began)


def measure_idle(stack: Stack, endpoint: EndpointSettings) -> float:
    """Share of one core that this process uses while nothing is due."""
    with running(make_dispatcher(stack, endpoint)):
        began = time.process_time()
        threading.Event().wait(_IDLE_SECONDS)
        return (time.process_time() - began) / _IDLE_SECONDS


def make_dispatcher(stack: Stack, endpoint: EndpointSettings) -> Dispatcher:
    """One endpoint's."""
    engine = make_engine(stack.settings.database_url.reveal() if stack.settings.database_url else "")
    return Dispatcher(
        outbox=Outbox(engine=engine),
        sinks={endpoint.name: WebhookSink(endpoint=endpoint, clock=_now)},
        endpoints=[endpoint],
        settings=DispatcherSettings(),
        metrics=DispatcherMetrics(registry=CollectorRegistry(), endpoints=[endpoint.name]),
        clock=_now,
    )


def main() -> None:
    """Print one line per measurement."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    orders = int(sys.argv[1]) if len(sys.argv) > 1 else 3000

    def slow(_request: object) -> Answer:
        threading.Event().wait(0.02)
        return Answer()

    with tempfile.TemporaryDirectory() as folder, ScriptedServer() as shop:
        for pause, concurrency in (("at once", 4), ("after 20 ms", 4), ("after 20 ms", 16)):
            endpoint = EndpointSettings(
                name="shop", kind="webhook", url=shop.url, secrets=[Secret(_SECRET)], concurrency=concurrency
            )
            shop.behave = slow if pause == "after 20 ms" else lambda _request: Answer()
            with a_stack(Path(folder), endpoint) as stack:
                print(f"ledger: {measure_ledger(stack, orders):.0f} claims/s")
                rate = measure_dispatcher(stack, endpoint)
                print(f"dispatcher, {concurrency} under way, answered {pause}: {rate:.0f} events/s")
                print(f"dispatcher, idle: {measure_idle(stack, endpoint):.1%} of a core")


def _count_open(stack: Stack) -> int:
    query = select(func.count()).select_from(deliveries).where(deliveries.c.state == "open")
    with stack.engine.connect() as connection:
        return connection.scalar(query) or 0


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
