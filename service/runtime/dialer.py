"""Opens connections to one URL, directly or through a proxy."""

import base64
import socket
import ssl
from collections.abc import Sequence
from http.client import HTTPException
from urllib.parse import SplitResult

from service.config.settings import Proxy
from service.runtime.host_lookup import Address, HostLookup
from service.runtime.http_connection import Connection, time_left

_DEFAULT_PORTS = {"http": 80, "https": 443}


class ProxyFailed(Exception):
    """The proxy cannot be reached, or made no connection. Names a kind of error or an HTTP status only."""


class AnsweredEarly(HTTPException):
    """Bytes came over a new connection before anything was sent: they can be no answer."""


class Dialer:
    """Opens connections, each by a deadline that holds for the lookup of the name too. Safe to share between threads.

    Certificates are verified. Variables like HTTPS_PROXY are ignored.
    """

    def __init__(self, url: SplitResult, *, trust: ssl.SSLContext | None, proxy: Proxy | None) -> None:
        """Connects to nothing yet. `url` is http or https and in ASCII; `trust` of None is this machine's."""
        host, port = url.hostname or "", url.port or _DEFAULT_PORTS[url.scheme]
        # A dot at the end keeps the resolver from its search list, and is in no certificate.
        self._host = host.rstrip(".")
        written = f"[{self._host}]" if ":" in self._host else self._host
        #: What the `Host` header says.
        self.authority = written if port == _DEFAULT_PORTS[url.scheme] else f"{written}:{port}"
        #: For `Proxy-Authorization`, on each request that a proxy reads: one over plain http.
        self.proxy_authorization = "" if proxy is None or url.scheme == "https" else _authorization(proxy)
        self._proxied = proxy is not None
        self._lookup = HostLookup(host, port) if proxy is None else HostLookup(proxy.host, proxy.port)
        self._tls: ssl.SSLContext | None = None
        self._tunnel_request = b""
        if url.scheme == "https":
            # One context for all connections: making it reads every trusted certificate.
            self._tls = trust or ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
            if proxy is not None:
                self._tunnel_request = _tunnel_request(f"{written}:{port}", proxy)

    def dial(self, *, deadline: float) -> Connection:
        """A new connection, on which nothing was sent and nothing has come.

        Raises `OSError`, `ProxyFailed` and `AnsweredEarly`.
        """
        connected = self._reach_proxy(deadline) if self._proxied else self._connect(deadline)
        try:
            if self._tls is not None:
                connected.settimeout(time_left(deadline))
                connected = self._tls.wrap_socket(connected, server_hostname=self._host)
        except BaseException:
            connected.close()
            raise
        connection = Connection(connected)
        if not connection.is_quiet():
            connection.close()
            raise AnsweredEarly
        return connection

    def _connect(self, deadline: float) -> socket.socket:
        addresses = self._lookup.find(timeout_seconds=time_left(deadline))
        for place, address in enumerate(addresses, start=1):
            try:
                # Each address gets an equal share of what is left, so that a dead one leaves time for the others.
                return _open(address, timeout_seconds=time_left(deadline) / (len(addresses) - place + 1))
            except OSError:
                if place == len(addresses):
                    raise
        raise OSError("the host has no address")

    def _reach_proxy(self, deadline: float) -> socket.socket:
        try:
            connected = self._connect(deadline)
            try:
                if self._tunnel_request:
                    self._open_tunnel(Connection(connected), deadline)
            except BaseException:
                connected.close()
                raise
        except (OSError, HTTPException) as error:
            raise ProxyFailed(type(error).__name__) from error
        return connected

    def _open_tunnel(self, connection: Connection, deadline: float) -> None:
        """See RFC 9110, section 9.3.6."""
        connection.send(self._tunnel_request, deadline=deadline)
        answer = connection.receive(method="CONNECT", deadline=deadline)
        if not 200 <= answer.status < 300:
            raise ProxyFailed(f"HTTP {answer.status}")
        if not connection.is_quiet():
            raise AnsweredEarly


def _open(address: Address, *, timeout_seconds: float) -> socket.socket:
    family, kind, protocol, _, peer = address
    connected = socket.socket(family, kind, protocol)
    try:
        connected.settimeout(timeout_seconds)
        connected.connect(peer)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connected.close()
        raise
    return connected


def _tunnel_request(authority: str, proxy: Proxy) -> bytes:
    lines: Sequence[str] = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if authorization := _authorization(proxy):
        lines = [*lines, f"Proxy-Authorization: {authorization}"]
    return "\r\n".join([*lines, "", ""]).encode()


def _authorization(proxy: Proxy) -> str:
    """As in RFC 7617; "" where the proxy asks for no user."""
    if proxy.credentials is None:
        return ""
    return "Basic " + base64.b64encode(proxy.credentials.reveal().encode()).decode()
