"""A stand-in for whoever owns a notify_url: keeps what it is sent and answers what the test says."""

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.local_server import LocalServer, SilentHandler


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


class CallbackListener(LocalServer):
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

        class Handler(SilentHandler):
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

        super().__init__(Handler, tls=tls)

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return self.origin

    @property
    def heard(self) -> list[Heard]:
        """What has come in so far, in order."""
        with self._lock:
            return list(self._heard)
