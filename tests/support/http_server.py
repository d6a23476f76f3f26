"""HTTP servers in threads of the test's own process, which answer as a test tells them to."""

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came in. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    #: Tells connections apart: equal for requests over the same one.
    connection: int

    @property
    def content_type(self) -> str:
        """ "" where it has none."""
        return self.headers.get("content-type", "")

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back, all of it or drop by drop."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Text goes out as UTF-8.
    body: bytes | str = b""
    #: Seconds between two bytes, of the header lines and the body alike.
    pause_seconds: float = 0.0
    #: Raw bytes that go out first, and the seconds by which they are ahead of the rest.
    before: bytes = b""
    ahead_seconds: float = 0.0
    #: Raw bytes that go out last: together with the rest, or by themselves once `after_when` is set.
    after: bytes = b""
    after_when: threading.Event | None = None
    #: Close the connection at the end, without having said so.
    hang_up: bool = False


#: Told each request; it may wait before it answers.
Behaviour = Callable[[Request], Answer]


class ScriptedServer(LocalServer):
    """Use it as a context manager. `behave` may be exchanged at any time."""

    def __init__(self, behave: Behaviour = lambda _request: Answer(), *, certificate: Path | None = None) -> None:
        """With a `certificate` (PEM, its key in the same file) it speaks TLS."""
        self.behave = behave
        self.requests: list[Request] = []
        #: How many were answered, with all that goes out last.
        self.answered = 0
        tls = None
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)

        class Handler(_Handler):
            script = self

        super().__init__(Handler, tls=tls)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.origin}/events"

    def hang(self, _request: Request) -> Answer:
        """A behaviour: never answer while the server lives."""
        self.closing.wait()
        return Answer(status=500)


class _Handler(SilentHandler):
    script: ScriptedServer

    def do_POST(self) -> None:
        script = self.script
        size = int(self.headers["content-length"])
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True  # its sender was killed in the middle
            return
        request = Request(
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            connection=self.client_address[1],
        )
        script.requests.append(request)
        answer = script.behave(request)
        content = answer.body.encode() if isinstance(answer.body, str) else answer.body
        length = {} if "transfer-encoding" in answer.headers else {"content-length": str(len(content))}
        headers = {**length, **answer.headers}
        if answer.ahead_seconds:
            self.wfile.write(answer.before)
            script.closing.wait(answer.ahead_seconds)
        lines = [f"HTTP/1.1 {answer.status} As told", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        first = b"" if answer.ahead_seconds else answer.before
        last = b"" if answer.after_when else answer.after
        self._write(first + "\r\n".join(lines).encode() + content + last, answer.pause_seconds)
        if answer.after_when:
            answer.after_when.wait()
            self.wfile.write(answer.after)
        script.answered += 1
        self.close_connection |= answer.hang_up

    def _write(self, data: bytes, pause_seconds: float) -> None:
        if not pause_seconds:
            self.wfile.write(data)
            return
        for position in range(len(data)):
            self.wfile.write(data[position : position + 1])
            time.sleep(pause_seconds)


_REASONS = {100: "Continue", 102: "Processing", 103: "Early Hints"}
#: Longer than any time limit of a test.
NEVER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Interim:
    """So many of one status, and the seconds by which they are ahead of the final answer."""

    status: int
    count: int = 1
    ahead_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.count} x {self.status}, {self.ahead_seconds} s ahead"

    @property
    def content(self) -> bytes:
        """As it goes over the wire."""
        reason = _REASONS.get(self.status, "As told")
        return (f"HTTP/1.1 {self.status} {reason}\r\nLink: </a.css>; rel=preload\r\n\r\n").encode() * self.count


#: Each kind, once and several times, at once with the final answer and well ahead of it.
EVERY_INTERIM = [
    *(Interim(status, count) for status in (100, 102, 103, 199) for count in (1, 3)),
    *(Interim(status, count, 0.1) for status in (102, 103) for count in (1, 3)),
]


def make_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 (not for `localhost`) followed by its key, in one file in PEM."""
    file = folder / "certificate.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(file))
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    made = subprocess.run(["openssl", "req", "-x509", *curve, *subject], capture_output=True, check=True)
    file.write_bytes(made.stdout + file.read_bytes())
    return file
