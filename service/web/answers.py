"""What the receiver says to whoever calls it: as little as possible."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from flask import Response

from service.serving.wsgi import PendingAnswer, make_answer

#: The one body of every failure, whatever its reason.
FAILURE_BODY = "fail"
_PLAIN = "text/plain"

#: The queue did not confirm the callback.
UNCONFIRMED = make_answer(HTTPStatus.SERVICE_UNAVAILABLE, FAILURE_BODY.encode(), content_type=_PLAIN)


class PendingResponse(Response):
    """A response that its server writes later: when `pending` is settled."""

    def __init__(self, pending: PendingAnswer) -> None:
        super().__init__()
        self._pending = pending

    def __call__(self, _environ: object, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Start nothing yet: the status is not known."""
        return self._pending.begin(start_response)


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
