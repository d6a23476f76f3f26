"""An HTTP proxy on a port of its own, as in RFC 9110: it makes tunnels, and forwards requests for plain http."""

import base64
import http.client
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


class HttpProxy:
    """Use it as a context manager. What it is told to send wrong, it sends in place of a good answer to CONNECT."""

    def __init__(self, *, user: str = "", password: str = "") -> None:
        """With a `user` it refuses who does not name itself so."""
        self._wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else None
        #: The request lines that it was sent, and what came in Proxy-Authorization.
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        #: Raw bytes in front of its answer to CONNECT, and right behind it.
        self.before = b""
        self.after = b""
        #: Answers CONNECT with this.
        self.status = 200
        #: It takes CONNECT and never answers.
        self.silent = False
        self.closing = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        """It listens there on 127.0.0.1."""
        return self._server.server_port

    def lets_in(self, authorization: str | None) -> bool:
        """Whether it serves whoever names itself so."""
        self.authorizations.append(authorization)
        return self._wanted is None or authorization == self._wanted

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: HttpProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_CONNECT(self) -> None:
        proxy = self.server.proxy
        proxy.asked.append(self.requestline)
        self.close_connection = True
        if not proxy.lets_in(self.headers["Proxy-Authorization"]):
            self.send_error(407)
            return
        if proxy.silent:
            proxy.closing.wait()
            return
        self.wfile.write(proxy.before)
        if proxy.status >= 300:
            self.send_error(proxy.status)
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as target:
            self.wfile.write(f"HTTP/1.1 {proxy.status} Connection established\r\n\r\n".encode() + proxy.after)
            _relay(self.connection, target)

    def do_POST(self) -> None:
        proxy = self.server.proxy
        proxy.asked.append(self.requestline)
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not proxy.lets_in(self.headers["Proxy-Authorization"]):
            self.send_error(407)
            return
        forwarded = http.client.HTTPConnection(url.netloc)
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        forwarded.request("POST", url.path, body, headers)
        answer = forwarded.getresponse()
        content = answer.read()
        forwarded.close()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Until either hangs up."""
    while True:
        for source in select.select([one, other], [], [])[0]:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)
