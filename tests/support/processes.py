"""Child processes that never outlive the tests, the ports that they listen on, and roles in threads."""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Protocol, runtime_checkable

import urllib3

from tests.support.fork_server import Fork, ForkServer
from tests.support.waiting import HANGS_AFTER_SECONDS, Arguments, eventually

# Below the range from which the kernel takes the ports of outgoing connections: a server that is down must find its own
# port free when it comes back, and a client that keeps trying it must not by chance connect to itself.
_FIRST_PORT, _LAST_PORT = 18_000, 32_000


_PORTS_AT_ONCE = 50


def find_free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on, and that no other process gets from here while this one lives."""
    with _finding_port:
        return next(_free_ports)


def _find_free_ports() -> Iterator[int]:
    firsts = list(range(_FIRST_PORT, _LAST_PORT, _PORTS_AT_ONCE))
    random.shuffle(firsts)
    for first in firsts:
        claim = socket.socket(socket.AF_UNIX)
        try:
            # An abstract name: like a port, it belongs to the network namespace, and is free when its process ends.
            claim.bind(f"\0payment-callbacks-test-ports-{first}")
        except OSError:
            claim.close()
            continue
        claim.detach()
        yield from filter(_is_free, range(first, first + _PORTS_AT_ONCE))
    raise RuntimeError(f"no free port between {_FIRST_PORT} and {_LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_free_ports = _find_free_ports()
_finding_port = threading.Lock()


def answers(url: str, *, status: int = 200) -> bool:
    """Whether a GET is answered with `status` right now; a refused connection is a no. For `Process.wait_until`."""
    try:
        return urllib3.request("GET", url, timeout=30.0, retries=False).status == status
    except urllib3.exceptions.HTTPError:
        return False


_REPOSITORY = Path(__file__).parents[2]
# What it holds is imported by every Python that finds it on its path.
_THREAD_STACKS = Path(__file__).parent / "thread_stacks"
_SHOW_THREAD_STACKS = signal.SIGRTMIN + 7


@runtime_checkable
class Describable(Protocol):
    """Whoever can say what the processes behind it wrote last. A failed test's report shows it for every fixture."""

    def describe(self) -> str:
        """The end of the output of each."""


