"""Keeping what the broker does not confirm on disk, so that the gateway need not repeat it."""

import asyncio
import time
from collections.abc import Callable

from service.messaging.contract import AsyncPublisher, Message, OnSettled, Publisher
from service.messaging.errors import NotConfirmed
from service.messaging.sqlite.embedded import EmbeddedPublisher
from service.messaging.sqlite.forwarder import SpoolForwarder
from service.messaging.sqlite.queue import Depth, EmbeddedQueue

#: Kept back of a publish's time limit for the spool.
_SPOOL_SECONDS = 0.5


class SpoolingPublisher:
    """Falls back on a file; see `AsyncPublisher`. A message may reach the broker twice, and in any order.

    What `inner` does not confirm, for any reason, is fsynced into `spool`, and forwarded when the broker is back.
    `max_bytes` bounds the file's messages; beyond it, publishing fails with `SpoolFull`. Any number of processes may
    share one spool file: one of them forwards, through `forward_to`, and another takes over when that one ends.
    `on_depth` is called about once a second, in the process that forwards, on a thread of its own.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        inner: AsyncPublisher,
        forward_to: Publisher,
        spool: EmbeddedQueue,
        max_bytes: int,
        on_depth: Callable[[Depth], None],
    ) -> None:
        """`forward_to` is closed with this one."""
        self._inner = inner
        self._forward_to = forward_to
        self._spool = EmbeddedPublisher(queue=spool, loop=loop, max_bytes=max_bytes)
        self._forwarder = SpoolForwarder(publisher=forward_to, spool=spool, on_depth=on_depth)
        # What an earlier process left does not wait for the next message.
        self._forwarder.start()

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        """Publish; it is settled with None once the broker has confirmed it or it is fsynced here."""
        remaining_seconds = deadline - time.monotonic()

        def fall_back(error: NotConfirmed | None) -> None:
            if error is None:
                on_settled(None)
            else:
                self._forwarder.start()
                self._spool.submit(message, deadline=deadline, on_settled=on_settled)

        reserve_seconds = min(_SPOOL_SECONDS, remaining_seconds / 2)
        self._inner.submit(message, deadline=deadline - reserve_seconds, on_settled=fall_back)

    async def close(self, *, timeout_seconds: float) -> None:
        """Stop forwarding (what is left stays for the next process) and close both ways out."""
        deadline = time.monotonic() + timeout_seconds
        await self._inner.close(timeout_seconds=timeout_seconds)
        await asyncio.to_thread(self._forwarder.close, timeout_seconds=max(deadline - time.monotonic(), 0))
        await asyncio.to_thread(self._forward_to.close, timeout_seconds=max(deadline - time.monotonic(), 0.1))
        await self._spool.close(timeout_seconds=max(deadline - time.monotonic(), 0.1))
