"""Brokers are lost one at a time under load: what was acknowledged is recorded and told, once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.callbacks import Load
from tests.support.deployment import ROLES, Deployment, Place, await_claims, await_events
from tests.support.downstream import Downstream
from tests.support.postgresql import Database
from tests.support.rabbitmq import RabbitMQCluster


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


_NODES = range(3)

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def load(deployment: Deployment) -> Load:
    return Load(sender=deployment.sender, make_callback=deployment.callback, prefix="cluster")


def assert_nothing_is_lost(load: Load, deployment: Deployment, shop: Downstream) -> None:
    assert max(answer.seconds for answer in load.answers) < 3.0, "an answer comes in time, whatever it is"
    assert {(answer.status, answer.body) for answer in load.answers} <= {(200, b"success"), (503, b"fail")}
    await_claims(load.acknowledged, ledger=deployment.ledger, prefix="cluster")
    await_events(load.acknowledged, ledger=deployment.ledger, downstream=shop, prefix="cluster")
    assert all(deployment.role(role).running for role in ROLES)
    deployment.assert_no_dead_letters()


@pytest.mark.parametrize(
    ("lose", "bring_back"),
    [
        pytest.param(RabbitMQCluster.cut_off, RabbitMQCluster.join_again, id="cut-off"),
        pytest.param(RabbitMQCluster.kill, RabbitMQCluster.start_again, id="killed"),
    ],
)
def test_callbacks_go_on_without_any_one_node_and_none_is_lost_or_told_twice(
    cluster: RabbitMQCluster,
    deployment: Deployment,
    load: Load,
    shop: Downstream,
    lose: Callable[[RabbitMQCluster, int], None],
    bring_back: Callable[[RabbitMQCluster, int], None],
) -> None:
    # Each in turn: among them the leader of every queue, and whichever node a role is connected to.
    with load:
        load.wait_for_acknowledgements(30)
        for number in _NODES:
            lose(cluster, number)
            load.wait_for_acknowledgements(60)
            bring_back(cluster, number)
            load.wait_for_acknowledgements(30)
    assert_nothing_is_lost(load, deployment, shop)


def test_without_a_majority_nothing_is_acknowledged_and_the_rest_goes_on_once_there_is_one_again(
    cluster: RabbitMQCluster, deployment: Deployment, load: Load, shop: Downstream
) -> None:
    with load:
        load.wait_for_acknowledgements(30)
        for number in (0, 1):
            cluster.kill(number)
        # What was under way is answered too before the count begins.
        load.wait_for_answers(8)
        assert {answer.status for answer in load.wait_for_answers(60)} == {503}
        for number in (0, 1):
            cluster.nodes[number].begin()
        for number in (0, 1):
            cluster.nodes[number].wait_until_answering()
        load.wait_for_acknowledgements(30)
    assert_nothing_is_lost(load, deployment, shop)


def test_a_memory_alarm_on_one_node_is_a_definite_failure_everywhere_until_it_ends(
    cluster: RabbitMQCluster, deployment: Deployment, load: Load, shop: Downstream
) -> None:
    with load:
        load.wait_for_acknowledgements(30)
        cluster.nodes[1].block_publishers()
        load.wait_for_answers(8)
        assert {answer.status for answer in load.wait_for_answers(60)} == {503}
        cluster.nodes[1].unblock_publishers()
        load.wait_for_acknowledgements(30)
    assert_nothing_is_lost(load, deployment, shop)
