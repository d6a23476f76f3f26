"""Real servers and real processes, for every test that wants them."""

import signal
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.ledger import LedgerDatabases
from tests.support.postgresql import Database, PgBouncer, PostgreSQL
from tests.support.processes import Describable, Processes, find_free_port
from tests.support.rabbitmq import RabbitMQ

# How long an example takes says who else is on the machine. On CI, hypothesis tries the same examples each time.
settings.register_profile("untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_sessionstart() -> None:
    """Let SIGTERM, which a cancelled CI job gets, end the tests as Ctrl-C does: with everything cleaned up.

    And SIGINT too: who is started in the background ignores it, and what the tests start would inherit that.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)


# pytest-timeout limits a test's three phases as one. Where its time is up between two of them, while a failure is being
# reported, its exception ends the worker and with it the whole run. So each phase is limited by itself.
_TIME_LIMIT = pytest.StashKey[object]()


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """Keep the limit of the whole test for its phases."""
    if settings.func_only or _TIME_LIMIT in item.stash:
        return None  # one of the phases begins: pytest-timeout sets its timer
    item.stash[_TIME_LIMIT] = settings
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Limit the setup."""
    yield from _limit_time(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Limit the test itself."""
    yield from _limit_time(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Limit the teardown."""
    yield from _limit_time(item)


def _limit_time(item: pytest.Item) -> Generator[None, None, None]:
    if _TIME_LIMIT not in item.stash:
        yield
        return
    item.config.hook.pytest_timeout_set_timer(item=item, settings=item.stash[_TIME_LIMIT])
    try:
        yield
    finally:
        item.config.hook.pytest_timeout_cancel_timer(item=item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers and processes of a failed test wrote last."""
    report = yield
    if report.failed:
        for value in _distinct(getattr(item, "funcargs", {}).values()):
            if isinstance(value, Describable):
                report.sections.append((f"Output of {type(value).__name__}", value.describe()))
    return report


def _distinct(values: Iterable[object]) -> Iterable[object]:
    return {id(value): value for value in values}.values()


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
    if broker.running:
        broker.thaw()
    else:
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
def ledger_databases() -> LedgerDatabases:
    """Makes empty ledgers with this release's schema in PostgreSQL."""
    return LedgerDatabases()


@pytest.fixture(scope="session")
def pgbouncer(postgresql_cluster: PostgreSQL) -> Iterator[PgBouncer]:
    """The pooler in front of the cluster that all tests share; leave it running."""
    with PgBouncer(server_port=postgresql_cluster.port) as pooler:
        yield pooler


@pytest.fixture(scope="session")
def _cluster_of_fault_tests() -> Iterator[PostgreSQL]:
    with PostgreSQL() as cluster:
        yield cluster


@pytest.fixture
def own_postgresql(_cluster_of_fault_tests: PostgreSQL) -> Database:
    """An empty database in a cluster that the test may stop and kill, and leave in any state."""
    cluster = _cluster_of_fault_tests
    if cluster.running:
        cluster.thaw()
    else:
        cluster.start()
    return Database(url=cluster.create_database(), cluster=cluster)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts command lines of this project; whatever still runs after the test is killed."""
    started = Processes(folder=tmp_path)
    yield started
    started.kill_all()
