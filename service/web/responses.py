"""Responses of the receiver. They reveal as little as possible to the caller."""

from flask import Response

#: The body of every failure, whatever its reason.
FAILURE_BODY = "fail"
#: The content type of every response but the acknowledgement.
PLAIN = "text/plain"


def failure(status: int) -> Response:
    """A failure, which the gateway does not mistake for its acknowledgement. It gives no reason."""
    return plain(FAILURE_BODY, status)


def plain(body: str, status: int = 200) -> Response:
    """A short text for machines."""
    return Response(body, status, content_type=PLAIN)


def bare_failure(status: int) -> bytes:
    """The same failure as bytes of HTTP, for requests that reach no application. The connection ends after it."""
    return (
        f"HTTP/1.1 {status} \r\nConnection: close\r\nContent-Type: {PLAIN}\r\n"
        f"Content-Length: {len(FAILURE_BODY)}\r\n\r\n{FAILURE_BODY}"
    ).encode("ascii")
