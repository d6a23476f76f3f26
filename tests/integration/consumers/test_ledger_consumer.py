"""From the queue to the ledger: poison, outages, and processes that are killed."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from consumers.ledger import LedgerConsumer, Recorder
from service.bootstrap.ledger import make_ledger_engine, make_store
from service.bootstrap.messaging import make_dead_letters
from service.config.secrets import Secret
from service.config.settings import BrokerSettings, LedgerSettings, MerchantSettings, Settings
from service.domain.claims import Claim, ClaimSource, OrderStatus, Trust
from service.domain.depths import DepthReport
from service.domain.events import EventType
from service.domain.refusals import RefusalCount
from service.ledger.database import READS_ONLY
from service.ledger.dead_letters import DeadLetterStore
from service.ledger.depths import DepthStore
from service.ledger.reports import Reports
from service.ledger.schema import migrate
from service.ledger.tables import claims, depth_reports, events
from service.messaging.codec import encode_claim, encode_depth, encode_refusals
from service.messaging.interface import DeadLetter, Message, Publisher, Subscriber
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.dead_letters import RabbitDeadLetters
from service.messaging.rabbitmq.subscriber import RabbitSubscriber
from service.messaging.sqlite.dead_letters import EmbeddedDeadLetters
from service.messaging.sqlite.queue import EmbeddedQueue, EmbeddedSubscriber
from service.runtime.clock import now
from service.runtime.metrics.ledger import LedgerMetrics
from service.runtime.metrics.merchants import ClaimMetrics
from tests.support.claims import a_claim
from tests.support.logs import capture_logs
from tests.support.messages import count_messages, embedded_publisher, rabbit_publisher
from tests.support.postgresql import Database
from tests.support.processes import Process, Processes, running
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

SETTINGS = """\
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "capability"

[ledger]
batch_size = 20
initial_retry_seconds = 0.05
max_retry_seconds = 0.5
"""


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
                dead_letters=DeadLetterStore(engine=self.engine),
                depths=DepthStore(engine=self.engine),
                metrics=LedgerMetrics(registry=registry),
                claim_metrics=ClaimMetrics(
                    registry=registry,
                    merchants=self.settings.merchants,
                    source=ClaimSource.CALLBACK,
                    clock=now,
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

    def spooled(self) -> dict[str, int]:
        """How many messages each spool last reported."""
        with self._looking.connect() as connection:
            return {row.reporter: row.messages for row in connection.execute(select(depth_reports))}

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


@pytest.fixture(params=["rabbitmq-postgresql", "embedded"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """An empty queue and an empty ledger, of either kind."""
    amqp_url = database_url = None
    if request.param == "rabbitmq-postgresql":
        amqp_url = request.getfixturevalue("amqp_url")
        database_url = request.getfixturevalue("postgresql").url
    with open_stack(tmp_path, amqp_url=amqp_url, database_url=database_url) as opened:
        yield opened


@contextmanager
def open_stack(folder: Path, *, amqp_url: str | None, database_url: str | None) -> Iterator[Stack]:
    settings = Settings(
        merchants={
            "acme": MerchantSettings(
                slug="acme",
                pay_types=frozenset({"bank"}),
                amount_unit="yuan",
                configured_trust=Trust.CAPABILITY,
            )
        },
        data_directory=folder / "data",
        database_url=Secret(database_url) if database_url else None,
        broker=BrokerSettings(urls=[Secret(amqp_url)] if amqp_url else []),
        ledger=LedgerSettings(batch_size=20, initial_retry_seconds=0.05, max_retry_seconds=0.5),
    )
    if amqp_url:
        topology.declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
    with Stack(settings=settings, folder=folder) as opened:
        yield opened


@pytest.fixture
def fault_stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """RabbitMQ and PostgreSQL of one's own (`own_rabbitmq`, `own_postgresql`), which the test may stop and kill."""
    amqp_url = request.getfixturevalue("own_rabbitmq").url
    database_url = request.getfixturevalue("own_postgresql").url
    with open_stack(tmp_path, amqp_url=amqp_url, database_url=database_url) as opened:
        yield opened


def both_statuses(orders: range) -> list[Claim]:
    return [
        claim
        for number in orders
        for claim in (
            a_claim(OrderStatus.PROCESSING, order=f"DK{number}"),
            a_claim(OrderStatus.SUCCEEDED, order=f"DK{number}", minute=1),
        )
    ]


def all_recorded(stack: Stack, orders: range) -> bool:
    return stack.count_claims() == 2 * len(orders)


def assert_each_order_succeeded_once(stack: Stack, orders: range) -> None:
    """One event or two: a `processing` that came after its `succeeded` makes none."""
    counted = stack.events_per_order()
    assert counted.keys() == {f"DK{number}" for number in orders}
    assert set(counted.values()) <= {1, 2}
    assert stack.count_terminal_events() == len(orders)


