"""A durable queue in one SQLite file on a local disk, for a machine without RabbitMQ."""

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.messaging.contract import Message
from service.messaging.errors import ConfirmTimeout, MessagingError, QueueFileFailed, SpoolFull
from service.messaging.sqlite.group_commit import FileConnection, GroupCommitWriter
from service.messaging.sqlite.leaseholder import Leaseholder

_SCHEMA_VERSION = 1
#: How long SQLite itself tries for its lock, where someone holds it without our file lock.
_BUSY_SECONDS = 0.5

#: The longest lease. One that seems longer was taken before the clock was set back, and has expired.
_LONGEST_LEASE_SECONDS = 60.0
_FREE = "(leased_until <= :now OR leased_until > :now + :longest)"

_LEASES = "SELECT DISTINCT lease FROM message WHERE lease IS NOT NULL"

# `size` is what a message takes. Triggers keep the totals: summing up would read the whole file each time.
_SCHEMA = """
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL, envelope TEXT NOT NULL, body BLOB NOT NULL,
    size INTEGER NOT NULL, queued_at REAL NOT NULL,
    leased_until REAL NOT NULL DEFAULT 0, lease TEXT, deliveries INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX message_lease ON message (lease) WHERE lease IS NOT NULL;
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL, envelope TEXT NOT NULL, body BLOB NOT NULL,
    reason TEXT NOT NULL, died_at REAL NOT NULL
);
CREATE INDEX dead_letter_message_id ON dead_letter (message_id);
CREATE TABLE total (messages INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO total VALUES (0, 0);
CREATE TRIGGER message_added AFTER INSERT ON message
BEGIN UPDATE total SET messages = messages + 1, bytes = bytes + new.size; END;
CREATE TRIGGER message_removed AFTER DELETE ON message
BEGIN UPDATE total SET messages = messages - 1, bytes = bytes - old.size; END;
"""
#: What a row takes besides its body and envelope, roughly.
ROW_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A message that one consumer may work on until its lease expires or its process ends."""

    message: Message
    row: int
    lease: str
    #: How often it was leased before.
    previous_leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much is in a queue."""

    messages: int
    #: Bodies, envelopes and a constant for each row.
    bytes: int
    #: When the oldest came in, aware; None where there is none.
    oldest_at: datetime | None


