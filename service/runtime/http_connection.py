"""One HTTP/1.1 connection with a deadline for every step, which tells final responses from interim ones.

A limit on each read alone lets a server hold a connection for days, one byte at a time. Here each step waits only until
its deadline, a time of `time.monotonic()`.

urllib3's connections do neither. They take any interim response but 100 for the final one, and they forget bytes that
they have received beyond a response's end, so that the connection looks unused.
"""

import io
import socket
import ssl
import time
from http.client import HTTPException, HTTPResponse
from typing import Any, Self

# RFC 9110, section 15.2, sets no limit.
_MAX_INTERIM_RESPONSES = 16
_MAX_INTERIM_BYTES = 64 * 1024
# For everything received after one request, heads and framing included. Without this bound, a server could send header
# lines, trailers or the bytes of a broken chunk until the deadline.
_MAX_RECEIVED_BYTES = 1024 * 1024
_SWITCHING_PROTOCOLS = 101


class ProtocolSwitched(HTTPException):
    """The server answered 101: what follows is not HTTP, although nobody asked for another protocol."""


class TooManyInterimResponses(HTTPException):
    """More than 16 interim responses came, or more than 64 KiB of them."""


class ResponseTooLong(HTTPException):
    """More than 1 MiB was received after one request."""


def time_left(deadline: float) -> float:
    """Seconds until the deadline. Raises `TimeoutError` once it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time limit has passed")
    return left


class _Incoming(io.RawIOBase):
    """What a socket receives until the deadline. Without a deadline, what has arrived already."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.deadline: float | None = None
        self.bytes_left = _MAX_RECEIVED_BYTES
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(0 if self.deadline is None else time_left(self.deadline))
        try:
            count = self._socket.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):  # without a deadline only
            return None
        self.ended = count == 0
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise ResponseTooLong
        return count


class _Reader(io.BufferedReader):
    """Lives as long as its connection, so that bytes after a response's end are noticed before the next request."""

    #: The size of all lines so far.
    line_bytes = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.line_bytes += len(line)
        return line

    def close(self) -> None:
        """Does nothing: `http.client` calls this at the end of each response, but the connection lives on."""

    def makefile(self, _mode: str) -> Self:
        """Stands in for a socket: `http.client` needs only this method of it."""
        return self


class Response(HTTPResponse):
    """The standard library's response, but every interim response is skipped, and not just 100."""

    def __init__(self, reader: _Reader, *, method: str) -> None:
        super().__init__(reader, method=method)  # type: ignore[arg-type]
        self._reader = reader

    def flush(self) -> None:
        """Does nothing: it is only read. Closing calls this, and Python may have closed the abandoned reader before."""

    @property
    def leaves_connection_usable(self) -> bool:
        """Whether it was read to its end, and stated in exactly one way where that is."""
        if not self.isclosed() or self.will_close:
            return False
        lengths = self.headers.get_all("content-length", [])
        codings = self.headers.get_all("transfer-encoding", [])
        if codings:
            return not lengths and [coding.strip().lower() for coding in codings] == ["chunked"]
        return self.status == 204 or (len(lengths) == 1 and lengths[0].isascii() and lengths[0].strip().isdigit())

    def _read_status(self) -> tuple[str, int, str]:
        """The final response's status line. The standard library calls this for each status line."""
        max_line_bytes = self._reader.line_bytes + _MAX_INTERIM_BYTES
        for _ in range(_MAX_INTERIM_RESPONSES + 1):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == _SWITCHING_PROTOCOLS:
                raise ProtocolSwitched
            if status >= 200:
                return version, status, reason
            ended = False
            while not ended:
                ended = self._reader.readline(_MAX_INTERIM_BYTES) in (b"\r\n", b"\n", b"")
                if self._reader.line_bytes > max_line_bytes:
                    raise TooManyInterimResponses
        raise TooManyInterimResponses


class Connection:
    """One connected socket, plain or TLS, for one request at a time. Not safe to share between threads."""

    def __init__(self, connected: socket.socket) -> None:
        """Takes over `connected`."""
        self._socket = connected
        self._incoming = _Incoming(connected)
        self._reader = _Reader(self._incoming)

    def is_quiet(self) -> bool:
        """Whether nothing waits to be read, neither a byte nor the end of the stream.

        Anything that waits arrived before the next request, so it cannot be the response: close the connection.
        """
        self._incoming.deadline = None
        try:
            return not self._reader.peek(1) and not self._incoming.ended
        except (OSError, HTTPException):
            return False

    def send(self, request: bytes, *, deadline: float) -> None:
        """Send all of it. Raises `OSError`; `TimeoutError` is one."""
        left = memoryview(request)
        while left:
            self._socket.settimeout(time_left(deadline))
            left = left[self._socket.send(left) :]

    def receive(self, *, method: str, deadline: float) -> Response:
        """The final response to the `method` that was sent. Its body is not read yet; the same deadline applies to it.

        Skips at most 16 interim responses, and 64 KiB of them (RFC 9110, section 15.2). Raises `OSError` and
        `http.client.HTTPException`, and so does reading the body.
        """
        self._incoming.deadline = deadline
        self._incoming.bytes_left = _MAX_RECEIVED_BYTES
        response = Response(self._reader, method=method)
        response.begin()
        return response

    def close(self) -> None:
        """Close the socket. Safe to call twice."""
        self._socket.close()
