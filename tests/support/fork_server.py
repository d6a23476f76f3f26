"""Runs Python modules in forks of a process that has imported the service.

A role imports for longer than it does anything else at its start, and the tests start hundreds of them. A fork is a
process of its own, with its own session, environment and streams, and it ends as any Python process does. It differs
from `python -m` only in what Python and libraries read at import: variables such as PYTHONUTF8 or WEB_CONCURRENCY.
"""

import ctypes
import gc
import importlib
import io
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NoReturn

# What the roles and commands import by and by.
_PRELOADED = (
    *(f"service.cli.{name}" for name in ("main", "run", "config", "dead", "endpoints", "gateway", "orders", "report")),
    *(f"service.bootstrap.{role}_role" for role in ("ledger", "inquirer", "dispatcher", "api")),
    *("service.bootstrap.messaging", "service.bootstrap.gateways", "service.ledger.schema"),
    *("service.receiver.server", "service.api.server"),
    *("service.messaging.rabbitmq.publisher", "service.messaging.rabbitmq.subscriber"),
    *("sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite.pysqlite"),
    *("tests.support.receiver", "tests.support.faulty_roles", "tests.support.hasty_roles"),
)
_MAX_BYTES = 1_000_000
_PR_SET_PDEATHSIG = 1


class ForkServer:
    """One such process, which ends with the process that made it, and all its forks with it."""

    def __init__(self, *, environment: Mapping[str, str]) -> None:
        """`environment` is what the imports see."""
        self._requests, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with served:
            self._process = subprocess.Popen(
                ["env", "--default-signal=HUP", sys.executable, "-m", __name__, str(served.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[served.fileno()],
                start_new_session=True,
            )

    def run(
        self, module: str, arguments: Sequence[str], *, environment: Mapping[str, str], output: int, errors: int
    ) -> "Fork":
        """Start `python -m module arguments` in the folder of the repository; returns once it has its session.

        `output` and `errors` are the descriptors that it writes to.
        """
        report, reporter = Pipe(duplex=False)
        with reporter:
            request = {
                "module": module,
                "arguments": list(arguments),
                "environment": dict(environment),
                "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
            }
            descriptors = [output, errors, reporter.fileno()]
            socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
        return Fork(report)


class Fork:
    """A running module: as much of `subprocess.Popen` as is used."""

    def __init__(self, report: "Connection[Any, Any]") -> None:
        """`report` brings the process id, and in the end the exit code."""
        self._report = report
        self._returncode: int | None = None
        self.pid: int = report.recv()["pid"]

    def poll(self) -> int | None:
        """The exit code, negative where a signal ended it; None while it runs."""
        if self._returncode is None and self._report.poll():
            self._returncode = self._report.recv()["exit_code"]
            self._report.close()
        return self._returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; raises TimeoutExpired after `timeout` seconds."""
        if self._returncode is None:
            self._report.poll(timeout)
        code = self.poll()
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _serve(requests: socket.socket) -> dict[str, Any]:
    """Fork for every request. Returns in the forks only, each with its request."""
    reporters: dict[int, Connection[Any, Any]] = {}

    def report_ends(_number: int, _frame: FrameType | None) -> None:
        while reporters:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with reporters.pop(pid) as reporter, suppress(BrokenPipeError):
                reporter.send({"exit_code": os.waitstatus_to_exitcode(status)})

    signal.signal(signal.SIGCHLD, report_ends)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _MAX_BYTES, 3)
        if not message:
            sys.exit()  # the tests have ended
        output, errors, report = descriptors
        reporter: Connection[Any, Any] = Connection(report, readable=False)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid:
            reporters[pid] = reporter
            os.close(output)
            os.close(errors)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            continue
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        reporter.send({"pid": os.getpid()})
        requests.close()
        for one in (reporter, *reporters.values()):
            one.close()
        request: dict[str, Any] = json.loads(message)
        _take_on(output, errors, request["environment"])
        resource.setrlimit(resource.RLIMIT_NOFILE, request["open_files"])
        return request


def _take_on(output: int, errors: int, environment: Mapping[str, str]) -> None:
    """Take on the streams and the environment that a new process would have been started with."""
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # Python looks at a descriptor when it makes a stream of it: at whether it can be searched.
    sys.stdout = _open_unbuffered(1)
    sys.stderr = _open_unbuffered(2)
    os.environ.clear()
    os.environ.update(environment)
    importlib.import_module("sitecustomize").write_stacks_when_asked()


def _open_unbuffered(descriptor: int) -> io.TextIOWrapper:
    file = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)


def main() -> NoReturn:
    requests = socket.socket(fileno=int(sys.argv[1]))
    for module in _PRELOADED:
        importlib.import_module(module)
    gc.freeze()  # collections in the forks would otherwise copy what they share
    request = _serve(requests)
    module = request["module"]
    for name in (module, f"{module}.__main__"):
        if not hasattr(sys.modules.get(name), "__path__"):
            sys.modules.pop(name, None)  # a module that is run must not be there already
    sys.argv = [module, *request["arguments"]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    main()
