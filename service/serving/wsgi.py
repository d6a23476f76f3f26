"""From a whole HTTP request to a WSGI application, and from its response to bytes (PEP 3333, RFC 9112)."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from io import BytesIO
from typing import Any

import structlog
from gunicorn.http.message import TOKEN_RE
from gunicorn.http.wsgi import HEADER_VALUE_RE
from gunicorn.util import unquote_to_wsgi_str

from service.serving.framing import HttpRequest

#: The environ's key for when the whole request had arrived (`time.monotonic`). It may have waited since.
ARRIVED_AT = "payment_callbacks.arrived_at"
#: The environ's key for the whole body, which our workers have bounded and read before they call the application.
WHOLE_BODY = "payment_callbacks.body"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_Headers = Sequence[tuple[str, str]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WsgiResponse:
    """A whole response, not yet written."""

    #: Code and phrase, e.g. `200 OK`.
    status: str
    headers: _Headers
    body: bytes


class ResponseAbandoned(Exception):
    """Nobody waits for the response any more: the client has gone, or the time is up."""


class PendingResponse:
    """A WSGI response whose status is not known when the application returns.

    `settle` decides it, once and from any thread; later calls change nothing. Our workers register a listener for it
    (`when_concluded`). Any other server iterates, which waits: PEP 3333 allows `start_response` to be called that late.
    """

    def __init__(
        self, conclude: Callable[[Exception | None], WsgiResponse], *, failure: WsgiResponse, deadline: float
    ) -> None:
        """`conclude` makes the response from the argument of `settle`; `failure` is the response where that raises.

        Iterating waits until `deadline` (`time.monotonic`).
        """
        self._conclude = conclude
        self._failure = failure
        self._deadline = deadline
        self._deciding = threading.Lock()
        self._settled = False
        self._response: WsgiResponse | None = None
        self._listener: Callable[[WsgiResponse], None] | None = None
        self._start_response: Callable[..., Any] | None = None

    def begin(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """What the application returns to its server."""
        self._start_response = start_response
        return self

    def settle(self, error: Exception | None) -> None:
        """Decide the response; `error` is None where all went well. Never raises."""
        with self._deciding:
            if self._settled:
                return
            self._settled = True
        try:
            response = self._conclude(error)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets a definite failure
            _log.exception("response_failed")
            response = self._failure
        with self._deciding:
            self._response = response
            listener = self._listener
        if listener is not None:
            listener(response)

    def when_concluded(self, listener: Callable[[WsgiResponse], None]) -> None:
        """Call `listener` with the response: at once where it is known, else on the thread that settles."""
        with self._deciding:
            self._listener = listener
            response = self._response
        if response is not None:
            listener(response)

    def close(self) -> None:
        """Nobody waits any more: settle as failed what is not settled yet."""
        self.settle(ResponseAbandoned("the client has gone"))

    def __iter__(self) -> Iterator[bytes]:
        assert self._start_response is not None  # noqa: S101 - `begin` comes first
        responses: list[WsgiResponse] = []
        concluded = threading.Event()

        def conclude(response: WsgiResponse) -> None:
            responses.append(response)
            concluded.set()

        self.when_concluded(conclude)
        if not concluded.wait(max(self._deadline - time.monotonic(), 0)):
            self.settle(ResponseAbandoned("its time is up"))
            concluded.wait()
        self._start_response(responses[0].status, list(responses[0].headers))
        yield responses[0].body


def make_environ(request: HttpRequest, *, client: tuple[str, int], server: tuple[str, int]) -> dict[str, Any]:
    """The environ of a request. `client` and `server` are the addresses of the two ends of the connection.

    The values of a header that came more than once are joined with commas (RFC 9110, section 5.3).
    """
    head = request.head
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_wsgi_str(head.path),
        "QUERY_STRING": head.query,
        "RAW_URI": head.uri,
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": "HTTP/1.1" if head.version == (1, 1) else "HTTP/1.0",
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        ARRIVED_AT: request.arrived_at,
        WHOLE_BODY: request.body,
    }
    for name, value in head.headers:
        key = name.replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def call_application(application: Application, environ: dict[str, Any]) -> "WsgiResponse | PendingResponse":
    """Call the application. Its response is whole, or pending."""
    started: list[tuple[str, _Headers]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: _Headers, exc_info: object = None) -> Callable[[bytes], None]:
        if started and exc_info is None:
            raise RuntimeError("start_response was called twice")
        started[:] = [(status, headers)]
        return written.append

    chunks = application(environ, start_response)
    if isinstance(chunks, PendingResponse):
        return chunks
    try:
        written.extend(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    [(status, headers)] = started
    return WsgiResponse(status, headers, b"".join(written))


def make_response(status: HTTPStatus, body: bytes, *, content_type: str) -> WsgiResponse:
    """A short response."""
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    return WsgiResponse(f"{status.value} {status.phrase}", headers, body)


def write_response(response: WsgiResponse, request: HttpRequest, *, closes: bool) -> bytes:
    """The response as bytes of HTTP, in one piece. `closes`: the connection takes no further request.

    Raises ValueError for a header that would break the message.
    """
    version = request.head.version
    lines = [
        f"HTTP/{version[0]}.{version[1]} {response.status}",
        f"Date: {_http_date(int(time.time()))}",
        "Connection: close" if closes else "Connection: keep-alive",
    ]
    has_length = False
    for name, value in response.headers:
        if not TOKEN_RE.fullmatch(name) or not HEADER_VALUE_RE.fullmatch(value):
            raise ValueError(f"the response's header {name!r} cannot be written")
        has_length = has_length or name.lower() == "content-length"
        lines.append(f"{name}: {value}")
    if not has_length and response.status[:3] not in ("204", "304"):
        lines.append(f"Content-Length: {len(response.body)}")
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode("latin-1") + (b"" if request.head.method == "HEAD" else response.body)


_last_date = (0, "")


def _http_date(second: int) -> str:
    """RFC 9110, section 5.6.7."""
    global _last_date
    if _last_date[0] != second:
        _last_date = (second, formatdate(second, usegmt=True))
    return _last_date[1]
