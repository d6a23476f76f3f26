"""HTTP/1.1 for WSGI applications: requests from bytes, and responses to bytes (RFC 9112, PEP 3333).

The bytes that a client sends are cut into whole requests, at a cost that is proportional to them, however they arrive.
gunicorn's parser decides what is a valid head. Nearly all heads have a plain form, which is read here with one pattern
at a tenth of the cost. The pattern matches nothing that needs a decision by gunicorn; a test compares the two.
"""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from io import BytesIO
from typing import Any

from gunicorn.config import Config
from gunicorn.http.body import CHUNK_EXT_RE, ChunkedReader, LengthReader
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.message import TOKEN_RE, Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import HEADER_VALUE_RE
from gunicorn.util import unquote_to_wsgi_str

from service.runtime.logs import Logger

#: The environ's key for when the whole request had arrived (`time.monotonic`). It may have waited since.
ARRIVED_AT = "payment_callbacks.arrived_at"
#: The environ's key for the whole body, which our workers have bounded and read before they call the application.
WHOLE_BODY = "payment_callbacks.body"

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_Headers = Sequence[tuple[str, str]]

_log = Logger(__name__)

# Within gunicorn's limits: 4,094 bytes for the request line, 100 fields, and 8,190 bytes for each.
_PLAIN_HEAD = re.compile(
    rb"(GET|HEAD|POST) (/(?!/)[\w.~%/-]{0,2000}+)(?:\?([\w.~%/=&+:;,@!$*-]{0,2000}+))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]{1,100}+:[ \t]{0,100}+[ -~]{0,4000}+\r\n){0,100}+)\r\n",
    re.ASCII,
)
# Fields that need a decision by gunicorn, and fields that need one if they come more than once.
_COMPLEX_FIELDS = frozenset({"TRANSFER-ENCODING", "EXPECT"})
_SINGLE_FIELDS = frozenset({"HOST", "CONTENT-TYPE", "CONTENT-LENGTH", "CONNECTION"})
_LENGTH = re.compile(r"[0-9]{1,15}", re.ASCII)
_HEAD_END = b"\r\n\r\n"
# A line with this end is none (RFC 9112, section 2.2, lets us refuse it): we would wait for its end in vain.
_BARE_LINE_END = re.compile(rb"(?<!\r)\n")
# RFC 9112, section 7.1: whitespace (BWS) may precede an extension, and nothing else.
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})(?:[ \t]*(;[^\r\n]*))?")
_MAX_CHUNK_LINE_BYTES = 1024
#: Chunks of one request, so that nobody sends 64 KiB byte by byte at a hundred times the cost.
_MAX_CHUNKS = 1024
_MAX_TRAILER_BYTES = 4096

_MALFORMED = 400
_BODY_TOO_LARGE = 413
_HEAD_TOO_LARGE = 431


class RequestRefused(Exception):
    """A request that is too large or malformed. Nothing further on its connection can be read."""

    def __init__(self, status: int, kind: str) -> None:
        """`status`: the status of the response. `kind` names the error and quotes nothing of the request."""
        super().__init__(f"{status} {kind}")
        self.status = status
        self.kind = kind

    @property
    def reason(self) -> str:
        """A constant for logs and metrics."""
        return "malformed" if self.status == _MALFORMED else "too-large"


@dataclass(slots=True, kw_only=True)
class Head:
    """The request line and the headers of a request."""

    method: str
    #: The request target as it was sent, and its two parts, still encoded.
    uri: str
    path: str
    query: str
    version: tuple[int, int]
    #: In the order in which they came, with names in upper case. A name may come more than once.
    headers: Sequence[tuple[str, str]]
    #: The number of bytes in the body; None if it comes in chunks.
    body_length: int | None
    #: Whether the client waits for a `100 Continue` before it sends the body.
    expects_continue: bool
    #: Whether the client wants the connection to end with the answer.
    closes: bool


@dataclass(slots=True, kw_only=True)
class HttpRequest:
    """A whole request."""

    head: Head
    #: Decoded if it came in chunks.
    body: bytes
    #: When its last byte was read (`time.monotonic`).
    arrived_at: float


