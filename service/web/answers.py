"""What the receiver says to whoever calls it: as little as possible."""

from flask import Response

#: The one body of every failure, whatever its reason.
FAILURE_BODY = "fail"
_PLAIN = "text/plain"


def failure(status: int) -> Response:
    """A failure that the gateway does not mistake for its acknowledgement, and that tells nobody why."""
    return plain(FAILURE_BODY, status)


def plain(body: str, status: int = 200) -> Response:
    """A short text for machines."""
    return Response(body, status, content_type=_PLAIN)


def bare_failure(status: int) -> bytes:
    """The same as bytes of HTTP, after which the connection ends: for requests that reach no application."""
    return (
        f"HTTP/1.1 {status} \r\nConnection: close\r\nContent-Type: {_PLAIN}\r\n"
        f"Content-Length: {len(FAILURE_BODY)}\r\n\r\n{FAILURE_BODY}"
    ).encode("ascii")
