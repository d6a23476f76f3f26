"""Posts to one URL: once each, over kept connections, bounded in time and in how much of an answer is read."""

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.exceptions import HTTPError

from service.deadline import DeadlineHTTPConnection, DeadlineHTTPSConnection

# A host may have several addresses, and each may take this share of the time limit to connect.
_CONNECT_SHARE = 0.5


class Unanswered(Exception):
    """No status came back. Names kinds of errors only: their texts name the host and, at times, what was read."""

    def __init__(self, error: HTTPError, *, begun: bool) -> None:
        cause = error.__cause__ or error.__context__
        #: The error's own, without that of its cause.
        self.kind = type(error).__name__
        #: Whether any of the body was handed to the socket: before that, nothing can have been done.
        self.begun = begun
        super().__init__(f"{self.kind} ({type(cause).__name__})" if cause else self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status, and what came with it."""

    status: int
    headers: Mapping[str, str]
    #: The body, unpacked; None where it cannot be had, since for some the status alone counts.
    content: bytes | None
    #: Why it cannot be had; quotes nothing of it.
    fault: str = ""


class Poster:
    """Connections to one URL, kept open between posts. Safe to share between threads.

    Nothing is sent twice, redirects are not followed, and certificates are verified.
    """

    def __init__(
        self, url: SplitResult, *, connections: int, most_bytes: int, trust: ssl.SSLContext | None = None
    ) -> None:
        """Connects to nothing yet. A body of more than `most_bytes` is not taken. `trust` of None is this machine's."""
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._most_bytes = most_bytes
        host, port = url.hostname or "", url.port
        self._pool: HTTPConnectionPool
        if url.scheme == "https":
            # One context for all connections: making it reads every trusted certificate.
            trust = trust or ssl.create_default_context()
            self._pool = HTTPSConnectionPool(host, port, maxsize=connections, ssl_context=trust)
            self._pool.ConnectionCls = DeadlineHTTPSConnection
        else:
            self._pool = HTTPConnectionPool(host, port, maxsize=connections)
            self._pool.ConnectionCls = DeadlineHTTPConnection

    def post(self, content: bytes, *, headers: Mapping[str, str], timeout_seconds: float) -> Answer:
        """Send `content` once; the whole exchange takes `timeout_seconds` at most. Raises `Unanswered`."""
        begun = False

        def body() -> Iterator[bytes]:
            nonlocal begun
            begun = True
            yield content

        try:
            response = self._pool.urlopen(
                "POST",
                self._target,
                body=body(),
                headers={**headers, "Content-Length": str(len(content))},
                timeout=Timeout(connect=timeout_seconds * _CONNECT_SHARE, total=timeout_seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except HTTPError as error:
            raise Unanswered(error, begun=begun) from error
        return self._read(response)

    def close(self) -> None:
        """Let go of idle connections. Safe to call twice."""
        self._pool.close()

    def _read(self, response: BaseHTTPResponse) -> Answer:
        try:
            content = response.read(self._most_bytes + 1)
        except HTTPError as error:
            fault = f"no answer came, or too slowly ({type(error).__name__})"
        except ValueError:  # for a chunk of negative size, which urllib3 lets pass
            fault = "the answer's chunks cannot be read"
        else:
            # Read to its end, which has given its connection back.
            if len(content) <= self._most_bytes:
                return Answer(status=response.status, headers=response.headers, content=content)
            fault = f"the answer has more than {self._most_bytes} bytes"
        # What is left of it must not be read as the next answer.
        response.close()
        return Answer(status=response.status, headers=response.headers, content=None, fault=fault)
