"""Logging never changes what the service does: standard output that takes nothing, or lacks characters."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from tests.support.callbacks import Callback
from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import Downstream
from tests.support.processes import find_free_port
from tests.support.waiting import eventually

_LOST = "payment_callbacks_log_lines_lost_total"
_ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def _full_disk() -> Iterator[int]:
    output = os.open("/dev/full", os.O_WRONLY)
    yield output
    os.close(output)


def _closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def _stopped_reader() -> Iterator[int]:
    """A pipe that is full, and whose reader was stopped."""
    reader, writer = os.pipe()
    with subprocess.Popen(["sleep", "1000"], stdin=reader) as stopped:
        os.close(reader)
        stopped.send_signal(signal.SIGSTOP)
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * select.PIPE_BUF)
        os.set_blocking(writer, True)
        yield writer
        os.close(writer)
        stopped.kill()


@pytest.fixture(params=[_full_disk, _closed_pipe, _stopped_reader], ids=lambda kind: kind.__name__.strip("_"))
def output(request: pytest.FixtureRequest) -> Iterator[int]:
    """A descriptor that takes nothing."""
    yield from request.param()


class _Measured:
    """A deployment whose receiver and ledger have ports for metrics."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._ports = {role: find_free_port() for role in ("receiver", "ledger")}
        text = deployment.settings_file.read_text()
        for role, port in self._ports.items():
            text = text.replace(f"[{role}]\n", f'[{role}]\nmetrics_bind = "127.0.0.1:{port}"\n')
        deployment.settings_file.write_text(text)

    def count(self, role: str, metric: str) -> float:
        """The sum of a role's series of one name."""
        text = urllib3.request("GET", f"http://127.0.0.1:{self._ports[role]}/metrics", retries=False).data.decode()
        families = text_string_to_metric_families(text)
        return sum(sample.value for family in families for sample in family.samples if sample.name == metric)


@pytest.fixture
def measured(deploy: Callable[..., Deployment], servers: Place) -> _Measured:
    return _Measured(deploy(servers))


def test_callbacks_are_acknowledged_and_applied_whatever_becomes_of_the_log(
    measured: _Measured, own_shop: Downstream, output: int, request: pytest.FixtureRequest
) -> None:
    deployment = measured.deployment
    deployment.start(*ROLES, output=output)
    deployment.wait_until_receiving()
    ledger = deployment.role("ledger").pid
    orders = [f"unlogged-{number}" for number in range(20)]
    for order in orders:
        assert deployment.sender.send(deployment.callback(order)).acknowledged
    # One that is refused is logged, too, and answered as ever.
    assert deployment.sender.send(Callback(biz_order_no="refused", token="forged")).status == 400
    for order in orders:
        eventually(own_shop.about, order)
        assert len(deployment.ledger.claims_about(order)) == 1
    assert deployment.role("ledger").running
    assert deployment.role("ledger").pid == ledger
    if "stopped_reader" not in request.node.name:  # whose buffer takes some 10,000 lines
        eventually(lambda: measured.count("receiver", _LOST) >= len(orders))
        eventually(lambda: measured.count("ledger", _LOST) >= len(orders))
    for role in ROLES:
        assert deployment.role(role).terminate() == 0


def test_all_roles_on_one_machine_end_in_time_though_nobody_reads_their_log(
    deploy: Callable[..., Deployment], own_shop: Downstream, output: int
) -> None:
    deployment = deploy(Place())
    deployment.start("all", output=output)
    deployment.wait_until_receiving("all")
    assert deployment.sender.send(deployment.callback("one")).acknowledged
    eventually(lambda: own_shop.about("one"))
    assert len(deployment.ledger.claims_about("one")) == 1
    assert deployment.role("all").terminate() == 0


def test_a_locale_without_the_characters_of_a_callback_changes_nothing(
    deploy: Callable[..., Deployment], own_shop: Downstream
) -> None:
    deployment = deploy(Place())
    deployment.start(*ROLES, environment=_ASCII)
    deployment.wait_until_receiving()
    assert deployment.sender.send(deployment.callback("订单一")).acknowledged
    # Half of a character, which no encoding has: it is quoted as what cannot be read.
    unreadable = deployment.callback("订单二", changes={"order_type": "半\ud83d个"})
    assert deployment.sender.send(unreadable).acknowledged
    eventually(lambda: own_shop.about("订单一"))
    eventually(lambda: deployment.ledger.claims_about("订单二"))
    for role in ("receiver", "ledger"):
        for order in ("订单一", "订单二"):
            eventually(lambda role, line: line in deployment.role(role).output, role, f'"biz_order_no": "{order}"')
    for line in deployment.output.splitlines():
        json.loads(line)
