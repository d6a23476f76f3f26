"""SIGTERM that finds a server at its start: what a rollback in the middle of a release does."""

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
    time.sleep(1)
os.register_at_fork(after_in_child=linger)
from service.cli.main import main
main(arguments)
"""
# The command line with a master that takes a while until it has gunicorn's handlers.
_SLOW_MASTER = """
import pathlib, sys, time
from gunicorn.app.base import BaseApplication
from service.cli.main import main
_, begun, *arguments = sys.argv
serve = BaseApplication.run
def linger(server):
    pathlib.Path(begun).touch()
    time.sleep(1)
    serve(server)
BaseApplication.run = linger
main(arguments)
"""


@pytest.mark.parametrize("role", ["receiver", "api"])
@pytest.mark.parametrize("slow", [_SLOW_MASTER, _SLOW_FORKS], ids=["the master", "the workers"])
def test_a_server_that_does_not_serve_yet_ends_at_sigterm(
    deploy: Callable[..., Deployment], processes: Processes, tmp_path: Path, role: str, slow: str
) -> None:
    deployment = deploy(Place())
    deployment.give_api()
    begun = tmp_path / "begun"
    settings = str(deployment.settings_file)
    process = processes.start_command(
        sys.executable, "-c", slow, str(begun), "--config", settings, "run", role, name=role
    )
    process.wait_until(begun.exists)
    # Half of the receiver's and the API's drain_seconds: with a worker that did not hear, it takes the whole of them.
    assert process.terminate() == 0, process.describe()
