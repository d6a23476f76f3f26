"""The broker goes away: definite failures or a spool, never a promise that is not kept."""

import json
from collections.abc import Callable

import pytest

from tests.support.callbacks import Load
from tests.support.deployment import ROLES, Deployment, Place, await_claims, await_events
from tests.support.downstream import Downstream
from tests.support.postgresql import Database
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

_ANSWERS_DURING_OUTAGE = 100


@pytest.mark.parametrize("spool", [False, True], ids=["spool-off", "spool-on"])
def test_every_acknowledged_callback_outlives_a_killed_broker(
    deploy: Callable[..., Deployment], own_rabbitmq: RabbitMQ, postgresql: Database, own_shop: Downstream, spool: bool
) -> None:
    deployment = deploy(Place(amqp_url=own_rabbitmq.url, database_url=postgresql.url), spool=spool)
    deployment.start(*ROLES)
    deployment.wait_until_receiving()
    with Load(sender=deployment.sender, make_callback=deployment.callback, prefix="broker") as load:
        load.wait_for_acknowledgements(30)
        own_rabbitmq.kill()
        # What was under way at the kill is answered too before the count begins.
        load.wait_for_answers(8)
        meanwhile = load.wait_for_answers(_ANSWERS_DURING_OUTAGE)
        # What is in the spool must outlive this, and a receiver that finds no broker must start.
        deployment.kill("receiver")
        deployment.start("receiver")
        deployment.wait_until_receiving()
        own_rabbitmq.start()
        load.wait_for_acknowledgements(30)
    assert {(answer.status, answer.body) for answer in meanwhile} == {(200, b"success") if spool else (503, b"fail")}
    await_claims(load.acknowledged, ledger=deployment.ledger, prefix="broker")
    await_events(load.acknowledged, ledger=deployment.ledger, downstream=own_shop, prefix="broker")
    assert all(deployment.role(role).running for role in ROLES)
    deployment.assert_no_dead_letters()


def test_running_roles_give_a_broker_that_has_lost_everything_its_queues_again(
    deploy: Callable[..., Deployment], own_rabbitmq: RabbitMQ, postgresql: Database, own_shop: Downstream
) -> None:
    deployment = deploy(Place(amqp_url=own_rabbitmq.url, database_url=postgresql.url))
    deployment.start(*ROLES)
    deployment.wait_until_receiving()
    before = deployment.sender.send(deployment.callback("lost-before"))
    assert before.acknowledged
    # Its event has gone to the exchange that is lost, too.
    await_claims([before.callback], ledger=deployment.ledger, prefix="lost")
    await_events([before.callback], ledger=deployment.ledger, downstream=own_shop, prefix="lost")

    own_rabbitmq.clear()

    after = deployment.callback("lost-after")
    eventually(lambda: deployment.sender.send(after).acknowledged)
    await_claims([before.callback, after], ledger=deployment.ledger, prefix="lost")
    await_events([before.callback, after], ledger=deployment.ledger, downstream=own_shop, prefix="lost")


def test_every_role_starts_without_a_broker_and_finds_it_when_it_comes(
    deploy: Callable[..., Deployment], own_rabbitmq: RabbitMQ, postgresql: Database, own_shop: Downstream
) -> None:
    deployment = deploy(Place(amqp_url=own_rabbitmq.url, database_url=postgresql.url))
    own_rabbitmq.stop()
    deployment.start(*ROLES)
    deployment.wait_until_receiving()
    early = deployment.sender.send(deployment.callback("early"))
    assert (early.status, early.body) == (503, b"fail")
    eventually(lambda: deployment.role("ledger").output.count("waiting_to_start") >= 1)
    # Webhooks need no broker.
    eventually(lambda: deployment.role("dispatcher").output.count("topology_declaration_failed") == 1)

    own_rabbitmq.start()
    eventually(lambda: deployment.sender.send(early.callback).acknowledged)
    eventually(lambda: own_shop.about("early"))
    assert all(deployment.role(role).running for role in ROLES)
    lines = [json.loads(line) for line in deployment.output.splitlines() if line.startswith("{")]
    assert [line for line in lines if line["event"] == "broker_lost" and "Connection refused" in line["reason"]]
    assert not [line for line in lines if line.get("logger", "").startswith("pika")]
