"""The service's parts on real servers: ledgers, queues, gateways and receivers, closed after each test."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, func, select

from service.config.secrets import Secret
from service.config.settings import GatewaySettings
from service.domain.events import EventType
from service.domain.refused_withholds import RefusalRules
from service.gateway.client import GatewayClient
from service.gateway.requests import AmountUnit, SingleWithholdArgs
from service.ledger.attention import AttentionFilter, AttentionKind, AttentionList
from service.ledger.database import make_engine
from service.ledger.inquiry_limits import InquiryRules
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.outbox import Outbox
from service.ledger.store import LedgerStore
from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.interface import Subscriber
from service.messaging.rabbitmq import topology
from service.messaging.rabbitmq.subscriber import RabbitSubscriber
from service.messaging.sqlite.queue import EmbeddedQueue, EmbeddedSubscriber
from service.sandbox.server import SandboxServer
from service.sandbox.settings import Account, SandboxSettings, Timing
from tests.support import ledger
from tests.support.gateway import AES_KEY, WITHHOLD, GatewayCaller
from tests.support.http_server import Answer, ScriptedServer, make_certificate
from tests.support.ledger import Clock, Count, LedgerDatabases, MakeInquiryQueue, MakeStore, make_sqlite_ledger
from tests.support.messages import Connect, Subscribe, rabbit_publisher
from tests.support.processes import Processes, find_free_port
from tests.support.receiver import ReceiverProcess
from tests.support.waiting import HANGS_AFTER_SECONDS

_THREADS = 16

# ---- databases and ledgers --------------------------------------------------------------------------------------


@pytest.fixture(params=["postgresql", "sqlite"])
def ledger_url(request: pytest.FixtureRequest, ledger_databases: LedgerDatabases, tmp_path: Path) -> Iterator[str]:
    """An empty ledger, PostgreSQL and SQLite in turn; "pooled" for who wants PostgreSQL behind a pooler as well."""
    if request.param == "sqlite":
        yield make_sqlite_ledger(tmp_path / "ledger.db")
        return
    with ledger_databases.lend(request.getfixturevalue("postgresql_cluster")) as url:
        yield request.getfixturevalue("pgbouncer").url_of(url) if request.param == "pooled" else url


@pytest.fixture(params=["postgresql", "sqlite"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables, PostgreSQL and SQLite in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("postgresql").url
    return url


@pytest.fixture
def pooled(request: pytest.FixtureRequest, ledger_url: str) -> bool:
    """Whether `ledger_url` goes through a pooler."""
    return bool(request.node.callspec.params["ledger_url"] == "pooled")


@pytest.fixture
def ledger_engine(ledger_url: str, pooled: bool) -> Iterator[Engine]:
    """A ledger with a connection for each thread of a test."""
    engine = make_engine(ledger_url, pool_size=_THREADS, pooled=pooled)
    yield engine
    ledger.dispose(engine)


@pytest.fixture
def clock() -> Clock:
    """Stands at noon, when the claims of `tests.support.claims` begin."""
    return Clock()


@pytest.fixture
def make_store(ledger_engine: Engine, clock: Clock) -> MakeStore:
    """`tests.support.ledger.make_store` on this database and clock."""
    return partial(ledger.make_store, ledger_engine, clock=clock)


@pytest.fixture
def store(make_store: MakeStore) -> LedgerStore:
    """A ledger that requires CAPABILITY and can ask."""
    return make_store()


@pytest.fixture
def make_inquiry_queue(ledger_engine: Engine, clock: Clock) -> MakeInquiryQueue:
    """Makes what is to be asked of the gateway of "acme", by limits that hinder nobody unless told otherwise."""

    def make(store: LedgerStore, *, refusal_rules: RefusalRules | None = None, **limits: float) -> InquiryQueue:
        values: dict[str, Any] = {
            "min_interval_seconds": 10,
            "max_per_day": 1000,
            "max_per_minute": 60_000,
            "overdue_share": 0.5,
            "first_repeat_seconds": 20,
            "max_repeat_seconds": 3600,
        }
        rules = InquiryRules(**{**values, **limits})
        return InquiryQueue(
            engine=ledger_engine,
            store=store,
            rules={"acme": rules},
            refusals=ledger.end_refused(store, refusal_rules),
            clock=lambda _: clock(),
            chance=lambda: 0.0,
        )

    return make


@pytest.fixture
def outbox(ledger_engine: Engine, clock: Clock) -> Outbox:
    """The outbox of the same database."""
    return Outbox(engine=ledger_engine, clock=lambda _: clock())


@pytest.fixture
def attention(ledger_engine: Engine, clock: Clock) -> AttentionList:
    """What waits for a person in the same database."""
    return AttentionList(engine=ledger_engine, clock=lambda _: clock())


@pytest.fixture
def parked_inquiries(attention: AttentionList) -> Callable[[], int]:
    """Counts the inquiries that wait for a person."""
    return lambda: len(attention.list(AttentionFilter(kind=AttentionKind.PARKED_INQUIRY), limit=100))


@pytest.fixture
def all_types() -> frozenset[EventType]:
    """Every type of event, conflicts included."""
    return frozenset(EventType)


@pytest.fixture
def count(ledger_engine: Engine) -> Count:
    """Counts the rows of a table."""

    def rows(table: Table, *conditions: Any) -> int:
        with ledger_engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()

    return rows


# ---- queues -----------------------------------------------------------------------------------------------------


@pytest.fixture
def declared_url(amqp_url: str) -> str:
    """A virtual host of the shared broker, with our topology in it."""
    topology.declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
    return amqp_url


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes publishers to RabbitMQ; all are closed after the test."""
    made: list[BlockingPublisher] = []

    def make(*urls: str, max_in_flight: int = 1000) -> BlockingPublisher:
        made.append(rabbit_publisher(*urls, connection_name="test-publisher", max_in_flight=max_in_flight))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(timeout_seconds=3)


