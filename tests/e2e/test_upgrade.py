"""Rolling updates under load: processes of two releases work side by side, on one queue and one schema."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.callbacks import Answer, Callback, GatewaySender, Load
from tests.support.deployment import (
    ROLES,
    Deployment,
    Place,
    assert_told_once,
    await_claims,
    await_events,
    first_arrivals,
)
from tests.support.downstream import Downstream
from tests.support.releases import BASELINE, install_release

#: Answers that must come after each step before the next one.
_ANSWERS = 60

#: Environment variables that select a release; none for the one at hand.
Release = Mapping[str, str]


@pytest.fixture(scope="module", params=[pytest.param("", id="the-same"), pytest.param(BASELINE, id="the-baseline")])
def earlier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release that runs before the update."""
    return install_release(request.param, tmp_path_factory.mktemp("release")) if request.param else {}


class Balancer:
    """Sends each callback to one of the receivers that are in use, as a Service of Kubernetes does."""

    def __init__(self) -> None:
        self._in_use: tuple[GatewaySender, ...] = ()

    def use(self, *deployments: Deployment) -> None:
        """Send new callbacks to the receivers of these alone."""
        self._in_use = tuple(deployment.sender for deployment in deployments)

    def send(self, callback: Callback) -> Answer:
        """Send it once."""
        return random.choice(self._in_use).send(callback)


@pytest.fixture
def install(tmp_path: Path, servers: Place, own_shop: Downstream) -> Iterator[Callable[[str], Deployment]]:
    """Makes deployments on the same servers, each with a receiver's address of its own."""
    with ExitStack() as made:

        def make(name: str) -> Deployment:
            folder = tmp_path / name
            folder.mkdir()
            return made.enter_context(Deployment(folder=folder, place=servers, downstreams={"shop": own_shop}))

        yield make


def test_an_update_and_its_rollback_refuse_no_callback_and_lose_none(
    earlier: Release, install: Callable[[str], Deployment], own_shop: Downstream
) -> None:
    old, new = install("old"), install("new")
    migrated = old.command("migrate", environment=earlier)
    assert migrated.returncode == 0, migrated.stderr
    balancer = Balancer()
    _start(old, environment=earlier)
    balancer.use(old)
    with Load(sender=balancer, make_callback=old.callback, prefix="update") as load:
        load.wait_for_answers(_ANSWERS)
        # The schema first, while only the earlier release runs.
        new.prepare()
        load.wait_for_answers(_ANSWERS)
        _roll_over(load, balancer, leaving=old, coming=new)
        # And back. The baseline works on the later schema while it runs, and does not start on it; later releases do.
        if not earlier:
            _roll_over(load, balancer, leaving=new, coming=old)
    refused = [answer for answer in load.answers if not answer.acknowledged]
    assert not refused, f"{len(refused)} of {len(load.answers)} callbacks were refused: {refused[0]}"
    await_claims(load.acknowledged, ledger=old.ledger, prefix="update")
    await_events(load.acknowledged, ledger=old.ledger, downstream=own_shop, prefix="update")
    assert_told_once(own_shop, output=old.output + new.output)
    assert first_arrivals(own_shop, "update")
    old.assert_no_dead_letters()


def _start(deployment: Deployment, *, environment: Release | None = None) -> None:
    deployment.start(*ROLES, environment=environment)
    deployment.wait_until_receiving()


def _roll_over(load: Load, balancer: Balancer, *, leaving: Deployment, coming: Deployment) -> None:
    """Start one release beside the other, then end the other."""
    _start(coming)
    balancer.use(leaving, coming)
    load.wait_for_answers(2 * _ANSWERS)
    balancer.use(coming)
    load.wait_for_answers(_ANSWERS)
    _end(leaving)
    load.wait_for_answers(_ANSWERS)


def _end(deployment: Deployment) -> None:
    for role in ROLES:
        assert deployment.role(role).terminate() == 0, deployment.describe()
