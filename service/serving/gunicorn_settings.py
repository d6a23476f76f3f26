"""What every server under gunicorn shares: settings, signals around a fork, and a logger that leaks no tokens."""

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - private files are made in it
# Signals that end a worker; the master sends the first three.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def find_shared_memory() -> Path:
    """A folder for files that are written many times per second: in memory if possible, else on disk."""
    if _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        return _SHARED_MEMORY
    return Path(tempfile.gettempdir())


def common_settings() -> dict[str, Any]:
    """gunicorn's settings by name; a server adds its own."""
    return {
        "worker_tmp_dir": str(find_shared_memory()),
        "on_starting": _end_at_hangup,
        # Requests beyond these limits get the same refusal as others, so the exact limits do not matter.
        "limit_request_line": 4094,
        "limit_request_fields": 100,
        # gunicorn trusts no header of a proxy; the application decides which it trusts.
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "secure_scheme_headers": {},
        # Our tests cover the Python parser only; see docs/decisions/0017.
        "http_parser": "python",
        # A socket in the file system that nobody uses, and that a read-only root file system does not allow.
        "control_socket_disable": True,
        "preload_app": False,
        "accesslog": None,
    }


def _end_at_hangup(arbiter: Any) -> None:
    """Let SIGHUP end the master as SIGTERM does; gunicorn would start new workers. See `LoopWorker`.

    If it is ignored from the start, as under `nohup`, it stays ignored.
    """
    arbiter.handle_hup = arbiter.handle_term
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        arbiter.SIGNALS = [number for number in arbiter.SIGNALS if number != signal.SIGHUP]


def keep_signals_over_forks() -> None:
    """Lose no signal to a new worker. Call it once, in the master, before it serves.

    A new worker has the master's handlers until it sets its own. They would only record a SIGTERM in the worker's copy
    of the master's queue, and the master would wait for that worker in vain, for the whole `graceful_timeout`.
    """
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_end_by_signals)


def _hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _end_by_signals() -> None:
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)  # nothing has begun yet that would have to be finished
    _release_signals()


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn has no type hints
    """Passes gunicorn's lines to the log of the process. There is no access log, because it would contain tokens."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.error_log.propagate = True

    def _set_handler(self, *_args: Any, **_kwargs: Any) -> None:
        """Add none: `configure_logs` has set up the handlers."""
