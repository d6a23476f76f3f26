"""docs/operations.md: its values are taken, its commands exist, and its first callback arrives."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from service.cli.main import main
from tests.support.chart import OPERATIONS_COMMANDS, OPERATIONS_PAGE, OPERATIONS_VALUES, find, pod_specs, render
from tests.support.processes import Processes, answers, find_free_port

SETTINGS = """\
[receiver]
bind = "127.0.0.1:{port}"
public_url = "https://pay.example.com"
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
token_keys = [{{ kid = "k1", key = "the token key of acme, for tests only" }}]
"""
# Where the page runs a command in a pod, it is run here; forwarding is not needed.
KUBECTL = """\
#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    port-forward) exec sleep 60;;
    --) shift 2; exec {python} -m service.cli --config {settings} "$@";;
  esac
  shift
done
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """All values that the page gives for an installation, one after another; those for traces come last."""
    assert len(OPERATIONS_VALUES) == 3
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(OPERATIONS_VALUES[0]))
    return path


def test_the_values_are_taken_and_need_the_secrets_that_were_made_and_no_others(file: Path) -> None:
    made = set(re.findall(r"create secret generic (\S+) \\\n +--from-file=([^=]+)=", OPERATIONS_PAGE))
    wanted = set()
    for spec in pod_specs(render(file, overrides=OPERATIONS_VALUES[1])).values():
        for volume in spec.get("volumes", []):
            for source in volume.get("projected", {}).get("sources", []):
                wanted |= {(source["secret"]["name"], item["key"]) for item in source["secret"]["items"]}
    assert wanted == made


def test_every_object_that_a_command_names_is_there(file: Path) -> None:
    manifests = render(file, overrides={"settings": {"spool": {"enabled": "receiver-2" in OPERATIONS_PAGE}}})
    gateway = {"url": "https://gateway.example.com/", "ua": "ACME", "aes_key": {"secret": "a", "key": "b"}}
    manifests += render(
        file, overrides={**OPERATIONS_VALUES[1], "settings": {"merchants": {"acme": {"gateway": gateway}}}}
    )
    names = {
        manifest["metadata"]["name"].replace("pc-payment-callbacks", "payment-callbacks") for manifest in manifests
    }
    named = set(re.findall(r"(?:deploy/|service/|deployment )(payment-callbacks-[a-z]+)", OPERATIONS_PAGE))
    assert named
    assert named <= names


def test_the_values_for_traces_reach_every_role_and_let_it_reach_the_collector(file: Path) -> None:
    manifests = render(file, overrides=OPERATIONS_VALUES[2])
    variables = {variable["name"]: variable["value"] for variable in OPERATIONS_VALUES[2]["pods"]["extraEnv"]}
    specs = pod_specs(manifests)
    for role in ("receiver", "ledger", "dispatcher"):
        [container] = next(spec for name, spec in specs.items() if name.endswith(f"-{role}"))["containers"]
        assert variables.items() <= {one["name"]: one.get("value") for one in container["env"]}.items(), role
        egress = find(manifests, "NetworkPolicy", f"-{role}")["spec"]["egress"]
        assert {"ports": [{"protocol": "TCP", "port": 4318}]} in egress, role


def test_every_command_of_ours_exists() -> None:
    commands = re.findall(r"(?:-- (?:\\\n +)?|`)payment-callbacks ((?:[a-z]+ ?)+)", OPERATIONS_PAGE)
    assert len(commands) > 5
    for words in commands:
        command: click.Command = main
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            found = command.get_command(click.Context(command), word)
            assert found is not None, words
            command = found


def test_the_first_callback_is_acknowledged_and_the_order_has_succeeded(tmp_path: Path, processes: Processes) -> None:
    port = find_free_port()
    settings = tmp_path / "payment-callbacks.toml"
    settings.write_text(SETTINGS.format(port=port))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL.format(python=sys.executable, settings=settings))
    kubectl.chmod(0o755)
    service = processes.start("--config", str(settings), "run", "all", name="all")
    service.wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))

    first = next(index for index, text in enumerate(OPERATIONS_COMMANDS) if text.startswith("order="))
    announce, send, show = OPERATIONS_COMMANDS[first : first + 3]
    wait = f"until {show.strip()} | tee /dev/stderr | grep -q succeeded; do sleep 0.2; done"
    script = "\n".join(["set -eu", f"PATH={tmp_path}:$PATH", announce, send, wait]).replace("8080", str(port))
    done = subprocess.run(
        ["bash", "-m", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("success")
