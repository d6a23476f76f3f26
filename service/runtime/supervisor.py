"""Child processes that are restarted when they die, and never outlive their parent."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.runtime.backoff import exponential
from service.runtime.logs import Logger

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

log = Logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One child process: its name, and the arguments of our command line that start it."""

    name: str
    arguments: Sequence[str]


@dataclass(slots=True, kw_only=True)
class _Child:
    role: Role
    process: "subprocess.Popen[bytes]"
    restarts: int = 0
    started_at: float = field(default_factory=time.monotonic)
    restart_at: float | None = None


class Supervisor:
    """Keeps one process per role running until it is stopped.

    A child that dies is restarted after a pause that grows from `first_pause_seconds` to `max_pause_seconds`. A child
    that ran for longer than `max_pause_seconds` counts as healthy, and its pause starts over.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        environment: Mapping[str, str],
        first_pause_seconds: float = 0.5,
        max_pause_seconds: float = 30.0,
    ) -> None:
        self._roles = roles
        self._environment = dict(environment)
        self._first_pause_seconds = first_pause_seconds
        self._max_pause_seconds = max_pause_seconds

    def run(self, stop: threading.Event, *, grace_seconds: float) -> None:
        """Keep the children running until `stop` is set; then send SIGTERM, and SIGKILL after `grace_seconds`."""
        children = [_Child(role=role, process=self._start(role)) for role in self._roles]
        try:
            while not stop.wait(0.2):
                for child in children:
                    self._restart_dead(child)
        finally:
            _end([child.process for child in children], grace_seconds)

    def _restart_dead(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process.poll() is None:
            return
        if child.restart_at is None:
            if now - child.started_at > self._max_pause_seconds:
                child.restarts = 0
            pause = exponential(
                child.restarts + 1,
                first_seconds=self._first_pause_seconds,
                most_seconds=self._max_pause_seconds,
                jitter=0.0,
                random=0.0,
            )
            child.restart_at = now + pause
            log.error("child_died", role=child.role.name, exit_code=child.process.returncode, restart_in_seconds=pause)
        elif now >= child.restart_at:
            child.restarts += 1
            child.started_at, child.restart_at = now, None
            child.process = self._start(child.role)

    def _start(self, role: Role) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "service.cli", *role.arguments]
        process = subprocess.Popen(  # noqa: S603 - our own command line
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )
        log.info("child_started", role=role.name, pid=process.pid)
        return process


def die_with_parent() -> None:
    """Runs in the child before exec: the kernel then ends the child when its parent ends, even by SIGKILL."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(processes: Sequence["subprocess.Popen[bytes]"], grace_seconds: float) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + grace_seconds
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("child_killed", pid=process.pid, grace_seconds=grace_seconds)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
