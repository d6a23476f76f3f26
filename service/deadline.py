"""HTTP connections whose whole response must arrive in time, not only each part of it.

A read limit alone lets a server hold a connection for days, one byte at a time. urllib3's `Timeout(total=...)` is no
remedy: it only makes the read limit smaller. Here every read of a response waits for what is left of the total.
For every room that calls out: the gateway's client and the webhooks.
"""

import functools
import http.client
import io
import socket
import time
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
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


def _response_class(seconds_left: float | None) -> Any:
    if seconds_left is None:
        raise ValueError("these connections take requests with a total time limit only")
    return functools.partial(_DeadlineResponse, deadline=time.monotonic() + seconds_left)


# The pool sets `timeout` to what is left of the total right before it calls `getresponse`.


class _DeadlineHTTPConnection(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        self.response_class = _response_class(self.timeout)
        return super().getresponse()


class _DeadlineHTTPSConnection(HTTPSConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        self.response_class = _response_class(self.timeout)
        return super().getresponse()


class DeadlineHTTPPool(HTTPConnectionPool):
    """urllib3's pool; `timeout=Timeout(total=...)` holds for the whole response."""

    ConnectionCls = _DeadlineHTTPConnection


class DeadlineHTTPSPool(HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _DeadlineHTTPSConnection