def undecodable(message_id: str) -> Message:
    return replace(encode_claim(a_claim()), body=b"{}", message_id=message_id)


def test_poison_among_healthy_messages_is_put_aside_with_its_reason_and_costs_no_other(stack: Stack) -> None:
    orders = range(60)
    unstorable = encode_claim(a_claim(order="x" * 129))
    messages: list[Claim | Message] = [*both_statuses(orders)]
    messages.insert(17, undecodable("undecodable"))
    messages.insert(70, unstorable)
    stack.publish(messages)
    with running(stack.make_consumer()):
        eventually(lambda: len(stack.dead_letters()) == 2 and all_recorded(stack, orders))
    assert {letter.id: letter.reason for letter in stack.dead_letters()} == {
        "undecodable": "UndecodableMessage: field 'merchant' is missing",
        unstorable.message_id: "ClaimUnstorable: biz_order_no must have 1 to 128 characters",
    }
    assert_each_order_succeeded_once(stack, orders)
    eventually(lambda: stack.count_queued() == 0)


def test_what_came_for_a_merchant_that_only_the_receiver_knew_is_applied_once_the_ledger_knows_it_too(
    stack: Stack,
) -> None:
    claim = a_claim(merchant="newcomer", order="DK0")
    stack.publish([claim, *both_statuses(range(1, 6))])
    with running(stack.make_consumer()):
        eventually(lambda: stack.dead_letters() and all_recorded(stack, range(1, 6)))
    (letter,) = stack.dead_letters()
    assert letter.reason == "UnknownMerchant: newcomer is not in the ledger's settings; add it, and replay"

    acme = stack.settings.merchants["acme"]
    stack.settings = replace(stack.settings, merchants={"acme": acme, "newcomer": replace(acme, slug="newcomer")})
    assert make_dead_letters(stack.settings).replay([letter.id]) == {letter.id}
    with running(stack.make_consumer()):
        eventually(lambda: "DK0" in stack.events_per_order())
    assert stack.dead_letters() == []


def test_counts_of_refusals_come_in_among_claims_and_one_that_cannot_be_read_costs_no_other(stack: Stack) -> None:
    day = date(2026, 7, 1)
    counts = [
        RefusalCount(merchant="acme", day=day, reason="not-json", process="p1", callbacks=total) for total in (1, 3, 2)
    ]
    unreadable = replace(encode_refusals(counts), body=b"{}", message_id="unreadable")
    claims = both_statuses(range(5))
    stack.publish([*claims[:5], *(encode_refusals([count]) for count in counts), unreadable, *claims[5:]])
    reports = Reports(engine=stack.engine)
    with running(stack.make_consumer()):
        eventually(lambda: all_recorded(stack, range(5)) and stack.dead_letters())
        eventually(lambda: reports.read_day("acme", day, time_zone=UTC).refused == {"not-json": 3})
    assert [letter.id for letter in stack.dead_letters()] == ["unreadable"]
    eventually(lambda: stack.count_queued() == 0)


def test_depths_of_spools_come_in_among_claims_and_one_that_cannot_be_read_costs_no_other(stack: Stack) -> None:
    report = DepthReport(reporter="spool-1", name="spool", messages=0, oldest_at=None, reported_at=now())
    newer = replace(report, messages=3, reported_at=report.reported_at + timedelta(microseconds=1))
    unreadable = replace(encode_depth(report), body=b"{}", message_id="unreadable")
    claims = both_statuses(range(5))
    stack.publish([*claims[:5], encode_depth(newer), unreadable, encode_depth(report), *claims[5:]])
    with running(stack.make_consumer()):
        eventually(lambda: all_recorded(stack, range(5)) and stack.dead_letters() and stack.count_queued() == 0)
        eventually(lambda: stack.spooled() == {"spool-1": 3})
    assert [letter.id for letter in stack.dead_letters()] == ["unreadable"]


def test_each_claim_that_says_anything_new_has_a_line_in_the_log_and_repeats_are_counted_for_their_batch(
    stack: Stack,
) -> None:
    new = [*both_statuses(range(3)), a_claim(OrderStatus.SUCCEEDED, Trust.CHECKSUM, order="forged")]
    stack.publish([*new, *new])
    with capture_logs() as logs, running(stack.make_consumer()):
        eventually(lambda: stack.count_claims() == len(new) and stack.count_queued() == 0)
        eventually(lambda: sum(line["claims"] for line in logs if line["event"] == "claims_recorded") == 2 * len(new))
    lines = [line for line in logs if line["event"] == "claim_recorded"]
    assert sorted(line["biz_order_no"] for line in lines) == sorted(claim.biz_order_no for claim in new)
    batches = [line["verdicts"] for line in logs if line["event"] == "claims_recorded"]
    assert sum(verdicts.get("duplicate", 0) for verdicts in batches) == len(new)


