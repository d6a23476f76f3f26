"""What a process inherits and the settings do not name changes nothing: variables of libraries, folders, streams."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, Place
from tests.support.downstream import Downstream
from tests.support.processes import Process, Processes, answers
from tests.support.waiting import eventually

# Each of them would end a process, or change where and how it serves.
_VARIABLES = {
    "FLASK_DEBUG": "1",
    "FORWARDED_ALLOW_IPS": "the-proxy",
    "GUNICORN_CMD_ARGS": "--bind=127.0.0.1:9 --workers=0",
    "GUNICORN_FD": "99",
    "GUNICORN_PID": "1",
    "LISTEN_FDS": "3",
    "PORT": "9",
    "SCRIPT_NAME": "/payments",
    "WEB_CONCURRENCY": "auto",
}


def test_every_role_works_beside_the_variables_of_other_services(
    deploy: Callable[..., Deployment], own_shop: Downstream, tmp_path: Path
) -> None:
    """Each role is a process below `run all`, which hands the variables on."""
    folder, missing = tmp_path / "of-another-service", tmp_path / "missing"
    folder.mkdir()
    folders = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "prometheus_multiproc_dir": str(missing)}
    deployment = deploy(Place())
    api = deployment.give_api()
    deployment.start("all", environment={**_VARIABLES, **folders})
    deployment.wait_until_receiving("all")
    deployment.role("all").wait_until(lambda: answers(api + "/readyz"))
    assert deployment.sender.send(deployment.callback("one")).acknowledged
    eventually(lambda: own_shop.about("one"))
    assert deployment.role("all").terminate() == 0
    assert "child_died" not in deployment.output
    assert list(folder.iterdir()) == []
    assert not missing.exists()


def _start_receiver(deployment: Deployment, processes: Processes, *, shared_memory: str, scratch: Path) -> Process:
    """Needs root, whose namespace gets another /dev/shm, and which gives up its right to write everywhere."""
    scratch.mkdir()
    drop = "setpriv --inh-caps=-dac_override --bounding-set=-dac_override"
    program = f'mount -t tmpfs -o {shared_memory} tmpfs /dev/shm && exec {drop} "$@"'
    receiver = deployment.command_line("run", "receiver")
    process = processes.start_command(
        "unshare", "--mount", "sh", "-c", program, "sh", *receiver, environment={"TMPDIR": str(scratch)}
    )
    process.wait_until(lambda: answers(deployment.url + "/readyz"))
    return process


@pytest.mark.parametrize("options", ["ro", "uid=65534,mode=0755"], ids=["read-only", "another user's"])
def test_a_receiver_keeps_its_counts_on_disk_where_shared_memory_cannot_be_written(
    deploy: Callable[..., Deployment], processes: Processes, tmp_path: Path, options: str
) -> None:
    scratch = tmp_path / "scratch"
    process = _start_receiver(deploy(Place()), processes, shared_memory=options, scratch=scratch)
    assert list(scratch.glob("payment-callbacks-metrics-*"))
    assert process.terminate() == 0
    assert list(scratch.iterdir()) == []


def test_a_receiver_takes_callbacks_where_shared_memory_is_full_and_says_that_its_counts_are_incomplete(
    deploy: Callable[..., Deployment], processes: Processes, tmp_path: Path
) -> None:
    deployment = deploy(Place())
    process = _start_receiver(deployment, processes, shared_memory="size=80k", scratch=tmp_path / "scratch")
    assert deployment.sender.send(deployment.callback("one")).acknowledged
    assert process.terminate() == 0
    assert "exited with" not in process.output
    assert "No space left on device: make room there, then restart the receiver" in process.output
