"""Sudden death of any role, at any moment, under load."""

import random

import pytest

from tests.support.deployment import Deployment
from tests.support.downstream import Downstream
from tests.support.load import Load
from tests.support.reckoning import await_claims, await_events

_VICTIMS = ("worker", "ledger", "master", "dispatcher")


@pytest.mark.timeout(240)
def test_whoever_is_killed_every_acknowledged_callback_is_recorded_and_told_once(
    own_deployment: Deployment, own_shop: Downstream
) -> None:
    chance = random.Random(seed := random.randrange(2**32))
    print("seed", seed)
    # The ledger not last: on the embedded queue, what it held is another's only when its lease has run out.
    victims = chance.sample(_VICTIMS, len(_VICTIMS)) + chance.sample(_VICTIMS, len(_VICTIMS))
    with Load(sender=own_deployment.sender, make_callback=own_deployment.callback, prefix="killed") as load:
        for victim in victims:
            load.wait_for_acknowledgements(chance.randrange(5, 60))
            _kill_and_restart(own_deployment, victim)
        load.wait_for_acknowledgements(20)
    await_claims(load.acknowledged, ledger=own_deployment.ledger, prefix="killed", within_seconds=60)
    await_events(
        load.acknowledged, ledger=own_deployment.ledger, downstream=own_shop, prefix="killed", within_seconds=60
    )


def _kill_and_restart(deployment: Deployment, victim: str) -> None:
    match victim:
        case "worker":
            deployment.kill_worker()  # the master starts another
        case "master":
            deployment.kill_master()
            deployment.start_receiver_again()
        case role:
            deployment.kill(role)
            deployment.start(role)
