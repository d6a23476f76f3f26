"""The child processes that the other tests rely on."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from tests.support.processes import Process, Processes, answers, run_module
from tests.support.waiting import eventually


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_a_process_that_ends_before_it_is_ready_fails_at_once_and_shows_its_output(processes: Processes) -> None:
    process = processes.start_command("bash", "-c", "echo no such setting; exit 3")

    with pytest.raises(AssertionError, match=re.compile(r"exit code 3.*no such setting", re.DOTALL)):
        process.wait_until(lambda: False, within_seconds=60)


def test_killing_a_process_kills_its_descendants_in_sessions_of_their_own_too(processes: Processes) -> None:
    process = processes.start_command(
        "bash", "-c", "sleep 600 & echo $!; setsid bash -c 'echo $$; exec sleep 600' & wait", name="parent"
    )
    eventually(lambda: process.output.split()[1:])
    pids = [int(pid) for pid in process.output.split()]
    assert all(map(alive, pids))

    process.kill()

    eventually(lambda: not any(map(alive, pids)))


@pytest.fixture(params=["a new Python", "a fork"])
def start_module(request: pytest.FixtureRequest, processes: Processes) -> Callable[..., Process]:
    """Starts a Python module in either way."""
    if request.param == "a fork":
        return processes.start_module
    return partial(processes.start_command, sys.executable, "-m")


def test_a_server_is_ready_once_it_answers(start_module: Callable[..., Process], free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/"
    assert not answers(url)

    server = start_module("http.server", "--bind", "127.0.0.1", str(free_port))
    server.wait_until(lambda: answers(url))

    assert os.getsid(server.pid) == server.pid
    assert server.terminate() == -signal.SIGTERM
    assert not answers(url)


def test_a_module_ends_with_its_own_exit_code_and_what_it_wrote(start_module: Callable[..., Process]) -> None:
    process = start_module("http.server", "--no-such-option")
    assert process.wait() == 2
    assert "unrecognized arguments: --no-such-option" in process.output


def test_a_module_that_is_run_to_its_end_has_its_two_streams_apart() -> None:
    done = run_module("http.server", "--no-such-option", environment={})
    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments: --no-such-option" in done.stderr


def test_a_fork_that_hangs_shows_where_it_stands(processes: Processes, free_port: int) -> None:
    server = processes.start_module("http.server", "--bind", "127.0.0.1", str(free_port))
    server.wait_until(lambda: answers(f"http://127.0.0.1:{free_port}/"))
    with pytest.raises(AssertionError, match="in serve_forever"):
        server.wait(within_seconds=0.1)


def test_a_process_that_does_not_end_shows_where_its_threads_stand(processes: Processes) -> None:
    program = (
        "import subprocess, sys, time\n"
        "def sleep_for_long():\n    time.sleep(600)\n"
        "if 'child' not in sys.argv:\n"
        "    subprocess.Popen([sys.executable, '-c', sys.orig_argv[2], 'child'])\n"
        "print('begun', flush=True)\n"
        "sleep_for_long()\n"
    )
    process = processes.start_command(sys.executable, "-c", program)
    process.wait_until(lambda: process.output.count("begun") == 2)

    with pytest.raises(AssertionError) as failed:
        process.wait(within_seconds=0.1)

    assert str(failed.value).count("in sleep_for_long") == 2


_TAKE_PORTS = """
import sys
from tests.support.processes import find_free_port
print(*[find_free_port() for _ in range(120)], flush=True)
sys.stdin.read()
"""


def test_no_two_processes_get_the_same_port() -> None:
    command = [sys.executable, "-c", _TAKE_PORTS]
    with ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(4)
        ]
        lines = [process.stdout.readline() for process in started if process.stdout is not None]
    ports = [port for line in lines for port in line.split()]
    assert len(ports) == len(set(ports)) == 480
