"""Sends POST requests to one URL, each once, with bounds on the time and on the size of the response."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from urllib.parse import SplitResult

from urllib3 import HTTPHeaderDict
from urllib3 import HTTPResponse as Urllib3Response
from urllib3.exceptions import HTTPError

from service.config.secrets import Proxy
from service.runtime.dialer import Dialer, ProxyFailed
from service.runtime.http_connection import Connection, Response

_HEADER = re.compile(r"[!-9;-~]+: [ -~]*")


class NoResponse(Exception):
    """No status came back. The text is only the kind of error: the error's own may quote the host and the response."""

    def __init__(self, error: Exception, *, begun: bool) -> None:
        #: What went wrong, as urllib3 names it.
        self.kind = _kind_of(error, begun=begun)
        #: Whether sending had begun. Before that, the server cannot have acted on the request.
        self.begun = begun
        detail = str(error) if isinstance(error, ProxyFailed) else type(error).__name__
        super().__init__(f"{self.kind} ({detail})")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A final response."""

    status: int
    headers: Mapping[str, str]
    #: The body, decompressed; None where it could not be read. Some callers need the status only.
    content: bytes | None
    #: Why the body could not be read; quotes nothing of it.
    fault: str = ""


class HttpClient:
    """Sends POST requests to one URL, each once. Safe to share between threads.

    A request gets the final response that was sent for it, or none. Interim responses are skipped, and 101 is a
    failure. Bytes that arrived before the request was sent never count: a connection is used again only after a
    response that was read to its end and was no longer than it said, and only while nothing is waiting to be read.

    Redirects are not followed, certificates are verified, and variables like HTTPS_PROXY are ignored.
    """

    def __init__(
        self,
        url: SplitResult,
        *,
        connections: int,
        max_bytes: int,
        trust: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        """Does not connect yet.

        `url` is http or https, in ASCII. Up to `connections` are kept open between requests; with 0, each request has a
        connection of its own and says `Connection: close`. A body of more than `max_bytes` is not read. `trust` is by
        default what this machine trusts. A `proxy` opens a tunnel to an https URL and forwards requests to an http one.
        """
        self._dialer = Dialer(url, trust=trust, proxy=proxy)
        self._max_bytes = max_bytes
        self._max_idle = connections
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if proxy is not None and url.scheme == "http":
            target = f"http://{self._dialer.authority}{target}"
        self._first_line = f"POST {target} HTTP/1.1"
        self._headers = {
            "Host": self._dialer.authority,
            "User-Agent": f"payment-callbacks/{version('payment-callbacks')}",
            "Accept-Encoding": "identity",
        }
        if self._dialer.proxy_authorization:
            self._headers["Proxy-Authorization"] = self._dialer.proxy_authorization
        if not connections:
            self._headers["Connection"] = "close"

    def post(self, content: bytes, *, headers: Mapping[str, str], timeout_seconds: float) -> HttpResponse:
        """Send `content` once. The whole exchange takes at most `timeout_seconds`, host lookup included.

        Raises `NoResponse`, and `ValueError` for a header that is not printable ASCII.
        """
        deadline = time.monotonic() + timeout_seconds
        request = self._write(headers, content)
        begun, keep, connection = False, False, None
        try:
            connection = self._take_idle() or self._dialer.dial(deadline=deadline)
            begun = True
            connection.send(request, deadline=deadline)
            response = connection.receive(method="POST", deadline=deadline)
            read = self._read(response)
            keep = not read.fault and response.leaves_connection_usable and connection.is_quiet()
        except (OSError, HTTPException, ProxyFailed) as error:
            raise NoResponse(error, begun=begun) from error
        finally:
            if connection is not None and not (keep and self._put_idle(connection)):
                connection.close()
        return read

    def close(self) -> None:
        """Close the idle connections, and keep none from now on. Safe to call twice."""
        with self._lock:
            self._max_idle = 0
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _write(self, headers: Mapping[str, str], content: bytes) -> bytes:
        """The whole request in one piece, so that no response can come before it was sent."""
        all_headers = {**self._headers, **headers, "Content-Length": str(len(content))}
        lines = [f"{name}: {value}" for name, value in all_headers.items()]
        if not all(map(_HEADER.fullmatch, lines)):
            raise ValueError("a header is not printable ASCII")
        return "\r\n".join([self._first_line, *lines, "", ""]).encode("ascii") + content

    def _take_idle(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_quiet():
                return connection
            connection.close()

    def _put_idle(self, connection: Connection) -> bool:
        with self._lock:
            if len(self._idle) >= self._max_idle:
                return False
            self._idle.append(connection)
            return True

    def _read(self, response: Response) -> HttpResponse:
        headers = HTTPHeaderDict(response.headers.items())
        content: bytes | None = None
        try:
            # Decompresses the body, and notices one that ends too soon.
            body = Urllib3Response(
                body=response, headers=headers, status=response.status, preload_content=False, request_method="POST"
            )
            content, fault = body.read(self._max_bytes + 1), ""
        except HTTPError as error:
            fault = f"no answer came, or too slowly ({type(error).__name__})"
        except ValueError:  # for a chunk of negative size, which the standard library lets pass
            fault = "the answer's chunks cannot be read"
        if content is not None and len(content) > self._max_bytes:
            content, fault = None, f"the answer has more than {self._max_bytes} bytes"
        return HttpResponse(status=response.status, headers=headers, content=content, fault=fault)


def _kind_of(error: Exception, *, begun: bool) -> str:
    match error:
        case TimeoutError():
            return "ReadTimeoutError" if begun else "ConnectTimeoutError"
        case ProxyFailed():
            return "ProxyError"
        case socket.gaierror():
            return "NameResolutionError"
        case ssl.SSLError():
            return "SSLError"
        case OSError() if not begun:
            return "NewConnectionError"
    return "ProtocolError"
