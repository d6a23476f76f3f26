"""compose.yaml's own services, run as the file says: an order is charged, called back, asked for, and told downstream.

Without Docker: podman, and private servers in the place of the images of RabbitMQ and PostgreSQL.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import ComposeRun, make_secrets, own_services
from tests.support.containers import ContainerTools, Image, own_network
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(400, func_only=True)

_PAYER = {
    "name": "张三",
    "id_card_number": "11010519491231002X",
    "mobile": "13800138000",
    "bank_card_number": "6222021234567890128",
}


@pytest.fixture
def services(image: Image, container_tools: ContainerTools, tmp_path: Path) -> Iterator[ComposeRun]:
    """All of them, started in the file's order."""
    secrets = make_secrets(tmp_path)
    with own_network(), RabbitMQ() as rabbitmq, PostgreSQL() as postgresql:
        # The names lead to this machine; the passwords would not.
        (secrets / "amqp_url").write_text(rabbitmq.url)
        (secrets / "database_url").write_text(postgresql.create_database())
        for folder in (tmp_path, secrets):
            folder.chmod(0o755)  # the user of the containers is nobody here
        run = ComposeRun(tools=container_tools, image=image.name, secrets=secrets, folder=tmp_path)
        try:
            yield run
        finally:
            run.remove_all()


def test_an_order_goes_all_the_way(services: ComposeRun) -> None:
    assert services.start("migrate").wait() == 0
    roles = {name: services.start(name) for name in own_services() if name != "migrate"}
    for name in services.watched:
        eventually(services.healthy, name, why=roles[name].describe)

    withhold = ("gateway", "withhold", "--order", "DK-1-success", "--amount", "100.00", "--from", "-")
    roles["api"].execute("payment-callbacks", *withhold, given=json.dumps(_PAYER))

    applied = eventually(lambda: _succeeded(roles["subscriber"].output))
    assert [line["id"].split("/")[1] for line in applied] == ["DK-1-success"]

    for role in roles.values():
        assert role.stop() == 0, role.describe()


def _succeeded(output: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("done") == "applied" and line["type"] == "payment.succeeded"]
