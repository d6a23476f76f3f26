"""What every server under gunicorn shares: the settings that are decisions, and a logger that tells no addresses."""

from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

# Memory where there is such a thing: heartbeats are written many times per second.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - private files are made in it


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


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn has no type hints
    """Leaves gunicorn's own lines to the process's log; there is no access log, for it would hold tokens."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.error_log.propagate = True

    def _set_handler(self, *_args: Any, **_kwargs: Any) -> None:
        """Add none: what `configure_logs` has set up takes the lines."""
