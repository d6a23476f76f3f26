"""One request and its answer, between gunicorn's HTTP and the WSGI application."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser

from service.web.callbacks import ARRIVED_AT
from service.web.connection import Connection
from service.web.framing import FramedRequest

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as bytes of HTTP, head and body, to be sent as one piece."""

    data: bytes
    #: Whether the connection can take another request.
    keeps_connection: bool


def make_answer(
    request: FramedRequest, connection: Connection, *, application: _Application, cfg: Config, last: bool
) -> Answer:
    """The application's answer to a whole request. `last`: this process takes no more requests.

    Raises what gunicorn's parser raises for bytes that are no good request, before the application is called.
    """
    parsed = next(RequestParser(cfg, [request.data], connection.client))
    body = BytesIO(parsed.body.read())
    parsed._expected_100_continue = False  # it was sent before the body arrived, or this would not be whole
    written = _Written()
    response, environ = wsgi.create(parsed, written, connection.client, connection.server, cfg)
    environ.update({"wsgi.input": body, "wsgi.multithread": True, ARRIVED_AT: connection.arrived_at})
    if request.broken or last:
        response.force_close()
    chunks = application(environ, response.start_response)
    try:
        for chunk in chunks:
            response.write(chunk)
        response.close()
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    return Answer(data=written.data, keeps_connection=not response.should_close())


class _Written:
    """Stands in for the socket while gunicorn writes the answer."""

    def __init__(self) -> None:
        self.data = b""

    def sendall(self, data: bytes) -> None:
        self.data += data
