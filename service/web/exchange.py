"""One request and its answer, between gunicorn's HTTP and the WSGI application."""

import socket
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser

from service.web.callbacks import ARRIVED_AT
from service.web.connection import Connection
from service.web.framing import FramedRequest

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def answer_request(
    request: FramedRequest, connection: Connection, *, application: _Application, cfg: Config, last: bool
) -> bool:
    """Send the application's answer to a whole request; says whether the connection can take another one.

    `last`: this process takes no more requests. Raises what gunicorn's parser raises for bytes that are no good
    request, before the application is called, and OSError where the client has gone.
    """
    parsed = next(RequestParser(cfg, [request.data], connection.client))
    body = BytesIO(parsed.body.read())
    parsed._expected_100_continue = False  # it was sent before the body arrived, or this would not be whole
    sending = _Sending()
    response, environ = wsgi.create(parsed, sending, connection.client, connection.server, cfg)
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
    sending.flush_to(connection.sock)
    return not response.should_close()


class _Sending:
    """Stands in for the socket while gunicorn writes head and body, so that both leave in one send."""

    def __init__(self) -> None:
        self._data = b""

    def sendall(self, data: bytes) -> None:
        self._data += data

    def flush_to(self, sock: socket.socket) -> None:
        sock.sendall(self._data)
