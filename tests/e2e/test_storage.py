"""The embedded service on a disk that fails: a definite failure for the gateway, and work that goes on by itself."""

import shutil
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.support.callbacks import Callback
from tests.support.deployment import ROLES, Deployment, Place, await_claims, await_events
from tests.support.disks import Disk
from tests.support.downstream import Downstream
from tests.support.waiting import eventually


class Gateway:
    """Sends a callback until it is acknowledged, and then the next one."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._numbers = count(1)
        self._waiting = self._make_callback()
        self.acknowledged: list[Callback] = []

    def send(self) -> bool:
        answer = self._deployment.sender.send(self._waiting)
        assert (answer.status, answer.body) in [(200, b"success"), (503, b"fail")]
        if answer.acknowledged:
            self.acknowledged.append(self._waiting)
            self._waiting = self._make_callback()
        return answer.acknowledged

    def send_until_refused(self) -> None:
        eventually(lambda: not self.send(), why=self._deployment.describe)

    def send_until_acknowledged(self) -> None:
        eventually(self.send, why=self._deployment.describe)

    def _make_callback(self) -> Callback:
        return self._deployment.callback(f"disk-{next(self._numbers)}")


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk() as disk:
        yield disk


def test_a_disk_that_is_read_only_then_broken_then_full_loses_nothing_and_ends_no_role(
    deploy: Callable[..., Deployment], own_shop: Downstream, disk: Disk
) -> None:
    deployment = deploy(Place())
    data = deployment.settings_file.with_name("data")
    shutil.copytree(data, disk.path, dirs_exist_ok=True)
    shutil.rmtree(data)
    data.symlink_to(disk.path)
    gateway = Gateway(deployment)
    disk.make_read_only()
    deployment.start(*ROLES)
    deployment.wait_until_receiving()
    gateway.send_until_refused()
    for role in ("ledger", "dispatcher"):
        eventually(lambda role: "waiting_to_start" in deployment.role(role).output, role, why=deployment.describe)
    disk.mend()
    gateway.send_until_acknowledged()
    eventually(lambda: own_shop.received, why=deployment.describe)
    for fail, reason in ((disk.break_down, "disk I/O error"), (disk.fill, "disk is full")):
        fail()
        gateway.send_until_refused()
        eventually(lambda reason: reason in deployment.role("receiver").output, reason, why=deployment.describe)
        disk.mend()
        gateway.send_until_acknowledged()

    await_claims(gateway.acknowledged, ledger=deployment.ledger, prefix="disk")
    await_events(gateway.acknowledged, ledger=deployment.ledger, downstream=own_shop, prefix="disk")
    deployment.assert_no_dead_letters()
    assert all(deployment.role(role).running for role in ROLES)
    assert "Traceback" not in deployment.output