class RequestFraming:
    """Cuts what one client sends into whole requests. Reads every byte once, however slowly they arrive."""

    def __init__(self, *, cfg: Config, max_head_bytes: int, max_body_bytes: int) -> None:
        """The limit on bodies applies to their content; a chunked body may take up four times that when sent."""
        self._cfg = cfg
        self._max_head_bytes = max_head_bytes
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()
        self._begin()

    def _begin(self) -> None:
        self._searched = 0
        self._head: Head | None = None
        # Where the body begins, and its length; None if it is chunked.
        self._body_at = 0
        self._length: int | None = None
        self._chunks: list[bytes] = []
        self._chunked_bytes = 0
        self._wants_continue = False

    @property
    def buffered_bytes(self) -> int:
        """The size of what has arrived of requests that were not taken yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        self._buffer += data

    def take_request(self, now: float) -> HttpRequest | None:
        """Remove and return the first request; None while it is incomplete. Raises `RequestRefused`."""
        head = self._head or self._read_head()
        if head is None:
            return None
        if self._length is None:
            end = self._take_chunks()
            if end is None:
                return None
            body = b"".join(self._chunks)
        else:
            end = self._body_at + self._length
            if len(self._buffer) < end:
                return None
            body = bytes(self._buffer[self._body_at : end])
        request = HttpRequest(head=head, body=body, arrived_at=now)
        del self._buffer[:end]
        self._begin()
        return request

    def take_continue(self) -> bool:
        """Whether the client waits for a `100 Continue` before it sends the body; true at most once per request."""
        wanted, self._wants_continue = self._wants_continue, False
        return wanted

    def _read_head(self) -> Head | None:
        end = self._buffer.find(_HEAD_END, self._searched)
        if (end if end >= 0 else len(self._buffer)) > self._max_head_bytes:
            raise RequestRefused(_HEAD_TOO_LARGE, "head too large")
        if end < 0:
            if _BARE_LINE_END.search(self._buffer, self._searched):
                raise RequestRefused(_MALFORMED, "bare line end")
            self._searched = max(len(self._buffer) - len(_HEAD_END) + 1, 0)
            return None
        self._body_at = end + len(_HEAD_END)
        data = bytes(self._buffer[: self._body_at])
        head = _read_plain_head(data) or _read_any_head(data, self._cfg)
        if head.body_length is not None and head.body_length > self._max_body_bytes:
            raise RequestRefused(_BODY_TOO_LARGE, "body too large")
        self._head, self._length, self._wants_continue = head, head.body_length, head.expects_continue
        return head

    def _take_chunks(self) -> int | None:
        """Take the chunks that are complete; returns where the request ends, None while that has not arrived."""
        buffer = self._buffer
        if len(buffer) > self._max_head_bytes + 4 * self._max_body_bytes:
            raise RequestRefused(_BODY_TOO_LARGE, "chunks too large")
        while True:
            line_end = buffer.find(b"\r\n", self._body_at, self._body_at + _MAX_CHUNK_LINE_BYTES)
            if line_end < 0:
                too_long = len(buffer) - self._body_at >= _MAX_CHUNK_LINE_BYTES
                if too_long or _BARE_LINE_END.search(buffer, self._body_at):
                    raise RequestRefused(_MALFORMED, "InvalidChunkSize")
                return None
            size = _read_chunk_size(bytes(buffer[self._body_at : line_end]))
            if size == 0:
                return self._find_end_of_trailers(line_end)
            if self._chunked_bytes + size > self._max_body_bytes:
                raise RequestRefused(_BODY_TOO_LARGE, "body too large")
            if len(self._chunks) >= _MAX_CHUNKS:
                raise RequestRefused(_BODY_TOO_LARGE, "too many chunks")
            begin, end = line_end + 2, line_end + 2 + size
            if len(buffer) < end + 2:
                return None
            if buffer[end : end + 2] != b"\r\n":
                raise RequestRefused(_MALFORMED, "ChunkMissingTerminator")
            self._chunks.append(bytes(buffer[begin:end]))
            self._chunked_bytes += size
            self._body_at = end + 2

    def _find_end_of_trailers(self, size_line_end: int) -> int | None:
        # Without trailers, the end of the size line is the first half of the blank line.
        end = self._buffer.find(_HEAD_END, size_line_end)
        if (end if end >= 0 else len(self._buffer)) - size_line_end > _MAX_TRAILER_BYTES:
            raise RequestRefused(_MALFORMED, "LimitRequestHeaders")
        if end < 0:
            return None
        trailers = bytes(self._buffer[size_line_end + 2 : end])
        if trailers:
            _check_trailers(trailers, self._cfg)
        return end + len(_HEAD_END)


def _read_chunk_size(line: bytes) -> int:
    found = _CHUNK_SIZE.fullmatch(line)
    if found is None:
        raise RequestRefused(_MALFORMED, "InvalidChunkSize")
    if found[2] is not None and not CHUNK_EXT_RE.fullmatch(found[2]):
        raise RequestRefused(_MALFORMED, "InvalidChunkExtension")
    return int(found[1], 16)


def _read_plain_head(data: bytes) -> Head | None:
    """The same as gunicorn would read; None if gunicorn has to decide."""
    found = _PLAIN_HEAD.fullmatch(data)
    if found is None:
        return None
    method, path, query, lines = (part.decode("latin-1") if part else "" for part in found.groups())
    headers = []
    singles = {}
    for line in lines.split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.upper(), value.strip(" \t")
        if name in _COMPLEX_FIELDS or name in singles:
            return None
        if name in _SINGLE_FIELDS:
            singles[name] = value
        headers.append((name, value))
    length = singles.get("CONTENT-LENGTH", "0")
    if not _LENGTH.fullmatch(length):
        return None
    return Head(
        method=method,
        uri=path if found[3] is None else f"{path}?{query}",
        path=path,
        query=query,
        version=(1, 1),
        headers=headers,
        body_length=int(length),
        expects_continue=False,
        closes=singles.get("CONNECTION", "").lower() == "close",
    )


def _read_any_head(data: bytes, cfg: Config) -> Head:
    try:
        parsed = _parse(data, cfg)
    except (ParseException, NoMoreData) as error:
        raise RequestRefused(_MALFORMED, type(error).__name__) from error
    return Head(
        method=parsed.method,
        uri=parsed.uri,
        path=parsed.path,
        query=parsed.query,
        version=parsed.version,
        headers=parsed.headers,
        body_length=_body_length(parsed),
        expects_continue=parsed._expected_100_continue,
        closes=parsed.should_close(),
    )


def _parse(data: bytes, cfg: Config) -> Request:
    # Without the client's address, which gunicorn would check for each request although no proxy is trusted.
    return Request(cfg, IterUnreader([data]), "")


def _body_length(parsed: Request) -> int | None:
    reader = parsed.body.reader
    if isinstance(reader, LengthReader):
        return int(reader.length)
    codings = [value.lower() for name, value in parsed.headers if name == "TRANSFER-ENCODING"]
    if not isinstance(reader, ChunkedReader) or codings != ["chunked"]:
        # gunicorn accepts compressed chunks, and leaves it to the application to decompress them.
        raise RequestRefused(_MALFORMED, "UnsupportedTransferCoding")
    return None


def _check_trailers(data: bytes, cfg: Config) -> None:
    """Check the lines between the last chunk and the blank line of a chunked body."""
    if data.count(b"\n") != data.count(b"\r\n"):
        raise RequestRefused(_MALFORMED, "InvalidHeader")
    try:
        _parse(b"POST / HTTP/1.1\r\n\r\n", cfg).parse_headers(data, from_trailer=True)
    except ParseException as error:
        raise RequestRefused(_MALFORMED, type(error).__name__) from error


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


def call_application(application: _Application, environ: dict[str, Any]) -> "WsgiResponse | PendingResponse":
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
