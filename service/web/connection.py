"""One client's connection, as the worker's main loop sees it."""

import socket

from service.web.framing import FramedRequest, RequestFraming


class Connection:
    """A socket, what has arrived on it, and until when it may go on like that.

    It belongs to the main loop; while `request` is being answered, to the thread that answers it. The socket does not
    block.
    """

    __slots__ = (
        "arrived_at",
        "client",
        "deadline",
        "discarded_bytes",
        "framing",
        "kept_alive",
        "lingering",
        "request",
        "server",
        "sock",
        "watched",
    )

    def __init__(
        self, *, sock: socket.socket, client: tuple[str, int], server: tuple[str, int], framing: RequestFraming
    ) -> None:
        self.sock = sock
        self.client = client
        self.server = server
        self.framing = framing
        #: The request that has arrived whole and is being answered; `arrived_at` is its time (`time.monotonic`).
        self.request: FramedRequest | None = None
        self.arrived_at = 0.0
        #: When it is cut unless a whole request has arrived (`time.monotonic`).
        self.deadline = 0.0
        #: Whether a request has been answered on it already.
        self.kept_alive = False
        #: Whether the poller tells when it becomes readable.
        self.watched = False
        #: Whether it was turned away and only waits for the client to have read that.
        self.lingering = False
        self.discarded_bytes = 0

    @property
    def host(self) -> str:
        """The client's address, for logs: the nearest proxy's where there is one."""
        return self.client[0]

    def send(self, data: bytes, *, timeout_seconds: float) -> None:
        """Send all of it, waiting where the client has not read what came before. Raises OSError."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.sock.settimeout(timeout_seconds)
            self.sock.sendall(data[sent:])
            self.sock.setblocking(False)
