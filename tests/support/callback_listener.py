"""A stand-in for whoever owns a notify_url: keeps what it is sent and answers what the test says."""

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One POST as it came in."""

    path: str
    content_type: str
    body: bytes
    client_port: int

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class CallbackListener:
    """An HTTP server on a free port of 127.0.0.1. `answer` gives the status and body for each POST."""

    def __init__(
        self,
        answer: Callable[[Heard], tuple[int, str]] = lambda _: (200, "success"),
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self._heard: list[Heard] = []
        self._lock = threading.Lock()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body go out in two writes, which Nagle's algorithm would hold apart.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                heard = Heard(
                    path=self.path,
                    content_type=self.headers.get("Content-Type", ""),
                    body=self.rfile.read(length),
                    client_port=self.client_address[1],
                )
                status, text = listener.answer(heard)
                with listener._lock:
                    listener._heard.append(heard)
                self.send_response(status)
                content = text.encode()
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            # The handshake belongs to the connection's own thread, not to the one that accepts.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # callers hang up as they like
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    @property
    def heard(self) -> list[Heard]:
        """What has come in so far, in order."""
        with self._lock:
            return list(self._heard)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
