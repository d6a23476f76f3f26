"""Scaling out: any number of processes of a role, side by side."""

from tests.support.callbacks import Load
from tests.support.deployment import Deployment, assert_told_once, await_claims, await_events
from tests.support.downstream import Downstream
from tests.support.waiting import eventually

#: Processes, and what each logs once it has done something.
_PROCESSES = {
    "ledger": "claims_recorded",
    "ledger-2": "claims_recorded",
    "ledger-3": "claims_recorded",
    "dispatcher": "event_delivered",
    "dispatcher-2": "event_delivered",
    "dispatcher-3": "event_delivered",
}


def test_several_ledgers_and_dispatchers_share_the_work_and_tell_everything_once_and_in_order(
    fresh_deployment: Deployment, own_shop: Downstream
) -> None:
    deployment = fresh_deployment
    deployment.start("receiver", *_PROCESSES)
    deployment.wait_until_receiving()
    with Load(sender=deployment.sender, make_callback=deployment.callback, prefix="shared") as load:
        eventually(lambda: all(word in deployment.role(name).output for name, word in _PROCESSES.items()))
        load.wait_for_acknowledgements(100)
    await_claims(load.acknowledged, ledger=deployment.ledger, prefix="shared")
    await_events(load.acknowledged, ledger=deployment.ledger, downstream=own_shop, prefix="shared")
    assert_told_once(own_shop, output=deployment.output)
