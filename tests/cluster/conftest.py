"""The service as processes on a cluster of three brokers, each of which may be lost."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import Downstream
from tests.support.postgresql import Database
from tests.support.rabbitmq import RabbitMQCluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the deployment and the nodes of a failed test wrote last."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Deployment | RabbitMQCluster):
                report.sections.append((f"Output of the {type(value).__name__}", value.describe()))
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[RabbitMQCluster]:
    """Three nodes; leave them running and joined."""
    with RabbitMQCluster() as nodes:
        yield nodes


@pytest.fixture
def shop() -> Iterator[Downstream]:
    """The webhook endpoint of `deployment`."""
    with Downstream() as downstream:
        yield downstream


@pytest.fixture
def deployment(
    cluster: RabbitMQCluster, postgresql: Database, shop: Downstream, tmp_path: Path
) -> Iterator[Deployment]:
    """A running deployment on a virtual host of the cluster."""
    place = Place(amqp_url=cluster.create_virtual_host(), database_url=postgresql.url)
    with Deployment(folder=tmp_path, place=place, downstreams={"shop": shop}) as one:
        one.prepare()
        one.start(*ROLES)
        one.wait_until_receiving()
        yield one