class Process:
    """One command as a child process, in a session (so a process group) of its own, its output in a file.

    It may be started again after its end; the output is appended. Should pytest itself be killed, the kernel kills the
    child: so start it from a thread that lives as long as it should.
    """

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str | Path],
        log_file: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path = _REPOSITORY,
        output: int | None = None,
        forked: bool = False,
    ) -> None:
        """`output` is a descriptor to write to in place of the file.

        `forked`: the command is a Python module and its arguments, and is run by the fork server.
        """
        self.name = name
        self.log_file = log_file
        self._stacks_file = log_file.with_suffix(".stacks")
        self._command = list(map(str, command))
        self._output = output
        self._environment = _with_thread_stacks(
            os.environ if environment is None else environment, file=self._stacks_file
        )
        self._directory = directory
        self._forked = forked
        self._child: subprocess.Popen[bytes] | Fork | None = None

    @property
    def pid(self) -> int:
        """The process id, while and after it runs."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether it is stopped where it is, by `freeze` or by its own hand."""
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    @property
    def exit_code(self) -> int | None:
        """None while it runs, negative where a signal ended it."""
        return None if self._child is None else self._child.poll()

    @property
    def output(self) -> str:
        """Everything it has written to stdout and stderr so far, without colours."""
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return re.sub(r"\x1b\[[0-9;]*m", "", text) if "\x1b" in text else text

    def start(self) -> None:
        """Start it; returns at once."""
        assert not self.running, f"{self.name} is running already"
        with self.log_file.open("ab") as log:
            output = log.fileno() if self._output is None else self._output
            if self._forked:
                module, *arguments = self._command
                self._child = _fork_server().run(
                    module, arguments, environment=self._environment, output=output, errors=output
                )
                return
            # SIGHUP is ignored where the tests themselves run under nohup.
            kept = [_program("env"), "--default-signal=HUP", _program("setpriv"), "--pdeathsig=KILL"]
            self._child = subprocess.Popen(
                [*kept, *self._command],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(
        self,
        ready: Callable[[*Arguments], object],
        *arguments: *Arguments,
        within_seconds: float = HANGS_AFTER_SECONDS,
    ) -> None:
        """Wait until `ready`, given `arguments`, is true.

        Fails at once, with the output, where the process ends before that.
        """

        def is_ready_or_ended() -> bool:
            return bool(ready(*arguments)) or not self.running

        eventually(is_ready_or_ended, within_seconds=within_seconds, why=self._describe_hanging)
        assert self.running, f"ended before it was ready: {self.describe()}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its children."""
        assert self._child is not None, f"{self.name} was never started"
        self._child.send_signal(number)

    def terminate(self, *, within_seconds: float = HANGS_AFTER_SECONDS) -> int:
        """SIGTERM, as an orderly shutdown does, and the exit code; an AssertionError where it does not end in time."""
        self.signal(signal.SIGTERM)
        return self.wait(within_seconds=within_seconds)

    def wait(self, *, within_seconds: float = HANGS_AFTER_SECONDS) -> int:
        """The exit code, once it has ended by itself; an AssertionError where it does not end in time."""
        assert self._child is not None, f"{self.name} was never started"
        try:
            return self._child.wait(timeout=within_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within_seconds} s: {self._describe_hanging()}") from None

    def kill(self) -> None:
        """SIGKILL to it and all its descendants. Safe to call twice, and after its end."""
        if self._child is None:
            return
        # Its group, where orphans may be left, and descendants in sessions of their own, as PostgreSQL's are.
        descendants = descendants_of(self._child.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        _signal_all(descendants, signal.SIGKILL)
        self._child.wait()

    def freeze(self) -> None:
        """Stop it and its descendants where they are, connections open (SIGSTOP): what a hung machine looks like."""
        pids = [self.pid, *descendants_of(self.pid)]
        _signal_all(pids, signal.SIGSTOP)
        # On a busy machine other threads go on until one of them has had its turn and taken the signal.
        eventually(lambda: all(map(_is_stopped, pids)))

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        _signal_all([self.pid, *descendants_of(self.pid)], signal.SIGCONT)

    def descendants(self) -> list[int]:
        """The process ids of its children, and of theirs."""
        return descendants_of(self.pid)

    def describe(self) -> str:
        """Name, state and the end of the output, for the message of a failed assertion."""
        state = "running" if self.running else f"exit code {self.exit_code}"
        return f"{self.name} ({state}), its output ends with:\n{self.output[-4000:]}"

    def _describe_hanging(self) -> str:
        """And where the threads of it and of its descendants stand, of those that are Python."""
        for pid in [self.pid, *descendants_of(self.pid)] if self.running else []:
            with contextlib.suppress(OSError):  # it has ended
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "python" not in command:
                    continue  # the signal would end it
                with self._stacks_file.open("a") as file:
                    file.write(f"\nProcess {pid}: {command}\n")
                os.kill(pid, _SHOW_THREAD_STACKS)
                time.sleep(0.3)  # it writes at once, but may be one of many that want the processor
        stacks = self._stacks_file.read_text(errors="replace") if self._stacks_file.exists() else ""
        return f"{self.describe()}\n{stacks[-20_000:]}"


class Processes:
    """Starts the command lines of this project, and ends them all."""

    def __init__(self, *, folder: Path) -> None:
        self._folder = folder
        self._started: list[Process] = []

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        name: str = "",
        output: int | None = None,
    ) -> Process:
        """Start `payment-callbacks <arguments>`, with `environment` on top of what the tests themselves run in.

        `output` is a descriptor that it writes to in place of a file of its own.
        """
        return self.start_module(
            "service.cli", *arguments, environment=environment, name=name or arguments[0], output=output
        )

    def start_module(
        self,
        module: str,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        name: str = "",
        output: int | None = None,
    ) -> Process:
        """Start a Python module the same way, in a fork: variables that are read at import have no effect."""
        return self._start(module, *arguments, environment=environment, name=name or module, output=output, forked=True)

    def start_command(
        self,
        *command: str | Path,
        environment: Mapping[str, str] | None = None,
        name: str = "",
        output: int | None = None,
    ) -> Process:
        """Start any command."""
        name = name or Path(command[0]).name
        return self._start(*command, environment=environment, name=name, output=output, forked=False)

    def _start(
        self,
        *command: str | Path,
        environment: Mapping[str, str] | None,
        name: str,
        output: int | None,
        forked: bool,
    ) -> Process:
        process = Process(
            name=name,
            command=command,
            log_file=self._folder / f"{len(self._started)}-{name}.log",
            environment={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            output=output,
            forked=forked,
        )
        self._started.append(process)
        process.start()
        return process

    def describe(self) -> str:
        """What every process started so far wrote last."""
        return "\n\n".join(process.describe() for process in self._started)

    def kill_all(self) -> None:
        """End everything that still runs, newest first."""
        for process in reversed(self._started):
            process.kill()


def run_module(
    module: str, *arguments: str | Path, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a Python module that ends by itself in a fork, as `Processes.start_module` does; nothing is added to its
    environment.
    """
    with TemporaryFile() as output, TemporaryFile() as errors:
        fork = _fork_server().run(
            module,
            list(map(str, arguments)),
            environment=_with_thread_stacks(environment, file=Path(os.devnull)),
            output=output.fileno(),
            errors=errors.fileno(),
        )
        try:
            code = fork.wait(HANGS_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            fork.send_signal(signal.SIGKILL)
            raise
        written = [_written_to(file) for file in (output, errors)]
    return subprocess.CompletedProcess(arguments, code, *written)


def _written_to(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@cache
def _fork_server() -> ForkServer:
    return ForkServer(environment=_with_thread_stacks({**os.environ, "PYTHONUNBUFFERED": "1"}, file=Path(os.devnull)))


def _with_thread_stacks(environment: Mapping[str, str], *, file: Path) -> dict[str, str]:
    """The environment of a Python that writes to this file where its threads stand."""
    path = filter(None, [str(_THREAD_STACKS), environment.get("PYTHONPATH")])
    return {**environment, "PYTHONPATH": os.pathsep.join(path), "THREAD_STACKS": str(file)}


def children_of(pid: int) -> list[int]:
    """The process ids of a process's children; none where it has ended."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, file.read_text().split())
    return found


def descendants_of(pid: int) -> list[int]:
    """The process ids of its children, and of theirs."""
    return [found for child in children_of(pid) for found in (child, *descendants_of(child))]


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(pid, number)


def _is_stopped(pid: int) -> bool:
    """Whether each of its threads is, or has ended."""
    states = set()
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            states.add(file.read_text().rpartition(")")[2].split()[0])
    return states <= {"T", "Z", "X"}


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is not installed"
    return found


class Runnable(Protocol):
    """A role of the service."""

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""


@contextmanager
def running(role: Runnable) -> Iterator[threading.Event]:
    """Run it while the `with` lasts; whatever it raised is raised at the end. The value is its `stop`."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(role.run, stop)
        try:
            yield stop
        finally:
            stop.set()
        done.result(timeout=HANGS_AFTER_SECONDS)
