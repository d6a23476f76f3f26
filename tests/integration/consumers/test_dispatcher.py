"""From the outbox to real downstreams: order, isolation of slow and dead endpoints, outages and kills."""

import base64
import json
import os
import random
import threading
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, create_engine, select

from consumers import threads
from consumers.dispatcher import Dispatcher
from consumers.sinks.amqp import AmqpSink
from consumers.sinks.sink import Sink
from consumers.sinks.webhook import WebhookSink
from service.config.endpoints import AmqpSettings, WebhookSettings
from service.config.secrets import Secret
from service.config.settings import DispatcherSettings
from service.domain.claims import OrderStatus
from service.ledger.database import READS_ONLY, make_engine
from service.ledger.outbox import DueDelivery, Outbox
from service.ledger.schema import migrate
from service.ledger.tables import deliveries
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.session import BrokerSession
from service.runtime.metrics.dispatcher import DispatcherMetrics
from tests.support.claims import a_claim
from tests.support.http_server import Answer, Request, ScriptedServer
from tests.support.ledger import Clock, make_store
from tests.support.messages import rabbit_publisher
from tests.support.postgresql import Database
from tests.support.processes import Processes, find_free_port, running
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

SECRET = "whsec_" + base64.b64encode(os.urandom(24)).decode()


def now() -> datetime:
    return datetime.now(UTC)


def webhook(name: str, url: str, **settings: Any) -> WebhookSettings:
    return WebhookSettings(
        name=name,
        url=url,
        secrets=[Secret(SECRET)],
        initial_retry_seconds=0.02,
        max_retry_seconds=0.1,
        max_attempts=1000,
        **settings,
    )


def make_dispatcher(
    engine: Engine, *endpoints: WebhookSettings, outbox: Outbox | None = None, **sinks: Sink
) -> Dispatcher:
    return Dispatcher(
        outbox=outbox or Outbox(engine=engine),
        sinks={endpoint.name: WebhookSink(endpoint=endpoint, clock=now) for endpoint in endpoints} | sinks,
        endpoints=[*endpoints, *(AmqpSettings(name=name) for name in sinks)],
        settings=DispatcherSettings(poll_seconds=0.02, lease_seconds=30),
        metrics=DispatcherMetrics(registry=CollectorRegistry(), endpoints=[]),
        clock=now,
    )


def record_both_statuses(engine: Engine, orders: range, *endpoints: str) -> None:
    store = make_store(engine, clock=Clock(), endpoints=endpoints)
    for number in orders:
        order = f"DK{number}"
        store.record([a_claim(OrderStatus.PROCESSING, order=order), a_claim(order=order, minute=1)])


def states(engine: Engine, endpoint: str) -> set[str]:
    query = select(deliveries.c.state).where(deliveries.c.endpoint == endpoint).distinct()
    # Else SQLite takes the write lock, which it may not get for long while dispatchers write.
    with engine.connect().execution_options(**{READS_ONLY: True}) as connection:
        return set(connection.scalars(query))


def sequences(requests: Sequence[Request]) -> dict[str, list[int]]:
    """The sequences that each order was told, in the order of their arrival."""
    told = defaultdict(list)
    for request in requests:
        event = json.loads(request.body)
        told[event["subject"]].append(event["data"]["sequence"])
    return told


def first_heard(requests: Sequence[Request]) -> dict[str, list[int]]:
    """The same as it is to a receiver that dedupes by id: a try that was cut short may still arrive late."""
    return {order: list(dict.fromkeys(told)) for order, told in sequences(requests).items()}


def test_a_hanging_and_a_dead_endpoint_delay_no_other(ledger_engine: Engine) -> None:
    record_both_statuses(ledger_engine, range(20), "well", "hangs", "dead")
    with ScriptedServer() as well, ScriptedServer() as hangs:
        hangs.behave = hangs.hang
        endpoints = [
            webhook("well", well.url),
            webhook("hangs", hangs.url, timeout_seconds=1),
            webhook("dead", f"http://127.0.0.1:{find_free_port()}/"),
        ]
        with running(make_dispatcher(ledger_engine, *endpoints)):
            eventually(lambda: states(ledger_engine, "well") == {"delivered"})
            assert states(ledger_engine, "hangs") == states(ledger_engine, "dead") == {"open"}
            hangs.closing.set()
    assert sequences(well.requests) == {f"DK{number}": [1, 2] for number in range(20)}


def test_each_order_is_delivered_in_sequence_however_often_the_endpoint_fails(ledger_engine: Engine) -> None:
    record_both_statuses(ledger_engine, range(30), "shop")
    chance = random.Random(7)
    taken: list[Request] = []
    lock = threading.Lock()

    def fail_often(request: Request) -> Answer:
        with lock:
            if chance.random() < 0.4:
                return Answer(status=chance.choice([429, 500, 503]), headers={"retry-after": "0"})
            taken.append(request)
            return Answer()

    with (
        ScriptedServer(fail_often) as shop,
        running(make_dispatcher(ledger_engine, webhook("shop", shop.url, concurrency=8))),
    ):
        eventually(lambda: states(ledger_engine, "shop") == {"delivered"})
    assert sequences(taken) == {f"DK{number}": [1, 2] for number in range(30)}
    assert len(shop.requests) > len(taken)


