"""The embedded queue as publisher, subscriber and dead letters: what RabbitMQ does, on one machine without it."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

from service.messaging.contract import DeadLetter, Delivery, Message, OnSettled
from service.messaging.errors import ConfirmTimeout, MessagingError, NotConfirmed, QueueFileFailed
from service.messaging.rabbitmq.event_loop import CallQueue
from service.messaging.sqlite.queue import EmbeddedQueue, Leased

#: How soon a message that another process queued is noticed. Each look is one indexed read.
_POLL_SECONDS = 0.025
#: For what no caller gave a time limit.
_WRITE_SECONDS = 5.0


class EmbeddedPublisher:
    """Puts messages into the file; see `AsyncPublisher`. It is one queue: exchange and routing key only travel along.

    The queue's own thread writes and fsyncs; the loop hears of a whole group at once.
    """

    def __init__(self, *, queue: EmbeddedQueue, loop: asyncio.AbstractEventLoop, max_bytes: int | None = None) -> None:
        """`max_bytes` bounds what the file holds; beyond it, publishing fails with `SpoolFull`."""
        self._queue = queue
        self._loop = loop
        self._max_bytes = max_bytes
        self._calls = CallQueue(loop)
        self._pending = 0

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        """Publish; see `AsyncPublisher.submit`. Once it is fsynced it is settled with None."""
        timer: asyncio.TimerHandle | None = None

        def settle(error: MessagingError | None) -> None:
            if timer is not None:
                timer.cancel()
            self._pending -= 1
            on_settled(error if error is None or isinstance(error, NotConfirmed) else NotConfirmed(str(error)))

        try:
            give_up = self._queue.submit(
                message, on_done=lambda error: self._calls.call(lambda: settle(error)), max_bytes=self._max_bytes
            )
        except QueueFileFailed as error:
            on_settled(error)
            return

        def time_out() -> None:
            timeout = give_up()
            if timeout is not None:
                settle(timeout)

        self._pending += 1
        timer = self._loop.call_at(deadline, time_out)

    async def close(self, *, timeout_seconds: float) -> None:
        """Write what is pending, then close the queue's file."""
        deadline = time.monotonic() + timeout_seconds
        while self._pending and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        await asyncio.to_thread(self._queue.close, timeout_seconds=max(deadline - time.monotonic(), 0.1))


class EmbeddedSubscriber:
    """Takes messages out of the file; see `Subscriber`.

    A message is leased for `lease_seconds`. A consumer that takes longer loses it to another one, which is harmless
    where applying twice is; one that was killed loses it at once. What this one still holds it is not handed again: its
    lease is renewed, else a message that is held for hours would come back as its own copies.
    """

    def __init__(self, *, queue: EmbeddedQueue, lease_seconds: float = 30.0) -> None:
        self._queue = queue
        self._lease_seconds = lease_seconds
        # By row, as it was leased last.
        self._unsettled: dict[int, Leased] = {}
        self._closed = False

    def receive(self, *, max_messages: int, wait_seconds: float) -> Sequence[Delivery]:
        """Up to `max_messages`; raises `QueueFileFailed` where the file cannot be used."""
        deadline = time.monotonic() + wait_seconds
        while not self._closed:
            leased = self._lease(max_messages) if self._queue.has_ready() else ()
            fresh = [item for item in leased if item.row not in self._unsettled]
            self._unsettled.update((item.row, item) for item in leased)
            if fresh:
                return [
                    Delivery(message=item.message, previous_deliveries=item.previous_leases, handle=item)
                    for item in fresh
                ]
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            time.sleep(min(_POLL_SECONDS, remaining))
        return ()

    def holds(self, delivery: Delivery) -> bool:
        """Whether it is unsettled: its lease is renewed as long as it is."""
        return isinstance(delivery.handle, Leased) and delivery.handle.row in self._unsettled

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Delete them; a `NotConfirmed` means that they come again."""
        leased = self._held(deliveries)
        if leased:
            self._queue.remove(leased, timeout_seconds=_WRITE_SECONDS)
            self._forget(leased)

    def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        """Move it to the dead letters, in one transaction."""
        for leased in self._held([delivery]):
            self._queue.bury(leased, reason=reason, timeout_seconds=_WRITE_SECONDS)
            self._forget([leased])

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """End their leases."""
        leased = self._held(deliveries)
        if leased:
            self._queue.release(leased, timeout_seconds=_WRITE_SECONDS)
            self._forget(leased)

    def close(self) -> None:
        """End the leases of what is unsettled, then close the queue's file."""
        self._closed = True
        unsettled, self._unsettled = self._unsettled, {}
        if unsettled:
            with contextlib.suppress(NotConfirmed):  # then closing the file has to do
                self._queue.release(unsettled.values(), timeout_seconds=_WRITE_SECONDS)
        self._queue.close(timeout_seconds=_WRITE_SECONDS)

    def _lease(self, max_messages: int) -> Sequence[Leased]:
        try:
            return self._queue.lease(
                max_messages=max_messages, lease_seconds=self._lease_seconds, timeout_seconds=_WRITE_SECONDS
            )
        except ConfirmTimeout:  # others write without a pause: nothing came
            return ()

    def _held(self, deliveries: Sequence[Delivery]) -> list[Leased]:
        """What was handed out, by its present lease where that was renewed."""
        handed_out = [delivery.handle for delivery in deliveries if isinstance(delivery.handle, Leased)]
        return [self._unsettled.get(item.row, item) for item in handed_out]

    def _forget(self, leased: Sequence[Leased]) -> None:
        for item in leased:
            self._unsettled.pop(item.row, None)


class EmbeddedDeadLetters:
    """The dead letters of the file; see `DeadLetters`."""

    def __init__(self, *, queue: EmbeddedQueue) -> None:
        self._queue = queue

    def list(self, *, limit: int) -> Sequence[DeadLetter]:
        """Up to `limit`, oldest first."""
        return self._queue.dead_letters(limit=limit)

    def replay(self, ids: Sequence[str]) -> int:
        """Move the named ones back, in one transaction."""
        return self._queue.revive(ids, timeout_seconds=_WRITE_SECONDS)

    def drop(self, ids: Sequence[str]) -> int:
        """Delete the named ones for good."""
        return self._queue.drop(ids, timeout_seconds=_WRITE_SECONDS)
