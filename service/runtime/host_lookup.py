"""The addresses of one host, looked up within a time limit."""

import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

#: As `socket.getaddrinfo` gives it: family, type, protocol, canonical name, address.
Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


class HostLookup:
    """Looks one host up as often as it is asked. Safe to share between threads.

    The system's resolver takes no time limit and cannot be stopped, so a thread of its own asks it. While one lookup is
    under way, everybody waits for that one: a resolver that hangs holds one thread, however many callers there are.
    Nothing is remembered after it.
    """

    def __init__(self, host: str, port: int) -> None:
        """`host` is a name or an address, without brackets. Looks nothing up yet."""
        self._host = host
        self._port = port
        self._lock = threading.Lock()
        self._under_way: Future[Sequence[Address]] | None = None

    def find(self, *, timeout_seconds: float) -> Sequence[Address]:
        """The host's addresses, at least one. Raises `TimeoutError`, and `socket.gaierror` where it has none."""
        try:
            return self._ask(socket.AI_NUMERICHOST)  # an address needs no resolver
        except socket.gaierror:
            return self._join().result(timeout_seconds)

    def _join(self) -> "Future[Sequence[Address]]":
        with self._lock:
            if self._under_way is None:
                lookup: Future[Sequence[Address]] = Future()
                # A daemon: the process can end while the resolver hangs.
                threading.Thread(target=self._run, args=(lookup,), name=f"lookup-{self._host}", daemon=True).start()
                self._under_way = lookup
            return self._under_way

    def _run(self, lookup: "Future[Sequence[Address]]") -> None:
        try:
            found = self._ask()
        except OSError as error:
            self._finish()
            lookup.set_exception(error)
        else:
            self._finish()
            lookup.set_result(found)

    def _finish(self) -> None:
        with self._lock:
            self._under_way = None

    def _ask(self, flags: int = 0) -> Sequence[Address]:
        try:
            return socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags)
        except UnicodeError as error:  # a label that is empty or longer than 63 characters
            raise socket.gaierror(socket.EAI_NONAME, "this is no host name") from error