def test_a_postgresql_that_goes_away_parks_nothing_and_loses_nothing(own_postgresql: Database) -> None:
    engine = make_engine(own_postgresql.url, pool_size=2)
    migrate(engine)
    record_both_statuses(engine, range(100), "shop")
    with ScriptedServer() as shop, running(make_dispatcher(engine, webhook("shop", shop.url))):
        eventually(lambda: shop.requests)
        own_postgresql.kill()
        own_postgresql.start()
        eventually(lambda: _settled(own_postgresql.url) == {"delivered"})
    engine.dispose()
    assert first_heard(shop.requests) == {f"DK{number}": [1, 2] for number in range(100)}


def _settled(url: str) -> set[str]:
    reader = create_engine(url)
    try:
        return states(reader, "shop")
    finally:
        reader.dispose()


SETTINGS = """\
data_directory = "{folder}"

[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "capability"

[dispatcher]
poll_seconds = 0.05
lease_seconds = 2

[[endpoints]]
name = "shop"
kind = "webhook"
url = "{url}"
secrets = ["{secret}"]
timeout_seconds = 1
initial_retry_seconds = 0.1
max_attempts = 1000
"""


def test_dispatchers_killed_again_and_again_tell_every_event_in_sequence(
    tmp_path: Path, processes: Processes, postgresql: Database
) -> None:
    engine = make_engine(postgresql.url)
    migrate(engine)
    record_both_statuses(engine, range(150), "shop")
    settings = tmp_path / "settings.toml"
    environment = {"DATABASE_URL": postgresql.url, "AMQP_URL": ""}
    with ScriptedServer() as shop:
        settings.write_text(SETTINGS.format(folder=tmp_path, url=shop.url, secret=SECRET))
        for _ in range(3):
            seen = len(shop.requests)
            victim = processes.start("--config", str(settings), "run", "dispatcher", environment=environment)
            victim.wait_until(lambda seen: len(shop.requests) > seen + 20, seen)
            victim.kill()
        last = processes.start("--config", str(settings), "run", "dispatcher", environment=environment)
        last.wait_until(lambda: states(engine, "shop") == {"delivered"})
        assert last.terminate() == 0
    engine.dispose()
    assert first_heard(shop.requests) == {f"DK{number}": [1, 2] for number in range(150)}


def test_rabbitmq_hands_events_to_those_who_bound_a_queue_and_keeps_the_others(
    ledger_engine: Engine, amqp_url: str
) -> None:
    topology.declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
    with BrokerSession(urls=[amqp_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        session.declare_queue("books", arguments={})
        session.bind_queue("books", exchange=topology.STATUS_EXCHANGE, routing_key="acme.*.succeeded")
    record_both_statuses(ledger_engine, range(5), "broker")
    publisher = rabbit_publisher(amqp_url, connection_name="test")
    with running(make_dispatcher(ledger_engine, broker=AmqpSink(publisher=publisher, timeout_seconds=5))):
        eventually(lambda: states(ledger_engine, "broker") == {"delivered"})
    with BrokerSession(urls=[amqp_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        bound = [session.fetch("books") for _ in range(6)]
        # Confirmed is not yet counted as ready.
        eventually(lambda: session.count(topology.UNROUTED_STATUS) == 5)
    messages = [fetched.message for fetched in bound if fetched is not None]
    assert sorted(message.message_id for message in messages) == [f"acme/DK{number}/2" for number in range(5)]
    assert {json.loads(message.body)["id"] for message in messages} == {message.message_id for message in messages}
    assert {(message.content_type, message.type) for message in messages} == {
        ("application/cloudevents+json", "payment.succeeded")
    }


class BreakingOutbox(Outbox):
    """Its first claim for one endpoint meets a bug."""

    broken = False

    def lease_due(self, *, endpoint: str, limit: int, lease_seconds: float) -> Sequence[DueDelivery]:
        if endpoint == "shop" and not self.broken:
            self.broken = True
            raise ZeroDivisionError
        return super().lease_due(endpoint=endpoint, limit=limit, lease_seconds=lease_seconds)


def test_a_worker_that_breaks_is_started_again(ledger_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_RESTART_SECONDS", 0.01)
    record_both_statuses(ledger_engine, range(1), "shop")
    outbox = BreakingOutbox(engine=ledger_engine)
    with ScriptedServer() as shop, running(make_dispatcher(ledger_engine, webhook("shop", shop.url), outbox=outbox)):
        eventually(lambda: states(ledger_engine, "shop") == {"delivered"})
    assert outbox.broken


def test_without_endpoints_it_waits_for_its_end(ledger_engine: Engine) -> None:
    with running(make_dispatcher(ledger_engine)):
        pass
