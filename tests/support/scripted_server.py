"""An HTTP server on a port of its own that answers well, badly, slowly or not at all, as a test tells it to."""

import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.local_server import LocalServer, SilentHandler


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came in. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    #: Tells connections apart: equal for requests over the same one.
    connection: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back, all of it or drop by drop."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
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
        length = {} if "transfer-encoding" in answer.headers else {"content-length": str(len(answer.body))}
        headers = {**length, **answer.headers}
        if answer.ahead_seconds:
            self.wfile.write(answer.before)
            script.closing.wait(answer.ahead_seconds)
        lines = [f"HTTP/1.1 {answer.status} As told", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        first = b"" if answer.ahead_seconds else answer.before
        last = b"" if answer.after_when else answer.after
        self._write(first + "\r\n".join(lines).encode() + answer.body + last, answer.pause_seconds)
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
