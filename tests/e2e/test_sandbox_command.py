"""`payment-callbacks sandbox` as a process."""

import socket
from pathlib import Path

import urllib3

from tests.support.gateway import GatewayCaller
from tests.support.processes import Processes


def test_the_sandbox_runs_without_any_settings(processes: Processes, free_port: int) -> None:
    sandbox = processes.start("sandbox", "--bind", f"127.0.0.1:{free_port}")
    sandbox.wait_until(lambda: "The sandbox gateway is at" in sandbox.output)
    caller = GatewayCaller(url=f"http://127.0.0.1:{free_port}/gateway", ua="SANDBOX", key="sandbox-aes-key0")
    assert caller.withhold("T1-instant", pay_type="sandbox_001")["response"]["pay_status"] == "success"
    assert "single-withhold" in urllib3.request("GET", f"http://127.0.0.1:{free_port}/").data.decode()
    assert sandbox.terminate() == 0


def test_the_log_says_what_broke_the_document(processes: Processes, free_port: int) -> None:
    sandbox = processes.start("sandbox", "--bind", f"127.0.0.1:{free_port}")
    sandbox.wait_until(lambda: "The sandbox gateway is at" in sandbox.output)
    unsorted = GatewayCaller(
        url=f"http://127.0.0.1:{free_port}/gateway",
        ua="SANDBOX",
        key="sandbox-aes-key0",
        dialect={"key_sorting": "none"},
    )
    assert "升序" in unsorted.withhold("T1", pay_type="sandbox_001")["message"]
    sandbox.wait_until(lambda: "the keys are not sorted in ascending order" in sandbox.output)
    assert sandbox.terminate() == 0


def test_an_address_that_is_taken_is_named(processes: Processes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        sandbox = processes.start("sandbox", "--bind", address)
        assert sandbox.wait() == 1
        assert f"cannot listen on {address}" in sandbox.output


def test_settings_that_cannot_be_used_are_named(processes: Processes, tmp_path: Path) -> None:
    settings = tmp_path / "sandbox.toml"
    settings.write_text('[[accounts]]\nua = "A"\naes_key = "short"\npay_types = ["x"]\n')
    sandbox = processes.start("sandbox", "--settings", str(settings))
    assert sandbox.wait() == 1
    assert "key = 'aes_key' makes 5 bytes" in sandbox.output
