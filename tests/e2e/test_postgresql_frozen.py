"""The database hangs with its connections open: every role notices, holds, can be ended, and goes on when it thaws.

Its kernel acknowledges what is sent to it all the while, so nothing but the roles' own patience can end the wait.
"""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.ledger.announcements import Announcement
from tests.support.api import TOKEN, ApiCaller
from tests.support.callbacks import Load
from tests.support.deployment import TERMINAL, Deployment, Place, await_claims, await_events, first_arrivals
from tests.support.downstream import Downstream
from tests.support.gateway import AES_KEY, AskedGateway
from tests.support.postgresql import Database
from tests.support.processes import answers, find_free_port
from tests.support.waiting import eventually

ROLES_ON_THE_DATABASE = ("ledger", "dispatcher", "inquirer", "api")
ASKED_ORDERS = [f"asked-{number}" for number in range(20)]
#: Those that the gateway calls paid while the database is frozen for the first time.
HELD_ORDERS = set(ASKED_ORDERS[:10])

SETTINGS = f"""
[inquirer]
poll_seconds = 0.1

[api]
bind = "127.0.0.1:{{api_port}}"
[[api.tokens]]
name = "shop"
token = "{TOKEN}"
scopes = ["announce"]

[merchants.asked]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "query"
token_keys = [{{{{ kid = "k1", key = "a token key of asked for tests only" }}}}]
min_inquiry_interval_seconds = 1.0
first_inquiry_repeat_seconds = 1.0
max_inquiry_repeat_seconds = 1.0
gateway = {{{{ url = "{{gateway_url}}", ua = "ASKED", aes_key = "{AES_KEY}", timeout_seconds = 5.0 }}}}
"""


@pytest.fixture
def gateway() -> Iterator[AskedGateway]:
    """Says "pending" until it is told otherwise."""
    with AskedGateway(lambda _order: "pending") as gateway:
        yield gateway


@pytest.fixture
def api_url() -> str:
    return f"http://127.0.0.1:{find_free_port()}"


@pytest.fixture
def api(api_url: str) -> Iterator[ApiCaller]:
    caller = ApiCaller(url=api_url)
    yield caller
    caller.close()


@pytest.fixture
def deployment(
    own_shop: Downstream,
    tmp_path: Path,
    amqp_url: str,
    own_postgresql: Database,
    gateway: AskedGateway,
    api_url: str,
) -> Iterator[Deployment]:
    """Every role, with orders that are asked about again and again."""
    settings = SETTINGS.format(api_port=api_url.rpartition(":")[2], gateway_url=gateway.url)
    place = Place(amqp_url=amqp_url, database_url=own_postgresql.url)
    with Deployment(folder=tmp_path, place=place, downstreams={"shop": own_shop}, more_settings=settings) as deployment:
        deployment.prepare()
        deployment.announce(
            Announcement(merchant="asked", biz_order_no=order, answer_due_at=datetime.now(UTC))
            for order in ASKED_ORDERS
        )
        deployment.start("receiver")
        deployment.start(*ROLES_ON_THE_DATABASE, module="tests.support.hasty_roles")
        deployment.wait_until_receiving()
        deployment.role("api").wait_until(lambda: answers(f"{api_url}/healthz"))
        eventually(lambda: gateway.count() > len(ASKED_ORDERS))
        yield deployment


def test_a_frozen_postgresql_is_noticed_by_every_role_and_nothing_is_lost_or_told_twice(
    deployment: Deployment, own_postgresql: Database, own_shop: Downstream, gateway: AskedGateway, api: ApiCaller
) -> None:
    assert announces(api, "before")
    with Load(
        sender=deployment.sender, make_callback=deployment.callback, prefix="frozen", threads=3, pause_seconds=0.2
    ) as load:
        load.wait_for_acknowledgements(30)
        own_postgresql.freeze()
        await_trouble(deployment)
        refused = api.announce({"merchant": "acme", "biz_order_no": "meanwhile"})
        assert (refused.status, refused.value["outcome"]) == (503, "unknown")
        load.wait_for_acknowledgements(30)
        gateway.status_of = lambda order: "success" if order in HELD_ORDERS else "pending"
        own_postgresql.thaw()
        # The roles that held until now go on.
        eventually(lambda: set(ends_of_asked(own_shop)) == HELD_ORDERS)
        eventually(lambda: announces(api, "meanwhile"))

        own_postgresql.freeze()
        load.wait_for_acknowledgements(30)
        gateway.status_of = lambda _order: "success"
        roles = [deployment.role(role) for role in ROLES_ON_THE_DATABASE]
        for role in roles:
            role.signal(signal.SIGTERM)
        assert [role.wait() for role in roles] == [0] * len(roles)
        deployment.start(*ROLES_ON_THE_DATABASE)
        for role in roles:
            role.wait_until(lambda role: '"event": "waiting_to_start"' in role.output, role)
        own_postgresql.thaw()
        load.wait_for_acknowledgements(30)
    await_claims(load.acknowledged, ledger=deployment.ledger, prefix="frozen")
    await_events(load.acknowledged, ledger=deployment.ledger, downstream=own_shop, prefix="frozen")
    eventually(lambda: ends_of_asked(own_shop) == {order: ["succeeded"] for order in ASKED_ORDERS})
    deployment.role("api").wait_until(lambda: answers(f"{api.url}/healthz"))
    eventually(lambda: announces(api, "later"))
    deployment.assert_no_dead_letters()
    assert "Traceback" not in deployment.output


def announces(api: ApiCaller, order: str) -> bool:
    return api.announce({"merchant": "acme", "biz_order_no": order}).status == 200


def await_trouble(deployment: Deployment) -> None:
    for role in ("ledger", "dispatcher", "inquirer"):
        process = deployment.role(role)
        process.wait_until(lambda role: '"event": "dependency_unavailable"' in role.output, process)


def ends_of_asked(shop: Downstream) -> dict[str, list[str]]:
    """How each order has ended, as often as that was told."""
    ends = {
        order: [event.envelope["data"]["status"] for event in events if event.type in TERMINAL]
        for order, events in first_arrivals(shop, "asked").items()
    }
    return {order: statuses for order, statuses in ends.items() if statuses}
