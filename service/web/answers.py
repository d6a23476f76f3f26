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
