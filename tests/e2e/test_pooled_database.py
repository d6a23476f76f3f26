"""Every role on a PgBouncer that pools by transaction: what it does on PostgreSQL, it does through the pooler."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from service.ledger.announcements import Announcement
from tests.support.api import ApiCaller
from tests.support.callbacks import Load
from tests.support.deployment import Deployment, Place, assert_told_once, await_claims, await_events
from tests.support.downstream import Downstream
from tests.support.gateway import AES_KEY, AskedGateway
from tests.support.postgresql import Database, PgBouncer
from tests.support.processes import answers
from tests.support.waiting import eventually

# Two of each that share work, so that leases and claims meet in the sessions that the pooler gives out.
ROLES = ("ledger", "ledger-2", "dispatcher", "dispatcher-2", "inquirer", "inquirer-2", "api")
# A schema of the ledger's own, in a database that others use as well.
IN_SCHEMA = "options=-csearch_path%3Dpayments"
ASKED = [f"asked-{number}" for number in range(20)]

SETTINGS = f"""
[inquirer]
poll_seconds = 0.1

[merchants.asked]
pay_types = ["bank"]
amount_unit = "yuan"
required_trust = "query"
token_keys = [{{{{ kid = "k1", key = "a token key of asked for tests only" }}}}]
gateway = {{{{ url = "{{gateway_url}}", ua = "ASKED", aes_key = "{AES_KEY}", timeout_seconds = 5.0 }}}}
"""


@pytest.fixture
def gateway() -> Iterator[AskedGateway]:
    with AskedGateway(lambda _order: "success") as gateway:
        yield gateway


@pytest.fixture
def deployment(
    own_shop: Downstream,
    tmp_path: Path,
    amqp_url: str,
    postgresql: Database,
    pgbouncer: PgBouncer,
    gateway: AskedGateway,
) -> Iterator[Deployment]:
    with psycopg.connect(pgbouncer.url_of(postgresql.url)) as connection:
        connection.execute("CREATE SCHEMA payments")
    place = Place(
        amqp_url=amqp_url,
        database_url=f"{postgresql.url}?{IN_SCHEMA}",
        pooler_url=f"{pgbouncer.url_of(postgresql.url)}?{IN_SCHEMA}",
    )
    settings = SETTINGS.format(gateway_url=gateway.url)
    with Deployment(folder=tmp_path, place=place, downstreams={"shop": own_shop}, more_settings=settings) as deployment:
        deployment.prepare()
        yield deployment


def test_every_role_does_its_work_through_a_pooler(
    deployment: Deployment, own_shop: Downstream, gateway: AskedGateway
) -> None:
    api = ApiCaller(url=deployment.give_api())
    deployment.announce(
        Announcement(merchant="asked", biz_order_no=order, answer_due_at=datetime.now(UTC)) for order in ASKED
    )
    deployment.start("receiver", *ROLES)
    deployment.wait_until_receiving()
    deployment.role("api").wait_until(lambda: answers(f"{api.url}/healthz"))

    with Load(sender=deployment.sender, make_callback=deployment.callback, prefix="pooled") as load:
        load.wait_for_acknowledgements(100)
    await_claims(load.acknowledged, ledger=deployment.ledger, prefix="pooled")
    await_events(load.acknowledged, ledger=deployment.ledger, downstream=own_shop, prefix="pooled")

    eventually(lambda: all(own_shop.about(order) for order in ASKED))
    assert {order: len(times) for order, times in gateway.asked().items()} == dict.fromkeys(ASKED, 1)

    assert api.announce({"merchant": "acme", "biz_order_no": "by-api"}).status == 200
    assert api.get("/v1/orders/acme/by-api").status == 200
    api.close()

    for command in (
        ("orders", "list"),
        ("report", "--day", "2026-01-01"),
        ("endpoints", "list"),
        ("prune", "--keep-days", "1"),
    ):
        done = deployment.command(*command)
        assert done.returncode == 0, done.stderr
    assert_told_once(own_shop, output=deployment.output)
    assert '"event": "dependency_unavailable"' not in deployment.output
    assert "Traceback" not in deployment.output