def test_postgresql_stopped_under_load_loses_and_buries_nothing(fault_stack: Stack, own_postgresql: Database) -> None:
    stack, orders = fault_stack, range(300)
    stack.publish(both_statuses(range(100)))
    with running(stack.make_consumer()):
        eventually(lambda: stack.count_claims() > 0)
        own_postgresql.stop()
        stack.publish(both_statuses(range(100, 200)))
        own_postgresql.start()
        own_postgresql.kill()
        stack.publish(both_statuses(range(200, 300)))
        own_postgresql.start()
        eventually(lambda: all_recorded(stack, orders))
    assert_each_order_succeeded_once(stack, orders)
    assert stack.dead_letters() == []
    eventually(lambda: stack.count_queued() == 0)


def test_a_database_that_is_away_for_longer_than_the_broker_lets_messages_be_held_loses_and_buries_nothing(
    fault_stack: Stack, own_postgresql: Database, own_rabbitmq: RabbitMQ
) -> None:
    stack, orders = fault_stack, range(50)
    own_rabbitmq.limit_holding(seconds=2)
    own_postgresql.stop()
    stack.publish(both_statuses(orders))
    with capture_logs() as logs, running(stack.make_consumer()):
        eventually(lambda: any(entry["event"] == "broker_lost" for entry in logs))
        eventually(lambda: stack.count_queued() == 100)
        own_postgresql.start()
        eventually(lambda: all_recorded(stack, orders) and stack.count_queued() == 0)
    assert_each_order_succeeded_once(stack, orders)
    assert stack.dead_letters() == []


def test_an_outage_of_the_database_over_more_redeliveries_than_rabbitmq_4_allows_by_default_buries_nothing(
    fault_stack: Stack, own_postgresql: Database
) -> None:
    """A queue without a limit of its own gives a message up after 20. Each consumer that ends hands all of its on."""
    stack, orders = fault_stack, range(5)
    own_postgresql.stop()
    stack.publish(both_statuses(orders))
    for _ in range(25):
        with capture_logs() as logs, running(stack.make_consumer()):
            eventually(lambda logs: any(entry["event"] == "dependency_unavailable" for entry in logs), logs)
    eventually(lambda: stack.count_queued() == 2 * len(orders))
    assert stack.dead_letters() == []
    own_postgresql.start()
    with running(stack.make_consumer()):
        eventually(lambda: all_recorded(stack, orders) and stack.count_queued() == 0)
    assert_each_order_succeeded_once(stack, orders)
    assert stack.dead_letters() == []


def test_sigterm_while_the_database_is_away_gives_everything_back_at_once(
    fault_stack: Stack, own_postgresql: Database, processes: Processes
) -> None:
    stack = fault_stack
    consumer = start_consumer(stack, processes)
    stack.publish([a_claim(order="first")])
    consumer.wait_until(lambda: stack.count_claims() == 1)
    own_postgresql.stop()
    stack.publish(both_statuses(range(50)))
    consumer.wait_until(lambda: '"dependency_unavailable"' in consumer.output)
    assert consumer.terminate() == 0
    eventually(lambda: stack.count_queued() == 100)
    assert stack.dead_letters() == []


def test_a_restarted_broker_hands_out_again_what_was_not_acknowledged(
    fault_stack: Stack, own_rabbitmq: RabbitMQ
) -> None:
    stack, orders = fault_stack, range(200)
    stack.publish(both_statuses(orders))
    with running(stack.make_consumer()):
        eventually(lambda: stack.count_claims() > 0)
        own_rabbitmq.kill()
        own_rabbitmq.start()
        eventually(lambda: all_recorded(stack, orders))
        eventually(lambda: stack.count_queued() == 0)
    assert_each_order_succeeded_once(stack, orders)
    assert stack.dead_letters() == []


def test_consumers_killed_again_and_again_apply_every_claim_exactly_once(stack: Stack, processes: Processes) -> None:
    orders = range(400)
    stack.publish([*both_statuses(orders), *both_statuses(range(0, 400, 7))])
    for _ in range(3):
        seen = stack.count_claims()
        consumer = start_consumer(stack, processes)
        consumer.wait_until(lambda seen: stack.count_claims() > seen, seen)
        consumer.kill()
    last = start_consumer(stack, processes)
    last.wait_until(lambda: all_recorded(stack, orders) and stack.count_queued() == 0)
    assert last.terminate() == 0
    assert_each_order_succeeded_once(stack, orders)
    assert stack.dead_letters() == []


def start_consumer(stack: Stack, processes: Processes) -> Process:
    """The real command."""
    file = stack.folder / "settings.toml"
    file.write_text(f'data_directory = "{stack.settings.data_directory}"\n{SETTINGS}')
    environment = {"AMQP_URL": "", "DATABASE_URL": ""}
    if stack.settings.broker.urls:
        environment["AMQP_URL"] = stack.settings.broker.urls[0].reveal()
    if stack.settings.database_url:
        environment["DATABASE_URL"] = stack.settings.database_url.reveal()
    return processes.start("--config", str(file), "run", "ledger", environment=environment, name="ledger")
