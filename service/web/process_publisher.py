"""The publisher of a worker process: made after fork, and once."""

import asyncio
from collections.abc import Callable
from threading import Lock

from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.contract import AsyncPublisher, Message, OnSettled
from service.messaging.errors import BrokerUnavailable


class ProcessPublisher:
    """Publishes on the worker's own loop where that is opened, else on a loop and thread made with the first message.

    Under another server than ours it is safe to use from many threads.
    """

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], AsyncPublisher]) -> None:
        self._make = make
        self._opening = Lock()
        self._publisher: AsyncPublisher | BlockingPublisher | None = None
        self._closed = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Publish on this loop, and be called on its thread alone."""
        self._publisher = self._make(loop)

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        """Begin to publish; see `AsyncPublisher.submit`."""
        # Read without the lock: it is set once, and every callback comes through here.
        publisher = self._publisher or self._open_thread()
        if publisher is None:
            on_settled(BrokerUnavailable("the receiver is shutting down"))
            return
        publisher.submit(message, deadline=deadline, on_settled=on_settled)

    async def close(self, *, timeout_seconds: float) -> None:
        """Wait for what is in flight, then let go. Safe to call twice."""
        with self._opening:
            self._closed = True
        if isinstance(self._publisher, BlockingPublisher):
            self._publisher.close(timeout_seconds=timeout_seconds)
        elif self._publisher is not None:
            await self._publisher.close(timeout_seconds=timeout_seconds)

    def _open_thread(self) -> AsyncPublisher | BlockingPublisher | None:
        with self._opening:
            if self._publisher is None and not self._closed:
                self._publisher = BlockingPublisher(self._make, name="publisher")
            return self._publisher
