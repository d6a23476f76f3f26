"""Between whole HTTP requests and a WSGI application: its environ, and its answer as bytes (PEP 3333, RFC 9112)."""

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

#: Where an environ says when the whole request had arrived (`time.monotonic`): it may have waited since.
ARRIVED_AT = "payment_callbacks.arrived_at"

#: Where an environ has the whole body, which our workers have bounded and read before the application is called.
WHOLE_BODY = "payment_callbacks.body"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_Headers = Sequence[tuple[str, str]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, not yet written."""

    #: Code and phrase, e.g. `200 OK`.
    status: str
    headers: _Headers
    body: bytes


class AnswerAbandoned(Exception):
    """Nobody waits for the answer any more: the client has gone, or the time is up."""


class PendingAnswer:
    """A WSGI answer whose status is not known when the application returns.

    `settle` decides it, once and from any thread; what comes later changes nothing. Our workers are told then
    (`when_concluded`). Any other server iterates, which waits: PEP 3333 allows `start_response` to come so late.
    """

    def __init__(self, conclude: Callable[[Exception | None], Answer], *, failure: Answer, deadline: float) -> None:
        """`conclude` makes the answer of what `settle` was given; `failure` is the answer where that raises.

        An iteration waits until `deadline` (`time.monotonic`).
        """
        self._conclude = conclude
        self._failure = failure
        self._deadline = deadline
        self._deciding = threading.Lock()
        self._settled = False
        self._answer: Answer | None = None
        self._listener: Callable[[Answer], None] | None = None
        self._start_response: Callable[..., Any] | None = None

    def begin(self, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """What the application returns to its server."""
        self._start_response = start_response
        return self

    def settle(self, error: Exception | None) -> None:
        """Decide the answer: None where all went well. Never raises."""
        with self._deciding:
            if self._settled:
                return
            self._settled = True
        try:
            answer = self._conclude(error)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets a definite failure
            _log.exception("answer_failed")
            answer = self._failure
        with self._deciding:
            self._answer = answer
            listener = self._listener
        if listener is not None:
            listener(answer)

    def when_concluded(self, listener: Callable[[Answer], None]) -> None:
        """Call `listener` with the answer: at once where it is known, else on the thread that settles."""
        with self._deciding:
            self._listener = listener
            answer = self._answer
        if answer is not None:
            listener(answer)

    def close(self) -> None:
        """Nobody waits any more; what is not settled yet has failed."""
        self.settle(AnswerAbandoned("the client has gone"))

    def __iter__(self) -> Iterator[bytes]:
        assert self._start_response is not None  # noqa: S101 - `begin` comes first
        answers: list[Answer] = []
        concluded = threading.Event()

        def conclude(answer: Answer) -> None:
            answers.append(answer)
            concluded.set()

        self.when_concluded(conclude)
        if not concluded.wait(max(self._deadline - time.monotonic(), 0)):
            self.settle(AnswerAbandoned("its time is up"))
            concluded.wait()
        self._start_response(answers[0].status, list(answers[0].headers))
        yield answers[0].body


def make_environ(request: HttpRequest, *, client: tuple[str, int], server: tuple[str, int]) -> dict[str, Any]:
    """The environ of a request. `client` and `server`: addresses of the connection's two ends.

    Of a header that came more than once the values are joined with commas (RFC 9110, section 5.3).
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


def collect_answer(application: Application, environ: dict[str, Any]) -> "Answer | PendingAnswer":
    """Call the application. The answer is whole, save where it is pending."""
    started: list[tuple[str, _Headers]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: _Headers, exc_info: object = None) -> Callable[[bytes], None]:
        if started and exc_info is None:
            raise RuntimeError("start_response was called twice")
        started[:] = [(status, headers)]
        return written.append

    chunks = application(environ, start_response)
    if isinstance(chunks, PendingAnswer):
        return chunks
    try:
        written.extend(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    [(status, headers)] = started
    return Answer(status, headers, b"".join(written))


def make_answer(status: HTTPStatus, body: bytes, *, content_type: str) -> Answer:
    """A short answer that is the same each time."""
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    return Answer(f"{status.value} {status.phrase}", headers, body)


def write_answer(answer: Answer, request: HttpRequest, *, closes: bool) -> bytes:
    """The answer as bytes of HTTP, in one piece. `closes`: the connection takes no further request.

    Raises ValueError for a header that would break the message.
    """
    version = request.head.version
    lines = [
        f"HTTP/{version[0]}.{version[1]} {answer.status}",
        f"Date: {_http_date(int(time.time()))}",
        "Connection: close" if closes else "Connection: keep-alive",
    ]
    has_length = False
    for name, value in answer.headers:
        if not TOKEN_RE.fullmatch(name) or not HEADER_VALUE_RE.fullmatch(value):
            raise ValueError(f"the answer's header {name!r} cannot be written")
        has_length = has_length or name.lower() == "content-length"
        lines.append(f"{name}: {value}")
    if not has_length and answer.status[:3] not in ("204", "304"):
        lines.append(f"Content-Length: {len(answer.body)}")
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode("latin-1") + (b"" if request.head.method == "HEAD" else answer.body)


_last_date = (0, "")


def _http_date(second: int) -> str:
    """RFC 9110, section 5.6.7."""
    global _last_date
    if _last_date[0] != second:
        _last_date = (second, formatdate(second, usegmt=True))
    return _last_date[1]
