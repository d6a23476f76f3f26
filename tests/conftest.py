"""Real servers and real processes, for every test that wants them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import find_free_port
from tests.support.postgresql import PostgreSQL
from tests.support.processes import Processes
from tests.support.rabbitmq import RabbitMQ


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An empty PostgreSQL database, and the cluster it lives in."""

    #: For SQLAlchemy.
    url: str
    cluster: PostgreSQL

    def start(self) -> None:
        """Start the whole cluster again."""
        self.cluster.start()

    def stop(self) -> None:
        """Shut the whole cluster down in good order."""
        self.cluster.stop()

    def kill(self) -> None:
        """Kill the whole cluster."""
        self.cluster.kill()


@pytest.fixture
def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    return find_free_port()


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """The broker all tests share; leave it running. `amqp_url` is a place of one's own in it."""
    with RabbitMQ() as broker:
        yield broker


@pytest.fixture
def amqp_url(rabbitmq: RabbitMQ) -> str:
    """A new, empty virtual host of the shared broker."""
    return rabbitmq.create_virtual_host()


@pytest.fixture(scope="session")
def _broker_of_fault_tests() -> Iterator[RabbitMQ]:
    with RabbitMQ() as broker:
        yield broker


@pytest.fixture
def own_rabbitmq(_broker_of_fault_tests: RabbitMQ) -> RabbitMQ:
    """An empty broker that the test may stop, kill, freeze and fill, and leave in any state."""
    broker = _broker_of_fault_tests
    if not broker.running:
        broker.start()
    broker.clear()
    return broker


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[PostgreSQL]:
    """The cluster all tests share; leave it running."""
    with PostgreSQL() as cluster:
        yield cluster


@pytest.fixture
def postgresql(postgresql_cluster: PostgreSQL) -> Database:
    """A new, empty database in the shared cluster."""
    return Database(url=postgresql_cluster.create_database(), cluster=postgresql_cluster)


@pytest.fixture(scope="session")
def _cluster_of_fault_tests() -> Iterator[PostgreSQL]:
    with PostgreSQL() as cluster:
        yield cluster


@pytest.fixture
def own_postgresql(_cluster_of_fault_tests: PostgreSQL) -> Database:
    """An empty database in a cluster that the test may stop and kill, and leave in any state."""
    cluster = _cluster_of_fault_tests
    if not cluster.running:
        cluster.start()
    return Database(url=cluster.create_database(), cluster=cluster)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts command lines of this project; whatever still runs after the test is killed."""
    started = Processes(folder=tmp_path)
    yield started
    started.kill_all()
