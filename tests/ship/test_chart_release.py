"""docs/operations.md carried out on the manifests themselves: from an empty database to a first callback, and after.

What a cluster would do, podman and a packet filter do here: every pod as it was rendered, each with the secrets that it
names and nobody else's, and able to connect to what its NetworkPolicy allows.
"""

import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import yaml

from tests.support.chart import CHART, OPERATIONS_COMMANDS, OPERATIONS_VALUES
from tests.support.chart_release import PlayedRelease
from tests.support.containers import ContainerTools, Image, own_network
from tests.support.downstream import WEBHOOK_SECRET, Downstream
from tests.support.gateway import AES_KEY, NOT_FOUND, AskedGateway
from tests.support.postgresql import PostgreSQL
from tests.support.processes import Process, answers
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually

# Building the image and starting everything is not what the limit is for.
pytestmark = pytest.mark.timeout(300, func_only=True)

# Where the page runs a command in a pod, it is run in that role's container; forwarding is not needed.
_KUBECTL = """\
#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    port-forward) exec sleep 60;;
    deploy/payment-callbacks-*) container=$(cat {folder}/${{1#deploy/payment-callbacks-}}.container);;
    --) shift; exec podman exec "$container" "$@";;
  esac
  shift
done
"""
# The spool is off here, no inquiry is asked to its horizon, and no endpoint is paused.
_NOT_HAPPENED = (
    "payment_callbacks_spool_",
    "payment_callbacks_inquiries_given_up_total",
    "payment_callbacks_endpoint_paused_seconds",
)
_API_TOKEN_AT = {"secret": "payment-callbacks-shop", "key": "api-token"}
_SESSION_KEY_AT = {"secret": "payment-callbacks-console", "key": "session-key"}
_API_TOKEN = "the-token-of-the-shop-for-tests-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A release that runs, and those around it."""

    release: PlayedRelease
    shop: Downstream
    #: With its own `kubectl` first in the path.
    environment: Mapping[str, str]
    folder: Path

    def shell(self, script: str) -> str:
        """Run commands as the page gives them, and return what they wrote; an AssertionError where one fails."""
        receiver = f"{self.release.addresses['receiver']}:8080"
        done = subprocess.run(
            ["bash", "-m", "-c", "set -eu\n" + script.replace("localhost:8080", receiver)],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def url(self, role: str, port: int) -> str:
        """Of something that a role serves."""
        return f"http://{self.release.addresses[role]}:{port}"


@pytest.fixture(scope="module")
def installed(
    container_tools: ContainerTools, image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """The page's own values, and what makes every role run; the Job comes last, and everybody waits for it."""
    folder = tmp_path_factory.mktemp("release")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)  # the containers' users are nobody here
    values = folder / "values.yaml"
    values.write_text(yaml.safe_dump(OPERATIONS_VALUES[0]))
    with ExitStack() as stack:
        stack.enter_context(own_network())
        rabbitmq, postgresql = stack.enter_context(RabbitMQ()), stack.enter_context(PostgreSQL())
        shop = stack.enter_context(Downstream())
        gateway = stack.enter_context(AskedGateway(lambda _order: "success", pay_type="baofoo_002"))
        release = PlayedRelease(
            tools=container_tools,
            image=image.name,
            values=values,
            overrides=_further_values(rabbitmq, postgresql, shop, gateway),
            secrets={
                ("payment-callbacks-broker", "url"): rabbitmq.url,
                ("payment-callbacks-database", "url"): postgresql.create_database(),
                ("payment-callbacks-acme", "token-key"): "the token key of acme, for tests only",
                ("payment-callbacks-asked", "token-key"): "the token key of asked, for tests only",
                ("payment-callbacks-asked", "aes-key"): AES_KEY,
                ("payment-callbacks-shop", "webhook-secret"): WEBHOOK_SECRET,
                ("payment-callbacks-shop", "api-token"): _API_TOKEN,
                ("payment-callbacks-console", "session-key"): "a session key of the console, for tests only",
            },
            servers=[rabbitmq.port, postgresql.port, *(urlsplit(one.url).port or 0 for one in (shop, gateway))],
            folder=folder,
        )
        stack.enter_context(release)
        for role in release.roles:
            pod = release.start(role)
            (folder / f"{role}.container").write_text(pod.container_name)
        ledger = release.pod("ledger")
        eventually(lambda: "waiting_to_start" in ledger.output, why=lambda: ledger.output)
        assert release.start("migrate").wait() == 0
        kubectl = folder / "kubectl"
        kubectl.write_text(_KUBECTL.format(folder=folder))
        kubectl.chmod(0o755)
        environment = {**container_tools.environment, "PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"}
        yield Installed(release=release, shop=shop, environment=environment, folder=folder)


def _further_values(rabbitmq: RabbitMQ, postgresql: PostgreSQL, shop: Downstream, gateway: AskedGateway) -> Any:
    asked = {
        "pay_types": ["baofoo_002"],
        "amount_unit": "yuan",
        "token_keys": [{"kid": "k1", "key": {"secret": "payment-callbacks-asked", "key": "token-key"}}],
        "gateway": {
            "url": gateway.url,
            "ua": "ASKED",
            "aes_key": {"secret": "payment-callbacks-asked", "key": "aes-key"},
            "not_found_messages": [NOT_FOUND],
        },
    }
    (endpoint,) = OPERATIONS_VALUES[0]["settings"]["endpoints"]
    return {
        "settings": {
            "merchants": {"asked": asked},
            "endpoints": [{**endpoint, "url": shop.url}, {"name": "bus", "kind": "amqp"}],
            "api": {"tokens": [{"name": "shop", "token": _API_TOKEN_AT, "scopes": ["read"]}]},
            "console": {"session_keys": [_SESSION_KEY_AT]},
        },
        # Nobody translates a Service's port here.
        "receiver": {"service": {"port": 8080}},
        "api": {"service": {"port": 8081}},
        "console": {"service": {"port": 8082}},
        "networkPolicy": {"broker": {"ports": [rabbitmq.port]}, "database": {"ports": [postgresql.port]}},
    }


def test_every_role_becomes_what_its_probes_ask_for(installed: Installed) -> None:
    release = installed.release
    assert set(release.roles) == {"receiver", "ledger", "inquirer", "dispatcher", "api", "console"}
    for role in release.roles:
        pod = release.pod(role)
        container = pod.container
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                request = container[probe]["httpGet"]
                url = installed.url(role, ports[request["port"]]) + request["path"]
                eventually(partial(answers, url), why=partial(getattr, pod, "output"))
        metrics = installed.url(role, ports.get("metrics", ports.get(role, 0))) + "/metrics"
        eventually(partial(answers, metrics), why=partial(getattr, pod, "output"))


def test_helms_own_test_passes(installed: Installed) -> None:
    test = installed.release.start("test")
    assert test.wait() == 0, test.output
    assert test.output.count("ok: ") == 5


def test_the_pages_first_callback_is_acknowledged_succeeds_and_reaches_the_shop(installed: Installed) -> None:
    first = next(index for index, text in enumerate(OPERATIONS_COMMANDS) if text.startswith("order="))
    announce, send, show = OPERATIONS_COMMANDS[first : first + 3]
    wait = f"until {show.strip()} | tee /dev/stderr | grep -q succeeded; do sleep 0.2; done"
    assert installed.shell(f"{announce}\n{send}\n{wait}").startswith("success")
    (event,) = eventually(lambda: installed.shop.about("TRIAL-1"))
    assert event.type == "payment.succeeded"


def test_an_order_of_a_merchant_with_a_gateway_is_asked_for(installed: Installed) -> None:
    exec_in_ledger = "kubectl -n payments exec deploy/payment-callbacks-ledger -- payment-callbacks"
    announce = "orders announce asked ASKED-1 --amount 1.00 --pay-type baofoo_002"
    installed.shell(f"{exec_in_ledger} {announce}\n{exec_in_ledger} orders inquire asked ASKED-1 --reason test")
    (event,) = eventually(lambda: installed.shop.about("ASKED-1"))
    assert (event.type, event.envelope["data"]["trust"]) == ("payment.succeeded", "query")


@pytest.mark.parametrize(
    "command",
    [
        "report --day 2026-01-31",
        "dead list",
        "deliveries list --state open",
        "orders list",
        "prune --before 2026-01-01",
        "prune --keep-days 180",
        "topology declare",
        "config check",
    ],
)
def test_an_operators_command_runs_beside_the_ledger(installed: Installed, command: str) -> None:
    installed.shell(f"kubectl -n payments exec deploy/payment-callbacks-ledger -- payment-callbacks {command}")


def test_a_gateway_is_asked_by_hand_beside_the_inquirer(installed: Installed) -> None:
    exec_in_inquirer = "kubectl -n payments exec deploy/payment-callbacks-inquirer -- payment-callbacks"
    assert "success" in installed.shell(f"{exec_in_inquirer} gateway query --merchant asked BY-HAND-1")


def test_every_panel_of_the_dashboard_shows_something(installed: Installed) -> None:
    """Read by a Prometheus that scrapes the pods as the PodMonitor has it."""
    own = {"api": 8081, "console": 8082}
    targets = [f"{installed.release.addresses[role]}:9090" for role in installed.release.roles if role not in own]
    targets += [f"{installed.release.addresses[role]}:{port}" for role, port in own.items()]
    config = {
        "scrape_configs": [{"job_name": "pods", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}]
    }
    (installed.folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    prometheus = Process(
        name="prometheus",
        command=[
            "prometheus", f"--config.file={installed.folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={installed.folder / 'tsdb'}", "--web.listen-address=127.0.0.1:9099",
        ],
        log_file=installed.folder / "prometheus.log",
    )  # fmt: skip
    prometheus.start()
    try:
        prometheus.wait_until(lambda: answers("http://127.0.0.1:9099/-/ready"))
        _send_no_http(installed)
        eventually(lambda: not _blank_panels(), why=_blank_panels)
    finally:
        prometheus.kill()


def test_each_role_connected_to_all_that_its_policy_allows_and_tried_nothing_else(installed: Installed) -> None:
    """What goes before has had every role do what it is there for."""
    policies = installed.release.filter
    assert set(policies.refused().values()) == {0}, policies.refused()
    names = {8080: "receiver", 8081: "api", 8082: "console"}
    used = {(role, names.get(port, port)) for (role, port), count in policies.connections().items() if count}
    unused = {(role, port) for (role, port), count in policies.connections().items() if not count and port != 53}
    assert {role for role, _ in used} == {*installed.release.roles, "migrate", "test"}
    # Nobody had the API ask a gateway.
    assert [role for role, _ in unused] == ["api"], unused


def test_every_role_ends_in_good_order_within_its_grace_period(installed: Installed) -> None:
    for role in installed.release.roles:
        pod = installed.release.pod(role)
        assert pod.stop() == 0, pod.output


def _send_no_http(installed: Installed) -> None:
    with socket.create_connection((installed.release.addresses["receiver"], 8080), timeout=5) as client:
        client.sendall(b"no http at all\r\n\r\n")
        client.recv(1024)


def _blank_panels() -> list[str]:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    return [
        f"{panel['title']}: {target['expr']}"
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        if not any(metric in target["expr"] for metric in _NOT_HAPPENED)
        and not _query(target["expr"].replace("$__rate_interval", "30s"))
    ]


def _query(expression: str) -> list[Any]:
    url = f"http://127.0.0.1:9099/api/v1/query?{urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: list[Any] = json.loads(answer.read())["data"]["result"]
    return found
