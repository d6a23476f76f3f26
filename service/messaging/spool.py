"""Keeping what the broker does not confirm on disk, so that the gateway need not repeat it."""

import time
from collections.abc import Callable

from service.messaging.contract import Message, Publisher
from service.messaging.embedded_queue import Depth, EmbeddedQueue
from service.messaging.errors import NotConfirmed
from service.messaging.forwarder import SpoolForwarder

#: Kept back of a publish's time limit for the spool.
_SPOOL_SECONDS = 0.5


class SpoolingPublisher:
    """A publisher that falls back on a file; see `Publisher`. A message may reach the broker twice, and in any order.

    What `inner` does not confirm, for any reason, is fsynced into `spool` before `publish` returns, and forwarded when
    the broker is back. `max_bytes` bounds the file's messages; beyond it, publishing raises `SpoolFull`. Any number of
    processes may share one spool file: one of them forwards, another takes over when that one ends. `on_depth` is
    called about once a second, in the process that forwards, on a thread of its own.
    """

    def __init__(
        self, *, inner: Publisher, spool: EmbeddedQueue, max_bytes: int, on_depth: Callable[[Depth], None]
    ) -> None:
        self._inner = inner
        self._spool = spool
        self._max_bytes = max_bytes
        self._forwarder = SpoolForwarder(publisher=inner, spool=spool, on_depth=on_depth)

    def start(self) -> None:
        """Begin to forward what an earlier process has left; `publish` does so too. After fork. Safe to repeat."""
        self._forwarder.start()

    def publish(self, message: Message, *, timeout_seconds: float) -> None:
        """Return once the message is confirmed by the broker or fsynced here."""
        self.start()
        deadline = time.monotonic() + timeout_seconds
        reserve_seconds = min(_SPOOL_SECONDS, timeout_seconds / 2)
        try:
            self._inner.publish(message, timeout_seconds=timeout_seconds - reserve_seconds)
        except NotConfirmed:
            remaining_seconds = max(deadline - time.monotonic(), 0)
            self._spool.put(message, timeout_seconds=remaining_seconds, max_bytes=self._max_bytes)

    def close(self, *, timeout_seconds: float) -> None:
        """Stop forwarding (what is left stays for the next process) and close both ways out."""
        deadline = time.monotonic() + timeout_seconds
        self._forwarder.close(timeout_seconds=timeout_seconds)
        self._inner.close(timeout_seconds=max(deadline - time.monotonic(), 0))
        self._spool.close(timeout_seconds=max(deadline - time.monotonic(), 0.1))
