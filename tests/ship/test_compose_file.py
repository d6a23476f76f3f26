"""compose.yaml against the schema of compose files, the house's rules for containers, and our own command line."""

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.cli.run import run
from tests.support.compose import COMPOSE_FILE, load_compose, own_services

every_own_service = pytest.mark.parametrize("name", own_services())
every_service = pytest.mark.parametrize("name", load_compose()["services"])


def test_the_schema_of_compose_files_takes_it() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_role_runs_but_the_one_that_stands_for_all() -> None:
    commands = [service["command"] for service in own_services().values()]
    roles = {command[1] for command in commands if command[:1] == ["run"]}
    assert roles == set(run.commands) - {"all"}


@pytest.mark.parametrize("name", [name for name, service in own_services().items() if "entrypoint" not in service])
def test_the_command_line_knows_every_command(name: str) -> None:
    result = CliRunner().invoke(main, [*own_services()[name]["command"], "--help"])
    assert result.exit_code == 0, result.output


@every_own_service
def test_every_container_of_ours_may_do_nothing_but_what_it_needs_to(name: str) -> None:
    service = own_services()[name]
    wanted = {
        "user": "10001:10001",
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    assert {key: service.get(key) for key in wanted} == wanted
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & service.keys()
    # No secret is where `docker inspect` shows it.
    assert not {"environment", "env_file"} & service.keys()


@every_service
def test_nothing_can_be_reached_from_other_machines(name: str) -> None:
    ports = load_compose()["services"][name].get("ports", [])
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@every_service
def test_a_published_port_is_on_a_network_that_leads_out(name: str) -> None:
    document = load_compose()
    service = document["services"][name]
    ways_out = [network for network in service["networks"] if not document["networks"][network].get("internal")]
    assert ways_out or "ports" not in service


@every_service
def test_every_image_is_pinned_and_names_no_registry(name: str) -> None:
    image = load_compose()["services"][name]["image"]
    assert "/" not in image
    assert image == "payment-callbacks:compose" or re.search(r":\d+\.\d+(\.\d+)?(-[a-z]+)?\Z", image)


def test_everything_that_stays_says_whether_it_is_healthy() -> None:
    services = load_compose()["services"]
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"migrate"}


def test_what_is_mounted_is_what_there_is_and_all_of_it_is_used() -> None:
    document = load_compose()
    for kind in ("secrets", "configs", "volumes", "networks"):
        used = {_name(item) for service in document["services"].values() for item in service.get(kind, [])}
        assert used == set(document[kind]), kind


def _name(item: object) -> str:
    """Of a short or a long mount."""
    return str(item["source"]) if isinstance(item, dict) else str(item).partition(":")[0]
