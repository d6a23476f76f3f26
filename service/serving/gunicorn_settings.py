"""What every server under gunicorn shares: settings, workers that hear signals, a logger that tells no addresses."""

import os
import signal
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

# Memory where there is such a thing: heartbeats are written many times per second.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - private files are made in it
# What the master ends a worker with.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def common_settings() -> dict[str, Any]:
    """gunicorn's settings by name; a server adds its own."""
    return {
        "worker_tmp_dir": str(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None,
        # Refused with the same body as everything else, so nothing depends on where exactly the bounds are.
        "limit_request_line": 4094,
        "limit_request_fields": 100,
        # No header of a proxy is believed by gunicorn; what the application believes, it says itself.
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "secure_scheme_headers": {},
        # The C parser is not what we vouch for; see docs/decisions/0001.
        "http_parser": "python",
        # A socket in the file system that nobody uses, and that a read-only root refuses.
        "control_socket_disable": True,
        "preload_app": False,
        "accesslog": None,
    }


def keep_signals_over_forks() -> None:
    """Let workers hear every signal from their fork on. Call it once, in the master, before it serves.

    A new worker has the master's handlers until it sets its own. A SIGTERM in between would only be put down in its
    copy of the master's list, and the master wait for that worker in vain, for the whole `graceful_timeout`.
    """
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_end_by_signals)


def _hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _end_by_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)  # nothing is in hand yet that would have to be finished
    _release_signals()


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn has no type hints
    """Leaves gunicorn's own lines to the process's log; there is no access log, for it would hold tokens."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.error_log.propagate = True

    def _set_handler(self, *_args: Any, **_kwargs: Any) -> None:
        """Add none: what `configure_logs` has set up takes the lines."""
