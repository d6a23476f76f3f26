"""The dead letters of the embedded queue."""

import sqlite3
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from service.messaging.interface import DeadLetter
from service.messaging.sqlite.queue import ROW_BYTES, EmbeddedQueue, to_message

#: The time limit of writes.
_WRITE_SECONDS = 5.0


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

    def replay(self, ids: Collection[str]) -> Collection[str]:
        """Move the named ones to the end of the queue, in one transaction."""

        def move(connection: sqlite3.Connection) -> Collection[str]:
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

    def drop(self, ids: Collection[str]) -> Collection[str]:
        """Delete the named ones for good."""
        return self._queue.writer.write(lambda connection: _delete(connection, ids), timeout_seconds=_WRITE_SECONDS)


def _delete(connection: sqlite3.Connection, ids: Collection[str]) -> Collection[str]:
    return {
        name for name in ids if connection.execute("DELETE FROM dead_letter WHERE message_id = ?", (name,)).rowcount
    }
