"""Posts to one URL: once each, bounded in time and in how much of an answer is read."""

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

from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import HTTPError

from service.config.settings import Proxy
from service.runtime.dialer import Dialer, ProxyFailed
from service.runtime.http_connection import Connection, Response

_HEADER = re.compile(r"[!-9;-~]+: [ -~]*")


class Unanswered(Exception):
    """No status came back. Names kinds of errors only: their texts name the host and, at times, what was read."""

    def __init__(self, error: Exception, *, begun: bool) -> None:
        #: What went wrong, by urllib3's name for it.
        self.kind = _kind_of(error, begun=begun)
        #: Whether any of the request was handed to the socket: before that, nothing can have been done.
        self.begun = begun
        detail = str(error) if isinstance(error, ProxyFailed) else type(error).__name__
        super().__init__(f"{self.kind} ({detail})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A final status, and what came with it."""

    status: int
    headers: Mapping[str, str]
    #: The body, unpacked; None where it cannot be had, since for some the status alone counts.
    content: bytes | None
    #: Why it cannot be had; quotes nothing of it.
    fault: str = ""


class HttpClient:
    """Posts to one URL, each post once. Safe to share between threads.

    A post gets the final answer that was sent for it, or none. Interim answers are passed over, 101 is a failure, and
    bytes that were there before the request was sent never count: a kept connection is used again only where nothing
    waits on it, and only after an answer that was read to its end and was no longer than it said.

    Redirects are not followed, certificates are verified, and variables like HTTPS_PROXY are ignored.
    """

    def __init__(
        self,
        url: SplitResult,
        *,
        connections: int,
        most_bytes: int,
        trust: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        """Connects to nothing yet.

        `url` is http or https and in ASCII. So many `connections` are kept open between posts; with 0, each post has a
        connection of its own and says `Connection: close`. A body of more than `most_bytes` is not taken. `trust` of
        None is this machine's. A `proxy` is asked for a tunnel to an https URL; for an http URL it forwards the post.
        """
        self._dialer = Dialer(url, trust=trust, proxy=proxy)
        self._most_bytes = most_bytes
        self._most_idle = connections
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

    def post(self, content: bytes, *, headers: Mapping[str, str], timeout_seconds: float) -> Answer:
        """Send `content` once. The whole exchange takes `timeout_seconds` at most, with the lookup of the host's name.

        Raises `Unanswered`, and `ValueError` for a header that is not in printable ASCII.
        """
        deadline = time.monotonic() + timeout_seconds
        request = self._write(headers, content)
        begun, keep, connection = False, False, None
        try:
            connection = self._take_idle() or self._dialer.dial(deadline=deadline)
            begun = True
            connection.send(request, deadline=deadline)
            response = connection.receive(method="POST", deadline=deadline)
            answer = self._read(response)
            keep = not answer.fault and response.leaves_connection_usable and connection.is_quiet()
        except (OSError, HTTPException, ProxyFailed) as error:
            raise Unanswered(error, begun=begun) from error
        finally:
            if connection is not None and not (keep and self._put_idle(connection)):
                connection.close()
        return answer

    def close(self) -> None:
        """Close the kept connections, and keep none from now on. Safe to call twice."""
        with self._lock:
            self._most_idle = 0
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _write(self, headers: Mapping[str, str], content: bytes) -> bytes:
        """The whole request: sent at once, it cannot be answered before it has left."""
        every = {**self._headers, **headers, "Content-Length": str(len(content))}
        lines = [f"{name}: {value}" for name, value in every.items()]
        if not all(map(_HEADER.fullmatch, lines)):
            raise ValueError("a header is not in printable ASCII")
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
            if len(self._idle) >= self._most_idle:
                return False
            self._idle.append(connection)
            return True

    def _read(self, response: Response) -> Answer:
        headers = HTTPHeaderDict(response.headers.items())
        content: bytes | None = None
        try:
            # Unpacks the body, and notices one that ends too soon.
            body = HTTPResponse(
                body=response, headers=headers, status=response.status, preload_content=False, request_method="POST"
            )
            content, fault = body.read(self._most_bytes + 1), ""
        except HTTPError as error:
            fault = f"no answer came, or too slowly ({type(error).__name__})"
        except ValueError:  # for a chunk of negative size, which the standard library lets pass
            fault = "the answer's chunks cannot be read"
        if content is not None and len(content) > self._most_bytes:
            content, fault = None, f"the answer has more than {self._most_bytes} bytes"
        return Answer(status=response.status, headers=headers, content=content, fault=fault)


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
