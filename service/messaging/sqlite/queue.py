"""A durable queue in one SQLite file, for a machine without RabbitMQ. Only on a local disk."""

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

from service.messaging.contract import DeadLetter, Message
from service.messaging.errors import ConfirmTimeout, MessagingError, QueueFileFailed, SpoolFull
from service.messaging.sqlite.connection import FileConnection
from service.messaging.sqlite.group_commit import GroupCommitWriter
from service.messaging.sqlite.leaseholder import Leaseholder

_SCHEMA_VERSION = 1
#: How long SQLite itself tries for the lock where someone has it who takes no turns.
_BUSY_SECONDS = 0.5

#: No lease is longer. One that seems to be was made before the clock was set back, and is over.
_LONGEST_LEASE_SECONDS = 60.0
_FREE = "(leased_until <= :now OR leased_until > :now + :longest)"

_LEASES = "SELECT DISTINCT lease FROM message WHERE lease IS NOT NULL"

# `size` counts what a message takes. The totals are kept by triggers: summing up would read the whole file each time.
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
# What a row takes beside its body and envelope, roughly.
_ROW_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A message that one consumer may work on until its lease runs out, or its process ends."""

    message: Message
    row: int
    lease: str
    #: How often it was leased before.
    previous_leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much lies in a queue."""

    messages: int
    #: Bodies and envelopes, and a little for each row.
    bytes: int
    #: When the oldest came in, aware; None where there is none.
    oldest_at: datetime | None


