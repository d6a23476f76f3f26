"""SIGTERM that finds workers just forked: what a rollback in the middle of a release does."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, Place
from tests.support.processes import Processes

# The command line with workers that a busy machine keeps from their own first line for a while.
_SLOW_FORKS = """
import os, pathlib, sys, time
_, forked, *arguments = sys.argv
def linger():
    pathlib.Path(forked).touch()
    time.sleep(2)
os.register_at_fork(after_in_child=linger)
from service.cli.main import main
main(arguments)
"""


@pytest.mark.parametrize("role", ["receiver", "api"])
def test_a_worker_that_has_just_been_forked_ends_at_sigterm(
    deploy: Callable[..., Deployment], processes: Processes, tmp_path: Path, role: str
) -> None:
    deployment = deploy(Place())
    deployment.give_api()
    forked = tmp_path / "forked"
    settings = str(deployment.settings_file)
    process = processes.start_command(
        sys.executable, "-c", _SLOW_FORKS, str(forked), "--config", settings, "run", role, name=role
    )
    process.wait_until(forked.exists)
    # Half of the receiver's and the API's drain_seconds: with a worker that did not hear, it takes the whole of them.
    assert process.terminate(within_seconds=10) == 0, process.describe()
