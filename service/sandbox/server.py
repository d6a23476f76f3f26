"""The sandbox as a server of its own: werkzeug's threaded one, which is enough for a gateway to test against."""

import socket
import threading
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from werkzeug.serving import WSGIRequestHandler, make_server

from service.sandbox.app import create_sandbox
from service.sandbox.gateway import SandboxGateway
from service.sandbox.settings import SandboxSettings


class _QuietHandler(WSGIRequestHandler):
    """Logs no requests: the admin pages count them, and a lost answer is no error here."""

    def log(self, type: str, message: str, *args: object) -> None:
        pass


class SandboxServer:
    """A sandbox that listens from the moment it is made; `start` serves, `close` (safe to call twice) ends it.

    Raises OSError where the address is taken. Port 0 takes a free one; `url` says which.
    """

    def __init__(self, *, settings: SandboxSettings, clock: Callable[[], datetime]) -> None:
        self.sandbox = SandboxGateway(settings=settings, clock=clock)
        host, _, port = settings.bind.rpartition(":")
        # werkzeug ends the process where the address is taken; a socket of our own raises.
        with socket.create_server((host, int(port)), backlog=128) as listening:
            self._server = make_server(
                host,
                int(port),
                create_sandbox(self.sandbox),
                threaded=True,
                request_handler=_QuietHandler,
                fd=listening.fileno(),
            )
        self._thread = threading.Thread(target=self._serve, name="sandbox", daemon=True)

    @property
    def base_url(self) -> str:
        """Where the help page is; /admin/report and the others are below it."""
        return f"http://{self._server.host}:{self._server.port}"

    @property
    def url(self) -> str:
        """The gateway's one URL."""
        return f"{self.base_url}/gateway"

    def start(self) -> None:
        """Serve and call back, in threads of its own."""
        self.sandbox.start()
        self._thread.start()

    def close(self) -> None:
        """Stop both."""
        self.sandbox.close()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _serve(self) -> None:
        # How long `close` waits at most for it to notice.
        self._server.serve_forever(poll_interval=0.05)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
