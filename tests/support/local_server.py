"""An HTTP server in threads of the test's own process: what the servers that play other systems have in common."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class SilentHandler(BaseHTTPRequestHandler):
    """Keeps connections open, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


class LocalServer:
    """Listens on a free port of 127.0.0.1. Use it as a context manager."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], *, tls: ssl.SSLContext | None = None) -> None:
        #: Set at the end, for handlers that hang.
        self.closing = threading.Event()
        #: How many connections it has closed.
        self.hung_up = 0
        self._server = _Server(self, handler)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            # The handshake belongs to the connection's own thread, not to the one that accepts.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        """It listens there."""
        return self._server.server_port

    @property
    def origin(self) -> str:
        """Its address, without a path."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: LocalServer, handler: type[BaseHTTPRequestHandler]) -> None:
        self._owner = owner
        super().__init__(("127.0.0.1", 0), handler)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._owner.hung_up += 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no error here."""
