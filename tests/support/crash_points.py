"""Commands of the service that kill themselves at a crash point: before or after the n-th call of a named function.

The function exists anyway, in the service or in a library. It is wrapped before the command starts, so the service has
no switch, name or branch for it. Each command is forked from one process that has imported the service, which saves the
second that a start takes: `plain` commands, too, which run exactly what the command line runs.
"""

import ctypes
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from service.cli.__main__ import main
from tests.support.waiting import HANGS_AFTER_SECONDS

_PR_SET_PDEATHSIG = 1

_FORKS = multiprocessing.get_context("forkserver")
# What the commands import when they run.
_FORKS.set_forkserver_preload(
    [
        __name__,
        "alembic.command",
        "service.serving.threads",
        "service.bootstrap.api_role",
        "service.bootstrap.dispatcher_role",
        "service.bootstrap.inquirer_role",
        "service.bootstrap.ledger_role",
        "service.cli.main",
        "service.cli.migrate",
        "service.cli.prune",
        "service.cli.run",
        "service.ledger.postgresql",
        "service.messaging.rabbitmq.publisher",
        "service.messaging.rabbitmq.session",
        "service.messaging.rabbitmq.subscriber",
        "service.messaging.sqlite.spool",
        "service.receiver.server",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPoint:
    """A place in the service."""

    when: Literal["before", "after"]
    #: `module:function` or `module:Class.method`, where it is looked up when it is called.
    function: str
    #: Only calls that this function makes, directly or not, on its own thread. "": all calls.
    within: str = ""
    #: Only calls that return something: not None, False or an empty sequence.
    found: bool = False

    def require(self) -> None:
        """Fail where a function of this name does not exist."""
        for name in filter(None, (self.function, self.within)):
            _find(name)


def _find(name: str) -> tuple[Any, str, Callable[..., Any]]:
    """The module or class that has the function, the function's name there, and the function."""
    module, _, path = name.partition(":")
    *parents, last = path.split(".")
    try:
        owner: Any = import_module(module)
        for parent in parents:
            owner = getattr(owner, parent)
        return owner, last, getattr(owner, last)
    except (ImportError, AttributeError) as error:
        raise AssertionError(f"there is no function {name}; give its crash point the function's new name") from error


class _Depth(threading.local):
    """How many calls of a function are under way on this thread."""

    value = 0


def _install(point: CrashPoint, *, call: int, marker: Path) -> None:
    """Wrap the point's function: this process and its group die at the given call. `marker` shows that it came to that.

    Calls are counted in each process by itself.
    """
    numbers = itertools.count(1)
    depth = _Depth()
    owner, name, function = _find(point.function)

    def come_by() -> None:
        if (depth.value or not point.within) and next(numbers) == call:
            marker.touch()
            os.killpg(os.getpgrp(), signal.SIGKILL)

    @functools.wraps(function)
    def crashing(*arguments: Any, **keywords: Any) -> Any:
        if point.when == "before":
            come_by()
        result = function(*arguments, **keywords)
        if point.when == "after" and (result or not point.found):
            come_by()
        return result

    setattr(owner, name, crashing)
    if point.within:
        owner, name, outer = _find(point.within)

        @functools.wraps(outer)
        def entering(*arguments: Any, **keywords: Any) -> Any:
            depth.value += 1
            try:
                return outer(*arguments, **keywords)
            finally:
                depth.value -= 1

        setattr(owner, name, entering)


def _run(
    arguments: Sequence[str], environment: Mapping[str, str], log_file: Path, crash: tuple[CrashPoint, int] | None
) -> None:
    os.setsid()  # a crash kills the group: of a receiver, the workers, too
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.environ.update(environment)
    sys.argv = ["payment-callbacks", *arguments]
    if crash is not None:
        point, call = crash
        _install(point, call=call, marker=_marker(log_file))
    main()


def _marker(log_file: Path) -> Path:
    return log_file.with_suffix(".crashed")


class ForkedCommand:
    """One running command. Kill it at the end."""

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        log_file: Path,
        crash: tuple[CrashPoint, int] | None = None,
    ) -> None:
        """Start it. `crash` is a point, and the number of the call (from 1) at which the command dies there."""
        if crash is not None:
            crash[0].require()
        self._arguments = arguments
        self._log_file = log_file
        self._process = _FORKS.Process(target=_run, args=(arguments, environment, log_file, crash), daemon=True)
        self._process.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def wait(self) -> int:
        """Its exit code once it has ended by itself; negative where a signal ended it."""
        self._process.join(HANGS_AFTER_SECONDS)
        exit_code = self._process.exitcode
        assert exit_code is not None, f"still running: {self.describe()}"
        return exit_code

    def assert_crashed(self) -> None:
        """It came to its crash point, and died there."""
        assert (self.wait(), _marker(self._log_file).exists()) == (-signal.SIGKILL, True), self.describe()

    def kill(self) -> None:
        """SIGKILL to it and its children. Safe to call twice, and after its end."""
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid or 0, signal.SIGKILL)
            self._process.kill()  # where it has no group of its own yet
        self._process.join()

    def describe(self) -> str:
        """Its state and the end of its output."""
        output = self._log_file.read_text(errors="replace") if self._log_file.exists() else ""
        return (
            f"{' '.join(self._arguments)} (exit code {self._process.exitcode}), its output ends with:\n{output[-4000:]}"
        )