@pytest.fixture
def subscribe(connect: Connect) -> Iterator[Subscribe]:
    """Makes subscribers of RabbitMQ; all are closed after the test."""
    made: list[RabbitSubscriber] = []

    def make(*urls: str, prefetch: int = 100, longest_silence_seconds: float = 30.0) -> RabbitSubscriber:
        made.append(
            RabbitSubscriber(
                urls=urls,
                connection_name="test-subscriber",
                prefetch=prefetch,
                dead_letter_publisher=connect(*urls),
                longest_silence_seconds=longest_silence_seconds,
            )
        )
        return made[-1]

    yield make
    for subscriber in made:
        subscriber.close()


# ---- gateways ---------------------------------------------------------------------------------------------------


@pytest.fixture
def start_sandbox() -> Iterator[Callable[..., SandboxServer]]:
    """Starts sandbox gateways with the account ACME. `settings` are what differs from quick ones."""
    with ExitStack() as stack:

        def start(
            *,
            dialect: Mapping[str, str] | None = None,
            amount_unit: str = "yuan",
            aes_key: str = AES_KEY,
            **settings: Any,
        ) -> SandboxServer:
            account = Account(
                ua="ACME",
                aes_key=Secret(aes_key),
                pay_types=frozenset({"baofoo_001"}),
                dialect=dialect or {},
                amount_unit=amount_unit,
            )
            timing = Timing(settle_seconds=0.05, stall_seconds=20.0, repeat_after_seconds=(0.05, 0.05, 0.05))
            values = {"accounts": (account,), "bind": "127.0.0.1:0", "timing": timing, **settings}
            return stack.enter_context(
                SandboxServer(settings=SandboxSettings(**values), clock=lambda: datetime.now(UTC))
            )

        yield start


@pytest.fixture
def call() -> Callable[[SandboxServer], GatewayCaller]:
    """Makes the caller ACME of a sandbox."""
    return lambda server: GatewayCaller(url=server.url, ua="ACME", key=AES_KEY)


@pytest.fixture
def make_client() -> Callable[..., GatewayClient]:
    """Makes the service's clients of a gateway, with the account ACME."""

    def make(url: str, **changes: Any) -> GatewayClient:
        unit = changes.pop("amount_unit", AmountUnit.YUAN)
        settings = GatewaySettings(**{"url": url, "ua": "ACME", "aes_key": Secret(AES_KEY), **changes})
        return GatewayClient(
            settings=settings, amount_unit=unit, pay_types={"baofoo_001"}, clock=lambda: datetime.now(UTC)
        )

    return make


@pytest.fixture
def args() -> Callable[..., SingleWithholdArgs]:
    """Makes good arguments of a withhold, but for what is given."""
    good = {name: value for name, value in WITHHOLD.items() if name != "biz_data"}
    return lambda biz_order_no, **changes: SingleWithholdArgs(**{**good, "biz_order_no": biz_order_no, **changes})


@pytest.fixture
def listener() -> Iterator[ScriptedServer]:
    """Whoever owns a notify_url: it acknowledges every callback."""
    with ScriptedServer(lambda _: Answer(body=b"success")) as listening:
        yield listening


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1, with its key; nobody vouches for it."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: Path) -> Iterator[ScriptedServer]:
    """A server with that certificate."""
    with ScriptedServer(certificate=certificate) as made:
        yield made


# ---- receivers --------------------------------------------------------------------------------------------------


def _receiver_starter(processes: Processes, folder: Path) -> Callable[..., ReceiverProcess]:
    def start(*options: str, amqp_url: str | None = None) -> ReceiverProcess:
        port, file = find_free_port(), folder / "queue.sqlite3"
        queue = ["--queue-file", str(file)]
        if amqp_url is not None:
            topology.declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
            queue = ["--amqp-url", amqp_url]

        def subscribe() -> Subscriber:
            if amqp_url is not None:
                never_used = rabbit_publisher(amqp_url, connection_name="test")
                return RabbitSubscriber(
                    urls=[amqp_url], connection_name="test", prefetch=200, dead_letter_publisher=never_used
                )
            return EmbeddedSubscriber(queue=EmbeddedQueue(file))

        bind = ("--bind", f"127.0.0.1:{port}")
        process = processes.start_module("tests.support.receiver", *bind, *queue, *options, name="receiver")
        receiver = ReceiverProcess(process=process, port=port, subscribe=subscribe)
        process.wait_until(receiver.is_ready)
        return receiver

    return start


@pytest.fixture
def start_receiver(processes: Processes, tmp_path: Path) -> Callable[..., ReceiverProcess]:
    """Starts a receiver: on the embedded queue, or on RabbitMQ where `amqp_url` is given."""
    return _receiver_starter(processes, tmp_path)


@pytest.fixture(scope="module")
def shared_receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    """On the embedded queue, with everything at its default; leave it running."""
    folder = tmp_path_factory.mktemp("receiver")
    processes = Processes(folder=folder)
    try:
        yield _receiver_starter(processes, folder)()
    finally:
        processes.kill_all()


@pytest.fixture
def receiver(start_receiver: Callable[..., ReceiverProcess]) -> ReceiverProcess:
    """On the embedded queue, with everything at its default."""
    return start_receiver()


@pytest.fixture(params=["embedded", "rabbitmq"])
def receiver_on_either(
    request: pytest.FixtureRequest, start_receiver: Callable[..., ReceiverProcess]
) -> ReceiverProcess:
    """On the embedded queue, and on RabbitMQ."""
    return start_receiver(amqp_url=request.getfixturevalue("amqp_url") if request.param == "rabbitmq" else None)
