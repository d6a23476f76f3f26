"""What a killed role held is taken over. Random kills under load are in test_chaos.py."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.deployment import Deployment, Place
from tests.support.downstream import Downstream
from tests.support.waiting import eventually


def test_what_a_killed_ledger_held_is_recorded_by_the_one_that_run_all_starts_in_its_place(
    deploy: Callable[..., Deployment], own_shop: Downstream
) -> None:
    deployment = deploy(Place())
    deployment.start("all")
    deployment.wait_until_receiving("all")
    assert deployment.sender.send(deployment.callback("first")).acknowledged
    eventually(lambda: own_shop.about("first"), why=deployment.describe)  # all roles are there
    data = deployment.settings_file.with_name("data")
    with _locked(data / "ledger.sqlite3"):
        assert deployment.sender.send(deployment.callback("held")).acknowledged
        eventually(lambda: _is_leased(data / "callbacks.sqlite3"), why=deployment.describe)
        os.kill(_ledger_of(deployment), signal.SIGKILL)
        _prolong_lease(data / "callbacks.sqlite3", seconds=59)

    eventually(lambda: own_shop.about("held"), why=deployment.describe)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Let nobody else write to it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def _is_leased(file: Path) -> bool:
    """Whether there is one message in the queue, and a lease of it."""
    with closing(sqlite3.connect(file)) as reader:
        leases = [lease for (lease,) in reader.execute("SELECT lease FROM message")]
    return len(leases) == 1 and leases != [None]


def _prolong_lease(file: Path, *, seconds: float) -> None:
    """To longer than a busy machine takes to start a role, so that it does not run out meanwhile."""
    with closing(sqlite3.connect(file)) as other:
        other.execute("UPDATE message SET leased_until = ? WHERE lease IS NOT NULL", (time.time() + seconds,))
        other.commit()


def _ledger_of(deployment: Deployment) -> int:
    [ledger] = [
        child
        for child in deployment.children("all")
        if Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0").endswith(b"ledger")
    ]
    return ledger