class EmbeddedQueue:
    """One queue with its dead letters, in one file. Safe for many threads and processes; made after fork.

    The file is made on first use, readable by its owner alone: it holds personal data. Every method that writes returns
    once that is fsynced, or raises a `NotConfirmed` within its `timeout_seconds`. Messages come out in the order in
    which they went in, save those whose lease ran out.

    What one of these objects has leased is nobody's once it is closed or its process is gone (`Leaseholder`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = GroupCommitWriter(
            open_connection=lambda: _open(path), turns=path.with_name(path.name + ".turns"), name=str(path)
        )
        self._holder = Leaseholder(path.with_name(path.name + ".leases"))
        self._reading = threading.Lock()
        self._reader: FileConnection | None = None

    def put(self, message: Message, *, timeout_seconds: float, max_bytes: int | None = None) -> None:
        """Append a message. Raises `SpoolFull` where the queue would then hold more than `max_bytes`."""
        self._writer.write(self._insertion(message, max_bytes), timeout_seconds=timeout_seconds)

    def submit(
        self, message: Message, *, on_done: Callable[[MessagingError | None], None], max_bytes: int | None = None
    ) -> Callable[[], ConfirmTimeout | None]:
        """Begin to append a message, without waiting; see `GroupCommitWriter.submit`. Raises `QueueFileFailed`."""
        return self._writer.submit(self._insertion(message, max_bytes), on_done=on_done)

    def _insertion(self, message: Message, max_bytes: int | None) -> Callable[[sqlite3.Connection], None]:
        envelope = _to_envelope(message)
        size = len(message.body) + len(envelope) + _ROW_BYTES

        def insert(connection: sqlite3.Connection) -> None:
            if max_bytes is not None:
                (used,) = connection.execute("SELECT bytes FROM total").fetchone()
                if used + size > max_bytes:
                    raise SpoolFull(f"{self.path} holds {used} of {max_bytes} bytes")
            connection.execute(
                "INSERT INTO message (message_id, envelope, body, size, queued_at) VALUES (?, ?, ?, ?, ?)",
                (message.message_id, envelope, message.body, size, time.time()),
            )

        return insert

    def has_ready(self) -> bool:
        """Whether a message waits that nobody has leased. A cheap read, good for polling."""
        now = {"now": time.time(), "longest": _LONGEST_LEASE_SECONDS}
        found = self._read(f"SELECT 1 FROM message WHERE {_FREE} LIMIT 1", now)  # noqa: S608 - a constant
        return bool(found) or any(self._holder.outlives(lease) for (lease,) in self._read(_LEASES))

    def lease(self, *, max_messages: int, lease_seconds: float, timeout_seconds: float) -> Sequence[Leased]:
        """Up to `max_messages` that nobody has leased, oldest first; `lease_seconds` is 60 at most.

        After a `ConfirmTimeout` none is leased, or none for longer than the file takes to write that.
        """
        lease = self._holder.name_lease()

        def take(connection: sqlite3.Connection) -> list[Leased]:
            now = time.time()
            # In this very transaction, so that of several who see that a holder is gone one takes the messages.
            orphans = [name for (name,) in connection.execute(_LEASES) if self._holder.outlives(name)]
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
                Leased(message=_to_message(*columns), row=row, lease=lease, previous_leases=deliveries)
                for row, deliveries, *columns in rows
            ]

        return self._writer.write(take, timeout_seconds=timeout_seconds, undo=_release)

    def remove(self, leased: Iterable[Leased], *, timeout_seconds: float) -> None:
        """Delete them for good, passing over those whose lease is another's by now."""
        keys = [(item.row, item.lease) for item in leased]
        self._writer.write(
            lambda connection: connection.executemany("DELETE FROM message WHERE id = ? AND lease = ?", keys),
            timeout_seconds=timeout_seconds,
        )

    def release(self, leased: Iterable[Leased], *, timeout_seconds: float) -> None:
        """End their leases now, so that others may have them."""
        given_back = list(leased)
        self._writer.write(lambda connection: _release(connection, given_back), timeout_seconds=timeout_seconds)

    def bury(self, leased: Leased, *, reason: str, timeout_seconds: float) -> None:
        """Move one to the dead letters, unless its lease is another's by now."""

        # Reasons may quote what came in, and SQLite takes no lone surrogate.
        clean_reason = reason.encode(errors="backslashreplace").decode()

        def move(connection: sqlite3.Connection) -> None:
            key = (leased.row, leased.lease)
            connection.execute(
                "INSERT INTO dead_letter (message_id, envelope, body, reason, died_at) "
                "SELECT message_id, envelope, body, ?, ? FROM message WHERE id = ? AND lease = ?",
                (clean_reason, time.time(), *key),
            )
            connection.execute("DELETE FROM message WHERE id = ? AND lease = ?", key)

        self._writer.write(move, timeout_seconds=timeout_seconds)

    def dead_letters(self, *, limit: int) -> Sequence[DeadLetter]:
        """Up to `limit` dead letters, oldest first."""
        rows = self._read(
            "SELECT reason, died_at, message_id, envelope, body FROM dead_letter ORDER BY id LIMIT :most",
            {"most": limit},
        )
        return [
            DeadLetter(
                id=message_id,
                message=_to_message(message_id, envelope, body),
                reason=reason,
                died_at=datetime.fromtimestamp(died_at, UTC),
            )
            for reason, died_at, message_id, envelope, body in rows
        ]

    def count_dead_letters(self) -> int:
        """How many dead letters there are."""
        [(count,)] = self._read("SELECT count(*) FROM dead_letter")
        return int(count)

    def revive(self, message_ids: Sequence[str], *, timeout_seconds: float) -> int:
        """Move the named dead letters to the end of the queue; says how many."""

        def move(connection: sqlite3.Connection) -> int:
            now = time.time()
            for message_id in message_ids:
                connection.execute(
                    "INSERT INTO message (message_id, envelope, body, size, queued_at) "
                    "SELECT message_id, envelope, body, length(body) + length(envelope) + ?, ? FROM dead_letter "
                    "WHERE message_id = ?",
                    (_ROW_BYTES, now, message_id),
                )
            return _delete_dead_letters(connection, message_ids)

        return self._writer.write(move, timeout_seconds=timeout_seconds)

    def drop(self, message_ids: Sequence[str], *, timeout_seconds: float) -> int:
        """Delete the named dead letters for good; says how many."""
        return self._writer.write(
            lambda connection: _delete_dead_letters(connection, message_ids), timeout_seconds=timeout_seconds
        )

    def depth(self) -> Depth:
        """How much lies here, leased or not, without the dead letters."""
        [(messages, size, oldest)] = self._read(
            "SELECT messages, bytes, (SELECT queued_at FROM message ORDER BY id LIMIT 1) FROM total"
        )
        return Depth(
            messages=messages,
            bytes=size,
            oldest_at=None if oldest is None else datetime.fromtimestamp(oldest, UTC),
        )

    def close(self, *, timeout_seconds: float) -> None:
        """Finish what is being written, then close the file; what is leased goes to others. Safe to call twice."""
        self._writer.close(timeout_seconds=timeout_seconds)
        self._holder.close()
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _read(self, query: str, parameters: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
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
        # What was taken out must be gone from the file; whether it is without our word is up to who compiled SQLite.
        connection.execute("PRAGMA secure_delete = ON")
        _make_schema(connection, path)
        connection.remember_file(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only ever a new file is opened here: closing any descriptor of an open database drops the process's locks on it.
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


def _delete_dead_letters(connection: sqlite3.Connection, message_ids: Sequence[str]) -> int:
    return connection.executemany(
        "DELETE FROM dead_letter WHERE message_id = ?", [(message_id,) for message_id in message_ids]
    ).rowcount


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


def _to_message(message_id: str, envelope: str, body: bytes) -> Message:
    return Message(message_id=message_id, body=body, **json.loads(envelope))
