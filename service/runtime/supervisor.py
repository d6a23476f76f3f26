"""Our own commands as child processes, which never outlive their parent, and the restart of those that die."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from service.runtime.backoff import exponential
from service.runtime.logs import Logger

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
# The pause before a dead child is restarted grows from the first to the second. A child that ran for longer than the
# second counts as healthy, and its pause starts over.
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0

ChildProcess = subprocess.Popen[bytes]

log = Logger(__name__)


@dataclass(slots=True, kw_only=True)
class _Child:
    name: str
    arguments: Sequence[str]
    process: ChildProcess
    restarts: int = 0
    started_at: float = field(default_factory=time.monotonic)
    restart_at: float | None = None


def supervise(commands: Mapping[str, Sequence[str]], stop: threading.Event, *, grace_seconds: float) -> None:
    """Keep a process per command running until `stop` is set; then send SIGTERM, and SIGKILL after `grace_seconds`.

    `commands`: the arguments of our command line, by the name to log.
    """
    children = [_Child(name=name, arguments=given, process=_start(name, given)) for name, given in commands.items()]
    try:
        while not stop.wait(0.2):
            for child in children:
                _restart_dead(child)
    finally:
        end_processes([child.process for child in children], grace_seconds=grace_seconds)


def _restart_dead(child: _Child) -> None:
    now = time.monotonic()
    if child.process.poll() is None:
        return
    if child.restart_at is None:
        if now - child.started_at > _MAX_PAUSE_SECONDS:
            child.restarts = 0
        pause = exponential(
            child.restarts + 1,
            first_seconds=_FIRST_PAUSE_SECONDS,
            max_seconds=_MAX_PAUSE_SECONDS,
            jitter=0.0,
            random=0.0,
        )
        child.restart_at = now + pause
        log.error("child_died", role=child.name, exit_code=child.process.returncode, restart_in_seconds=pause)
    elif now >= child.restart_at:
        child.restarts += 1
        child.started_at, child.restart_at = now, None
        child.process = _start(child.name, child.arguments)


def _start(name: str, arguments: Sequence[str]) -> ChildProcess:
    process = start_command(arguments)
    log.info("child_started", role=name, pid=process.pid)
    return process


def start_command(
    arguments: Sequence[str], *, environment: Mapping[str, str] | None = None, output: IO[bytes] | None = None
) -> ChildProcess:
    """Start our own command line in a session of its own. `environment` and `output` are by default this process's.

    The kernel ends the child with SIGTERM when the thread that called this ends, even by SIGKILL.
    """
    return subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-m", "service.cli", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        preexec_fn=_die_with_parent,
        start_new_session=True,
    )


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_processes(processes: Iterable[ChildProcess], *, grace_seconds: float) -> None:
    """Send SIGTERM to all, and SIGKILL to the sessions of those that have not ended after `grace_seconds`."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + grace_seconds
    for process in running:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("child_killed", pid=process.pid, grace_seconds=grace_seconds)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
