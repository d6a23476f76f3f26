"""SIGHUP: what a terminal that goes away sends, to one process or to all of its foreground group."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.callbacks import Load
from tests.support.deployment import ROLES, Deployment, Place, await_claims
from tests.support.downstream import Downstream
from tests.support.processes import Processes, answers
from tests.support.waiting import eventually

_WORKERS = 2


def test_every_role_ends_in_good_order_whether_it_reaches_the_process_or_its_group(
    deploy: Callable[..., Deployment], own_shop: Downstream
) -> None:
    """Of those that have no processes below them, the two are the same."""
    deployment = deploy(Place())
    api = deployment.give_api()
    servers = ("receiver", "api")

    def wait_until_serving() -> None:
        deployment.wait_until_receiving()
        deployment.role("api").wait_until(lambda: answers(api + "/readyz"))

    deployment.start(*ROLES, "inquirer", "api")
    wait_until_serving()
    assert deployment.sender.send(deployment.callback("one")).acknowledged
    eventually(lambda: own_shop.about("one"))
    for name in (*ROLES, "inquirer", "api"):
        role = deployment.role(name)
        role.signal(signal.SIGHUP)
        assert role.wait() == 0, role.describe()

    deployment.start(*servers)
    wait_until_serving()
    for name in servers:
        role = deployment.role(name)
        os.killpg(role.pid, signal.SIGHUP)
        assert role.wait() == 0, role.describe()
    assert "Traceback" not in deployment.output


def test_all_roles_on_one_machine_end_in_good_order(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy(Place())
    deployment.start("all")
    deployment.wait_until_receiving("all")
    deployment.role("all").signal(signal.SIGHUP)
    assert deployment.role("all").wait() == 0
    eventually(lambda: not answers(deployment.url + "/healthz"))


def test_workers_that_it_reaches_finish_what_they_have_in_hand(own_deployment: Deployment) -> None:
    with Load(sender=own_deployment.sender, make_callback=own_deployment.callback, prefix="hung-up") as load:
        load.wait_for_acknowledgements(30)
        before = set(_serving_workers(own_deployment, "receiver"))
        for worker in before:
            os.kill(worker, signal.SIGHUP)
        eventually(lambda: not before & set(own_deployment.children("receiver")))
        own_deployment.wait_until_receiving()
        load.wait_for_acknowledgements(30)
    await_claims(load.acknowledged, ledger=own_deployment.ledger, prefix="hung-up")
    assert "was sent" not in own_deployment.output  # gunicorn's words for a worker that a signal ended


@pytest.mark.parametrize("role", ["receiver", "api"])
def test_workers_that_it_reaches_again_and_again_end_in_good_order(
    deploy: Callable[..., Deployment], role: str
) -> None:
    """A worker is sent a signal by its terminal and by its master, at any time, also when it has all but ended."""
    deployment = deploy(Place())
    deployment.give_api()
    deployment.start(role)
    for _ in range(3):
        worker = _serving_workers(deployment, role)[0]
        with suppress(ProcessLookupError):
            while True:
                os.kill(worker, signal.SIGHUP)
                time.sleep(0.0005)
    _serving_workers(deployment, role)
    assert deployment.role(role).terminate() == 0
    assert "Traceback" not in deployment.output
    assert "was sent" not in deployment.output
    assert "Exception ignored" not in deployment.output


@pytest.mark.parametrize("role", ["ledger", "receiver"])
def test_under_nohup_a_role_and_its_workers_ignore_it(
    deploy: Callable[..., Deployment], processes: Processes, role: str
) -> None:
    deployment = deploy(Place())
    process = processes.start_command("nohup", *deployment.command_line("run", role), name=role)
    process.wait_until(lambda: _handles(process.pid, signal.SIGTERM))
    if role == "receiver":
        process.wait_until(lambda: answers(deployment.url + "/readyz"))
    for pid in (process.pid, *process.descendants()):
        eventually(lambda pid: _handles(pid, signal.SIGTERM) and _ignores(pid, signal.SIGHUP), pid)
    assert process.terminate() == 0


def _serving_workers(deployment: Deployment, role: str) -> list[int]:
    """The role's two workers, once both have handlers of their own. A signal ends a younger one at once, rightly."""

    def are_there() -> list[int]:
        workers = deployment.children(role)
        # The master handles no SIGABRT, so a worker cannot have that handler from it.
        with suppress(FileNotFoundError, ProcessLookupError):  # one has just gone
            if all(_handles(pid, signal.SIGABRT) and _handles(pid, signal.SIGHUP) for pid in workers):
                return workers if len(workers) == _WORKERS else []
        return []

    return eventually(are_there)


def _handles(pid: int, number: signal.Signals) -> bool:
    return _has(pid, "SigCgt", number)


def _ignores(pid: int, number: signal.Signals) -> bool:
    return _has(pid, "SigIgn", number)


def _has(pid: int, mask: str, number: signal.Signals) -> bool:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(lines[mask], 16) & (1 << (number - 1)))
