"""Opens connections to one URL, directly or through a proxy."""

import base64
import socket
import ssl
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from http.client import HTTPException
from typing import Any
from urllib.parse import SplitResult

from service.config.secrets import Proxy
from service.runtime.http_connection import Connection, time_left

_DEFAULT_PORTS = {"http": 80, "https": 443}

# As `socket.getaddrinfo` returns it: family, type, protocol, canonical name, address.
_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


class ProxyFailed(Exception):
    """The proxy cannot be reached, or refused the connection. The text is only a kind of error or an HTTP status."""


class EarlyResponse(HTTPException):
    """Bytes arrived on a new connection before anything was sent, so they cannot be an answer."""


class Dialer:
    """Opens connections. The deadline includes the lookup of the host name. Safe to share between threads.

    Certificates are verified. Variables like HTTPS_PROXY are ignored.
    """

    def __init__(self, url: SplitResult, *, trust: ssl.SSLContext | None, proxy: Proxy | None) -> None:
        """Does not connect yet. `url` is http or https, in ASCII. `trust` is by default what this machine trusts."""
        host, port = url.hostname or "", url.port or _DEFAULT_PORTS[url.scheme]
        # A final dot keeps the resolver from its search list, and never appears in a certificate.
        self._host = host.rstrip(".")
        written = f"[{self._host}]" if ":" in self._host else self._host
        #: The `Host` header.
        self.authority = written if port == _DEFAULT_PORTS[url.scheme] else f"{written}:{port}"
        #: The `Proxy-Authorization` header of requests that a proxy reads (those over plain http); else "".
        self.proxy_authorization = "" if proxy is None or url.scheme == "https" else _authorization(proxy)
        self._proxied = proxy is not None
        self._lookup = HostLookup(host, port) if proxy is None else HostLookup(proxy.host, proxy.port)
        self._tls: ssl.SSLContext | None = None
        self._tunnel_request = b""
        if url.scheme == "https":
            # One context for all connections: making one reads every trusted certificate.
            self._tls = trust or ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
            if proxy is not None:
                self._tunnel_request = _tunnel_request(f"{written}:{port}", proxy)

    def dial(self, *, deadline: float) -> Connection:
        """A new connection, on which nothing has been sent or received.

        Raises `OSError`, `ProxyFailed` and `EarlyResponse`.
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
            raise EarlyResponse
        return connection

    def _connect(self, deadline: float) -> socket.socket:
        addresses = self._lookup.find(timeout_seconds=time_left(deadline))
        for tried, address in enumerate(addresses):
            try:
                # Each address gets an equal share of the time left, so that a dead one leaves time for the others.
                return _open(address, timeout_seconds=time_left(deadline) / (len(addresses) - tried))
            except OSError:
                if tried == len(addresses) - 1:
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
            raise EarlyResponse


class HostLookup:
    """Looks up the addresses of one host within a time limit. Safe to share between threads.

    The system's resolver takes no time limit and cannot be stopped, so it runs on a thread of its own. All callers wait
    for the same lookup while it runs: a resolver that hangs holds one thread, however many callers there are. Results
    are not cached.
    """

    def __init__(self, host: str, port: int) -> None:
        """`host` is a name or an address, without brackets."""
        self._host = host
        self._port = port
        self._lock = threading.Lock()
        self._under_way: Future[Sequence[_Address]] | None = None

    def find(self, *, timeout_seconds: float) -> Sequence[_Address]:
        """The host's addresses, at least one. Raises `TimeoutError`, and `socket.gaierror` where it has none."""
        try:
            return self._resolve(socket.AI_NUMERICHOST)  # an address needs no resolver
        except socket.gaierror:
            return self._join().result(timeout_seconds)

    def _join(self) -> "Future[Sequence[_Address]]":
        with self._lock:
            if self._under_way is None:
                lookup: Future[Sequence[_Address]] = Future()
                # A daemon: the process can end while the resolver hangs.
                threading.Thread(target=self._run, args=(lookup,), name=f"lookup-{self._host}", daemon=True).start()
                self._under_way = lookup
            return self._under_way

    def _run(self, lookup: "Future[Sequence[_Address]]") -> None:
        try:
            found = self._resolve()
        except OSError as error:
            self._finish()
            lookup.set_exception(error)
        else:
            self._finish()
            lookup.set_result(found)

    def _finish(self) -> None:
        with self._lock:
            self._under_way = None

    def _resolve(self, flags: int = 0) -> Sequence[_Address]:
        try:
            return socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags)
        except UnicodeError as error:  # a label that is empty or longer than 63 characters
            raise socket.gaierror(socket.EAI_NONAME, "this is not a host name") from error


def _open(address: _Address, *, timeout_seconds: float) -> socket.socket:
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
    """Basic authentication (RFC 7617); "" where the proxy has no credentials."""
    if proxy.credentials is None:
        return ""
    return "Basic " + base64.b64encode(proxy.credentials.reveal().encode()).decode()
