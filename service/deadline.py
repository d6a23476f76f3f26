"""HTTP connections whose whole response must arrive in time, not only each part of it.

A read limit alone lets a server hold a connection for days, one byte at a time. urllib3's `Timeout(total=...)` is no
remedy: it only makes the read limit smaller. Here every read of a response waits for what is left of the total.
"""

import functools
import http.client
import io
import socket
import time
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse


class _DeadlineReader(io.RawIOBase):
    """A socket's bytes until the deadline, then TimeoutError."""

    def __init__(self, raw: io.RawIOBase, connected: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._socket = connected
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the response took too long")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    """The standard library's response, reading by a `_DeadlineReader`."""

    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        reader = _DeadlineReader(self.fp.detach(), sock, deadline)
        self.fp = io.BufferedReader(reader)


class DeadlineHTTPConnection(HTTPConnection):
    """For a urllib3 pool, whose `timeout=Timeout(total=...)` then holds for the whole response."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """See urllib3's. The pool sets `timeout` to what is left of the total right before."""
        if self.timeout is None:
            raise ValueError("these connections take requests with a total time limit only")
        deadline = time.monotonic() + self.timeout
        self.response_class = functools.partial(_DeadlineResponse, deadline=deadline)  # type: ignore[assignment]
        return super().getresponse()


class DeadlineHTTPSConnection(DeadlineHTTPConnection, HTTPSConnection):
    """The same over TLS."""
