"""Publisher, subscriber and dead letters of the embedded queue: what RabbitMQ does, on one machine without it."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from service.messaging.contract import DeadLetter, Delivery, Message, OnSettled
from service.messaging.errors import ConfirmTimeout, MessagingError, NotConfirmed, QueueFileFailed
from service.messaging.event_loop import CallQueue
from service.messaging.sqlite.queue import ROW_BYTES, EmbeddedQueue, Leased, to_message

#: How soon a message that another process queued is noticed. Each poll is one indexed read.
_POLL_SECONDS = 0.025
#: The time limit of writes for which the caller gives none.
_WRITE_SECONDS = 5.0


class EmbeddedPublisher:
    """Appends messages to the file; see `AsyncPublisher`. Exchange and routing key are stored and route nothing.

    The queue's own thread writes and fsyncs; the loop is woken once for a whole group of messages.
    """

    def __init__(self, *, queue: EmbeddedQueue, loop: asyncio.AbstractEventLoop, max_bytes: int | None = None) -> None:
        """`max_bytes` bounds what the file holds; beyond it, publishing fails with `SpoolFull`."""
        self._queue = queue
        self._loop = loop
        self._max_bytes = max_bytes
        self._calls = CallQueue(loop)
        self._pending = 0

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        """Publish; see `AsyncPublisher.submit`. It is settled with None once it is fsynced."""
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
    where messages may be applied twice. A consumer that was killed loses its messages at once.

    A message that this subscriber still holds is not handed out to it again. Its lease is renewed instead: otherwise a
    message that is held for hours would come back as copies of itself.
    """

    def __init__(self, *, queue: EmbeddedQueue, lease_seconds: float = 30.0) -> None:
        self._queue = queue
        self._lease_seconds = lease_seconds
        # The latest lease of each unsettled message, by row.
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
        """Delete them; after a `NotConfirmed` they are handed out again."""
        leased = self._held(deliveries)
        if leased:
            self._queue.remove(leased, timeout_seconds=_WRITE_SECONDS)
            self._forget(leased)

    def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        """Move it to the dead letters, in one transaction."""
        for leased in self._held([delivery]):
            self._queue.dead_letter(leased, reason=reason, timeout_seconds=_WRITE_SECONDS)
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
            with contextlib.suppress(NotConfirmed):  # closing the file ends the leases as well
                self._queue.release(unsettled.values(), timeout_seconds=_WRITE_SECONDS)
        self._queue.close(timeout_seconds=_WRITE_SECONDS)

    def _lease(self, max_messages: int) -> Sequence[Leased]:
        try:
            return self._queue.lease(
                max_messages=max_messages, lease_seconds=self._lease_seconds, timeout_seconds=_WRITE_SECONDS
            )
        except ConfirmTimeout:  # others write without a pause: treat it as an empty queue
            return ()

    def _held(self, deliveries: Sequence[Delivery]) -> list[Leased]:
        """What was handed out, with its present lease where that was renewed."""
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
        rows = self._queue.read(
            "SELECT reason, died_at, message_id, envelope, body FROM dead_letter ORDER BY id LIMIT :most",
            {"most": limit},
        )
        return [
            DeadLetter(
                id=message_id,
                message=to_message(message_id, envelope, body),
                reason=reason,
                died_at=datetime.fromtimestamp(died_at, UTC),
            )
            for reason, died_at, message_id, envelope, body in rows
        ]

    def replay(self, ids: Sequence[str]) -> int:
        """Move the named ones to the end of the queue, in one transaction."""

        def move(connection: sqlite3.Connection) -> int:
            now = time.time()
            for message_id in ids:
                connection.execute(
                    "INSERT INTO message (message_id, envelope, body, size, queued_at) "
                    "SELECT message_id, envelope, body, length(body) + length(envelope) + ?, ? FROM dead_letter "
                    "WHERE message_id = ?",
                    (ROW_BYTES, now, message_id),
                )
            return _delete(connection, ids)

        return self._queue.writer.write(move, timeout_seconds=_WRITE_SECONDS)

    def drop(self, ids: Sequence[str]) -> int:
        """Delete the named ones for good."""
        return self._queue.writer.write(lambda connection: _delete(connection, ids), timeout_seconds=_WRITE_SECONDS)


def _delete(connection: sqlite3.Connection, ids: Sequence[str]) -> int:
    return connection.executemany("DELETE FROM dead_letter WHERE message_id = ?", [(name,) for name in ids]).rowcount


def count_messages(queue: EmbeddedQueue) -> Mapping[str, int]:
    """Messages in `ledger`, leased ones included, and in `dead`. Raises `MessagingError`."""
    [(dead,)] = queue.read("SELECT count(*) FROM dead_letter")
    return {"ledger": queue.depth().messages, "dead": int(dead)}