class EmbeddedQueue:
    """One queue with its dead letters, in one file. Safe for many threads and processes; make it after a fork.

    The file is created on first use, readable by its owner alone, because it holds personal data. Every method that
    writes returns once the write is fsynced, or raises a `NotConfirmed` within its `timeout_seconds`. Messages come out
    in the order in which they went in, except those whose lease expired.

    The leases of one of these objects end when it is closed or its process is gone (`Leaseholder`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Runs transactions on the file.
        self.writer = GroupCommitWriter(
            open_connection=lambda: _open(path), lock_file=path.with_name(path.name + ".turns"), name=str(path)
        )
        self._holder = Leaseholder(path.with_name(path.name + ".leases"))
        self._reading = threading.Lock()
        self._reader: FileConnection | None = None

    def submit(
        self, message: Message, *, on_done: Callable[[MessagingError | None], None], max_bytes: int | None = None
    ) -> Callable[[], ConfirmTimeout | None]:
        """Begin to append a message, without waiting; see `GroupCommitWriter.submit`.

        Raises `QueueFileFailed`. `on_done` gets `SpoolFull` where the queue would then hold more than `max_bytes`.
        """
        envelope = _to_envelope(message)
        size = len(message.body) + len(envelope) + ROW_BYTES

        def insert(connection: sqlite3.Connection) -> None:
            if max_bytes is not None:
                (used,) = connection.execute("SELECT bytes FROM total").fetchone()
                if used + size > max_bytes:
                    raise SpoolFull(f"{self.path} holds {used} of {max_bytes} bytes")
            connection.execute(
                "INSERT INTO message (message_id, envelope, body, size, queued_at) VALUES (?, ?, ?, ?, ?)",
                (message.message_id, envelope, message.body, size, time.time()),
            )

        return self.writer.submit(insert, on_done=on_done)

    def has_ready(self) -> bool:
        """Whether any message is not leased. A cheap read, good for polling."""
        now = {"now": time.time(), "longest": _LONGEST_LEASE_SECONDS}
        found = self.read(f"SELECT 1 FROM message WHERE {_FREE} LIMIT 1", now)  # noqa: S608 - a constant
        return bool(found) or any(self._holder.is_orphaned(lease) for (lease,) in self.read(_LEASES))

    def lease(self, *, max_messages: int, lease_seconds: float, timeout_seconds: float) -> Sequence[Leased]:
        """Lease up to `max_messages`, oldest first; `lease_seconds` is 60 at most.

        After a `ConfirmTimeout` none stays leased for longer than it takes to write that to the file.
        """
        lease = self._holder.name_lease()

        def take(connection: sqlite3.Connection) -> list[Leased]:
            now = time.time()
            # In this transaction: where several processes see that a holder is gone, only one gets its messages.
            orphans = [name for (name,) in connection.execute(_LEASES) if self._holder.is_orphaned(name)]
            connection.executemany(
                "UPDATE message SET leased_until = 0, lease = NULL WHERE lease = ?", [(name,) for name in orphans]
            )
            rows = connection.execute(
                "SELECT id, deliveries, message_id, envelope, body FROM message "  # noqa: S608 - a constant
                f"WHERE {_FREE} ORDER BY id LIMIT :most",
                {"now": now, "longest": _LONGEST_LEASE_SECONDS, "most": max_messages},
            ).fetchall()
            connection.executemany(
                "UPDATE message SET leased_until = ?, lease = ?, deliveries = deliveries + 1 WHERE id = ?",
                [(now + lease_seconds, lease, row) for row, *_ in rows],
            )
            return [
                Leased(message=to_message(*columns), row=row, lease=lease, previous_leases=deliveries)
                for row, deliveries, *columns in rows
            ]

        return self.writer.write(take, timeout_seconds=timeout_seconds, undo=_release)

    def remove(self, leased: Iterable[Leased], *, timeout_seconds: float) -> None:
        """Delete them for good, except those that somebody else has leased by now."""
        keys = [(item.row, item.lease) for item in leased]
        self.writer.write(
            lambda connection: connection.executemany("DELETE FROM message WHERE id = ? AND lease = ?", keys),
            timeout_seconds=timeout_seconds,
        )

    def release(self, leased: Iterable[Leased], *, timeout_seconds: float) -> None:
        """End their leases now, so that others can lease them."""
        released = list(leased)
        self.writer.write(lambda connection: _release(connection, released), timeout_seconds=timeout_seconds)

    def dead_letter(self, leased: Leased, *, reason: str, timeout_seconds: float) -> None:
        """Move one to the dead letters, unless somebody else has leased it by now."""
        # A reason may quote what came in, and SQLite stores no lone surrogate.
        clean_reason = reason.encode(errors="backslashreplace").decode()

        def move(connection: sqlite3.Connection) -> None:
            key = (leased.row, leased.lease)
            connection.execute(
                "INSERT INTO dead_letter (message_id, envelope, body, reason, died_at) "
                "SELECT message_id, envelope, body, ?, ? FROM message WHERE id = ? AND lease = ?",
                (clean_reason, time.time(), *key),
            )
            connection.execute("DELETE FROM message WHERE id = ? AND lease = ?", key)

        self.writer.write(move, timeout_seconds=timeout_seconds)

    def depth(self) -> Depth:
        """How much is queued, leased or not, without the dead letters."""
        [(messages, size, oldest)] = self.read(
            "SELECT messages, bytes, (SELECT queued_at FROM message ORDER BY id LIMIT 1) FROM total"
        )
        return Depth(
            messages=messages,
            bytes=size,
            oldest_at=None if oldest is None else datetime.fromtimestamp(oldest, UTC),
        )

    def close(self, *, timeout_seconds: float) -> None:
        """Finish the pending writes, then close the file and end the leases. Safe to call twice."""
        self.writer.close(timeout_seconds=timeout_seconds)
        self._holder.close()
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def read(self, query: str, parameters: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query. Raises `QueueFileFailed`."""
        with self._reading:
            try:
                if self._reader is None:
                    self._reader = _open(self.path)
                self._reader.require_file()
                return self._reader.execute(query, parameters or {}).fetchall()
            except (sqlite3.Error, OSError) as error:
                if self._reader is not None:
                    self._reader.close()
                    self._reader = None
                raise QueueFileFailed(f"{self.path}: {error}") from error


def _open(path: Path) -> FileConnection:
    _make_private_file(path)
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=FileConnection
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # Deleted messages must be gone from the file. The default depends on how SQLite was compiled.
        connection.execute("PRAGMA secure_delete = ON")
        _make_schema(connection, path)
        connection.remember_file(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opens new files only: closing any descriptor of an open database would release the process's locks on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _make_schema(connection: sqlite3.Connection, path: Path) -> None:
    if _schema_version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        if _schema_version(connection) == 0:  # another process may have been quicker
            for statement in _statements(_SCHEMA):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.execute("COMMIT")
    version = _schema_version(connection)
    if version != _SCHEMA_VERSION:
        raise QueueFileFailed(f"{path} is of version {version}; this release reads {_SCHEMA_VERSION}")


def _schema_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _statements(script: str) -> Iterable[str]:
    # `executescript` would commit the transaction that this runs in.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _release(connection: sqlite3.Connection, leased: Iterable[Leased]) -> None:
    connection.executemany(
        "UPDATE message SET leased_until = 0, lease = NULL WHERE id = ? AND lease = ?",
        [(item.row, item.lease) for item in leased],
    )


def _to_envelope(message: Message) -> str:
    return json.dumps(
        {
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "type": message.type,
            "content_type": message.content_type,
            "headers": dict(message.headers),
        }
    )


def to_message(message_id: str, envelope: str, body: bytes) -> Message:
    """The message of a row of `message` or `dead_letter`."""
    return Message(message_id=message_id, body=body, **json.loads(envelope))
