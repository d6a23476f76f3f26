"""The database goes away: receiving goes on, nothing is lost, nothing is blamed."""

from collections.abc import Callable
from time import monotonic

from tests.support.callbacks import Load
from tests.support.deployment import ROLES, Deployment, Place, await_claims, await_events
from tests.support.downstream import Downstream
from tests.support.postgresql import Database

# Longer than the dispatcher's leases, which run out meanwhile.
_OUTAGE_SECONDS = 5


def test_an_outage_of_postgresql_loses_nothing_and_dead_letters_nothing(
    deploy: Callable[..., Deployment], amqp_url: str, own_postgresql: Database, own_shop: Downstream
) -> None:
    deployment = deploy(Place(amqp_url=amqp_url, database_url=own_postgresql.url))
    deployment.start(*ROLES)
    deployment.wait_until_receiving()
    with Load(
        sender=deployment.sender, make_callback=deployment.callback, prefix="away", threads=3, pause_seconds=0.3
    ) as load:
        load.wait_for_acknowledgements(20)
        own_postgresql.stop()
        ends_at = monotonic() + _OUTAGE_SECONDS
        while monotonic() < ends_at:
            assert [answer for answer in load.wait_for_answers(10) if not answer.acknowledged] == []
        own_postgresql.start()
        load.wait_for_acknowledgements(20)
    await_claims(load.acknowledged, ledger=deployment.ledger, prefix="away")
    await_events(load.acknowledged, ledger=deployment.ledger, downstream=own_shop, prefix="away")
    assert all(deployment.role(role).running for role in ROLES)
    deployment.assert_no_dead_letters()
    assert "Traceback" not in deployment.output
