"""One HTTP/1.1 connection. Every step on it ends by a deadline, and its final answers are told from interim ones.

A read limit alone lets a server hold a connection for days, one byte at a time. Here each step waits for what is left
until its deadline, which is a time of `time.monotonic()`.

urllib3's connections and pool do neither: they take any interim answer but 100 for the final one, and forget what they
have received beyond an answer's end, so that the connection looks unused.
"""

import io
import socket
import ssl
import time
from http.client import HTTPException, HTTPResponse
from typing import Any, Self

# RFC 9110, section 15.2, sets no limit.
_MOST_INTERIM_ANSWERS = 16
_MOST_INTERIM_BYTES = 64 * 1024
# Of all that is received after one request, heads and framing included. Without it, an answer could send header lines,
# trailers or the bytes of a broken chunk until the deadline.
_MOST_RECEIVED_BYTES = 1024 * 1024
_SWITCHING_PROTOCOLS = 101


class ProtocolSwitched(HTTPException):
    """The server answered 101: what follows is no HTTP, though nobody asked for another protocol."""


class TooManyInterimAnswers(HTTPException):
    """More than 16 interim answers came, or more than 64 KiB of them."""


class AnswerTooLong(HTTPException):
    """More than 1 MiB came after one request."""


def time_left(deadline: float) -> float:
    """Seconds until then. Raises `TimeoutError` where there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time limit has passed")
    return left


class _Incoming(io.RawIOBase):
    """What a socket receives until the deadline. Without a deadline: what is there already."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.deadline: float | None = None
        self.bytes_left = _MOST_RECEIVED_BYTES
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
            raise AnswerTooLong
        return count


class _Reader(io.BufferedReader):
    """Lives as long as its connection, so that what came after an answer's end is seen before the next request."""

    #: Of all lines so far.
    line_bytes = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.line_bytes += len(line)
        return line

    def close(self) -> None:
        """Left to the connection: `http.client` calls this at the end of each answer."""

    def makefile(self, _mode: str) -> Self:
        """`http.client` takes it for a socket, and asks for no more than this."""
        return self


class Response(HTTPResponse):
    """The standard library's response, which passes over every interim answer; by itself it passes over 100 only."""

    def __init__(self, reader: _Reader, *, method: str) -> None:
        super().__init__(reader, method=method)  # type: ignore[arg-type]
        self._reader = reader

    @property
    def leaves_connection_usable(self) -> bool:
        """Whether it was read to its end, and said in exactly one way where that is."""
        if not self.isclosed() or self.will_close:
            return False
        lengths = self.headers.get_all("content-length", [])
        codings = self.headers.get_all("transfer-encoding", [])
        if codings:
            return not lengths and [coding.strip().lower() for coding in codings] == ["chunked"]
        return self.status == 204 or (len(lengths) == 1 and lengths[0].isascii() and lengths[0].strip().isdigit())

    def _read_status(self) -> tuple[str, int, str]:
        """The final answer's status line; the standard library reads each answer's by this method."""
        most_line_bytes = self._reader.line_bytes + _MOST_INTERIM_BYTES
        for _ in range(_MOST_INTERIM_ANSWERS + 1):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == _SWITCHING_PROTOCOLS:
                raise ProtocolSwitched
            if status >= 200:
                return version, status, reason
            ended = False
            while not ended:
                ended = self._reader.readline(_MOST_INTERIM_BYTES) in (b"\r\n", b"\n", b"")
                if self._reader.line_bytes > most_line_bytes:
                    raise TooManyInterimAnswers
        raise TooManyInterimAnswers


class Connection:
    """One connected socket, plain or TLS, for one request at a time. Not safe to share between threads."""

    def __init__(self, connected: socket.socket) -> None:
        """Takes over `connected`."""
        self._socket = connected
        self._incoming = _Incoming(connected)
        self._reader = _Reader(self._incoming)

    def is_quiet(self) -> bool:
        """Whether nothing waits to be read, neither a byte nor the end.

        Whatever waits was there before the next request, and so is no answer to it: the connection can only be closed.
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
        """The final answer to the `method` that was sent; its body is yet to be read, by the same deadline.

        At most 16 interim answers, and 64 KiB of them, are passed over (RFC 9110, section 15.2). Raises `OSError` and
        `http.client.HTTPException`, and so does reading the body.
        """
        self._incoming.deadline = deadline
        self._incoming.bytes_left = _MOST_RECEIVED_BYTES
        response = Response(self._reader, method=method)
        response.begin()
        return response

    def close(self) -> None:
        """Close the socket. Safe to call twice."""
        self._socket.close()
