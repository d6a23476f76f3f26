"""The publisher of a worker process: made after fork, and once."""

from collections.abc import Callable
from threading import Lock

from service.messaging.contract import Message, Publisher
from service.messaging.errors import BrokerUnavailable


class ProcessPublisher:
    """A `Publisher` that makes the real one when it is opened or first used. Safe to use from many threads."""

    def __init__(self, make: Callable[[], Publisher]) -> None:
        self._make = make
        self._lock = Lock()
        self._made: Publisher | None = None
        self._closed = False

    def open(self) -> None:
        """Make the real one now: what an earlier process left in its spool need not wait for a callback."""
        self._make_once()

    def publish(self, message: Message, *, timeout_seconds: float) -> None:
        """Return once the message is safely queued; see `Publisher.publish`."""
        # Read without the lock: it is set once, and every callback comes through here.
        publisher = self._made or self._make_once()
        publisher.publish(message, timeout_seconds=timeout_seconds)

    def close(self, *, timeout_seconds: float) -> None:
        """Close the real one if there is one; none is made afterwards."""
        with self._lock:
            self._closed = True
            if self._made is not None:
                self._made.close(timeout_seconds=timeout_seconds)

    def _make_once(self) -> Publisher:
        with self._lock:
            if self._closed:
                raise BrokerUnavailable("the receiver is shutting down")
            if self._made is None:
                self._made = self._make()
            return self._made
