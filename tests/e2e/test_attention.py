"""What waits for a person beside the ledger, as the roles report it, on both foundations."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.deployment import ROLES, Deployment, Place
from tests.support.postgresql import Database
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually


def _waiting(deployment: Deployment) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(deployment.command("orders", "attention", "--json").stdout)["items"]
    return items


def test_the_queue_is_reported_and_is_unknown_once_no_ledger_process_runs(own_deployment: Deployment) -> None:
    eventually(lambda: own_deployment.ledger.depths().get("queue") == 0)
    assert own_deployment.role("ledger").terminate() == 0
    own_deployment.age_depths()
    (item,) = _waiting(own_deployment)
    assert item["id"] == "silent-reporter/queue"
    assert item["cause"].startswith("Unknown since ")
    assert "Waiting for a person now" in own_deployment.command("report").stdout
    own_deployment.start("ledger")
    eventually(lambda: _waiting(own_deployment) == [])


def test_a_spool_is_reported_through_the_broker_and_is_unknown_while_that_is_away(
    deploy: Callable[..., Deployment], own_rabbitmq: RabbitMQ, postgresql: Database
) -> None:
    deployment = deploy(Place(amqp_url=own_rabbitmq.url, database_url=postgresql.url), spool=True)
    deployment.start(*ROLES, module="tests.support.hasty_roles")
    deployment.wait_until_receiving()

    def spool() -> str:
        """The name of the spool; "" while it has not been reported empty."""
        depths = deployment.ledger.depths()
        return next((name for name, messages in depths.items() if name != "queue" and not messages), "")

    name = eventually(spool)
    own_rabbitmq.stop()
    assert deployment.sender.send(deployment.callback("spooled")).acknowledged

    def unknown() -> set[str]:
        deployment.age_depths()
        return {item["id"] for item in _waiting(deployment)}

    # What was measured before the broker went away may be recorded after that.
    eventually(lambda: unknown() == {f"silent-reporter/{name}", "silent-reporter/queue"})
    # Another process on the same disk, when the broker is back, is the same spool.
    deployment.kill("receiver")
    own_rabbitmq.start()
    deployment.start("receiver")
    eventually(lambda: deployment.ledger.order("spooled"))
    eventually(lambda: _waiting(deployment) == [])
    eventually(lambda: deployment.ledger.depths() == {"queue": 0, name: 0})
