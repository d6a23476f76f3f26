"""The power of the broker's and the database's machines is cut: what they had not synced is gone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from tests.support.callbacks import Load
from tests.support.deployment import ROLES, Deployment, Place, await_claims, await_events
from tests.support.disks import Disk
from tests.support.downstream import Downstream
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ


class Machines:
    """RabbitMQ and PostgreSQL, each on a disk of its own."""

    def __init__(self, held: ExitStack) -> None:
        self.rabbitmq = held.enter_context(RabbitMQ(disk=held.enter_context(Disk(mebibytes=160))))
        disk = held.enter_context(Disk(mebibytes=256))
        self.postgresql = held.enter_context(PostgreSQL(durable=True, disk=disk))

    def describe(self) -> str:
        return f"{self.rabbitmq.describe()}\n\n{self.postgresql.describe()}"


@pytest.fixture
def machines() -> Iterator[Machines]:
    with ExitStack() as held:
        yield Machines(held)


def test_every_acknowledged_callback_outlives_power_cuts_of_the_broker_and_the_database(
    deploy: Callable[..., Deployment], machines: Machines, own_shop: Downstream
) -> None:
    rabbitmq, postgresql = machines.rabbitmq, machines.postgresql
    deployment = deploy(Place(amqp_url=rabbitmq.url, database_url=postgresql.create_database()))
    deployment.start(*ROLES)
    deployment.wait_until_receiving()
    with Load(sender=deployment.sender, make_callback=deployment.callback, prefix="power") as load:
        load.wait_for_acknowledgements(10)
        rabbitmq.keep_queues()
        cuts: Sequence[Sequence[RabbitMQ | PostgreSQL]] = ([rabbitmq], [postgresql], [rabbitmq, postgresql])
        for cut in cuts:
            load.wait_for_acknowledgements(20)
            for server in cut:
                server.cut_power()
            load.wait_for_answers(8)
            for server in cut:
                server.start()
        load.wait_for_acknowledgements(20)

    await_claims(load.acknowledged, ledger=deployment.ledger, prefix="power")
    await_events(load.acknowledged, ledger=deployment.ledger, downstream=own_shop, prefix="power")
    assert all(deployment.role(role).running for role in ROLES)
    deployment.assert_no_dead_letters()
