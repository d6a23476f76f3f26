"""An HTTP proxy on a port of its own, as in RFC 9110: it makes tunnels, and forwards requests for plain http."""

import base64
import http.client
import select
import socket
from urllib.parse import urlsplit

from tests.support.local_server import LocalServer, SilentHandler


class HttpProxy(LocalServer):
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

        class Handler(_Handler):
            proxy = self

        super().__init__(Handler)

    def lets_in(self, authorization: str | None) -> bool:
        """Whether it serves whoever names itself so."""
        self.authorizations.append(authorization)
        return self._wanted is None or authorization == self._wanted


class _Handler(SilentHandler):
    proxy: HttpProxy

    def do_CONNECT(self) -> None:
        proxy = self.proxy
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
        proxy = self.proxy
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


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Until either hangs up."""
    while True:
        for source in select.select([one, other], [], [])[0]:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)
