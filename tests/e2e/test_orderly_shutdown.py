"""SIGTERM: what a release and a scale-down do all day."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.callbacks import Load
from tests.support.deployment import ROLES, Deployment, Place, await_claims, await_events
from tests.support.downstream import Downstream
from tests.support.processes import answers
from tests.support.waiting import eventually


def test_every_role_ends_with_zero_under_load_and_loses_no_acknowledged_callback(
    own_deployment: Deployment, own_shop: Downstream
) -> None:
    with Load(sender=own_deployment.sender, make_callback=own_deployment.callback, prefix="ended") as load:
        for role in ROLES:
            load.wait_for_acknowledgements(30)
            assert own_deployment.role(role).terminate() == 0
            own_deployment.start(role)
        own_deployment.wait_until_receiving()
        load.wait_for_acknowledgements(30)
    await_claims(load.acknowledged, ledger=own_deployment.ledger, prefix="ended")
    await_events(load.acknowledged, ledger=own_deployment.ledger, downstream=own_shop, prefix="ended")
    assert "Traceback" not in own_deployment.output


def test_run_all_supervises_every_role_and_leaves_none_behind(
    deploy: Callable[..., Deployment], own_shop: Downstream
) -> None:
    deployment = deploy(Place())
    deployment.start("all")
    deployment.wait_until_receiving("all")
    assert deployment.sender.send(deployment.callback("first")).acknowledged
    eventually(lambda: own_shop.about("first"))

    children = deployment.children("all")
    assert len(children) >= len(ROLES)
    for child in children:
        os.kill(child, signal.SIGKILL)
    eventually(lambda: deployment.sender.send(deployment.callback("second")).acknowledged)
    eventually(lambda: own_shop.about("second"))

    children = deployment.children("all")
    assert deployment.role("all").terminate() == 0
    assert [child for child in children if _lives(child)] == []
    # The workers of the master that was killed above notice it themselves.
    eventually(lambda: not answers(deployment.url + "/healthz"))


def test_children_of_a_killed_supervisor_end_by_themselves(
    deploy: Callable[..., Deployment], own_shop: Downstream
) -> None:
    deployment = deploy(Place())
    deployment.start("all")
    deployment.wait_until_receiving("all")
    assert deployment.sender.send(deployment.callback("first")).acknowledged
    eventually(lambda: own_shop.about("first"))
    children = deployment.children("all")
    deployment.role("all").signal(signal.SIGKILL)
    # They drain by themselves, all at once.
    eventually(lambda: not any(map(_lives, children)))
    eventually(lambda: not answers(deployment.url + "/healthz"))


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
