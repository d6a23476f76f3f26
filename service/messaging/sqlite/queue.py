"""The embedded queue: a durable queue in one SQLite file on a local disk, for a machine without RabbitMQ.

From the bottom up: a connection that notices when its file is taken away; a writer, through which the writes of many
threads share one commit and fsync; the holder of leases; the queue; its publisher and its subscriber.
"""

import asyncio
import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from service.messaging.errors import ConfirmTimeout, MessagingError, NotConfirmed, QueueFileFailed, SpoolFull
from service.messaging.interface import Delivery, Message, OnSettled
from service.runtime.file_locks import LockTimeout, hold_file_lock, is_byte_free, lock_byte
from service.runtime.sqlite_files import forget_cached_log, is_read_only

_SCHEMA_VERSION = 1
# `size` is what a message takes. Triggers keep the totals: summing up would read the whole file each time.
_SCHEMA = (
    """
    CREATE TABLE message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        message_id TEXT NOT NULL, envelope TEXT NOT NULL, body BLOB NOT NULL,
        size INTEGER NOT NULL, queued_at REAL NOT NULL,
        leased_until REAL NOT NULL DEFAULT 0, lease TEXT, deliveries INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX message_lease ON message (lease) WHERE lease IS NOT NULL",
    """
    CREATE TABLE dead_letter (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        message_id TEXT NOT NULL, envelope TEXT NOT NULL, body BLOB NOT NULL,
        reason TEXT NOT NULL, died_at REAL NOT NULL
    )
    """,
    "CREATE INDEX dead_letter_message_id ON dead_letter (message_id)",
    "CREATE TABLE total (messages INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    "INSERT INTO total VALUES (0, 0)",
    """
    CREATE TRIGGER message_added AFTER INSERT ON message
    BEGIN UPDATE total SET messages = messages + 1, bytes = bytes + new.size; END
    """,
    """
    CREATE TRIGGER message_removed AFTER DELETE ON message
    BEGIN UPDATE total SET messages = messages - 1, bytes = bytes - old.size; END
    """,
)
#: What a row takes besides its body and envelope, roughly.
ROW_BYTES = 256

#: The longest lease. One that seems longer was taken before the clock was set back, and has expired.
_LONGEST_LEASE_SECONDS = 60.0
_FREE = "(leased_until <= :now OR leased_until > :now + :longest)"
_LEASES = "SELECT DISTINCT lease FROM message WHERE lease IS NOT NULL"
#: Offsets to choose from: so many that no two holders choose the same.
_OFFSETS = 2**62

#: How long SQLite itself tries for its lock, where someone holds it without our file lock.
_BUSY_SECONDS = 0.5
_BUSY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRIMARY_CODE = 0xFF
#: Between two tries for a locked file. SQLite waits by itself for most locks, but not for all.
_RETRY_SECONDS = 0.01
#: How long a group waits for the lock before the writes that were given up are taken out of it.
_LOCK_WAIT_SECONDS = 0.5
#: The most writes in one transaction, so that no transaction gets long.
_MAX_GROUP = 500

#: How soon a message that another process queued is noticed. Each poll is one indexed read.
_POLL_SECONDS = 0.025
#: The time limit of writes for which the caller gives none.
_WRITE_SECONDS = 5.0

Result = TypeVar("Result")


class FileConnection(sqlite3.Connection):
    """A connection that notices when its file is taken away.

    When the file is deleted or replaced, SQLite in WAL mode goes on with the old one, which nobody will ever find
    again, and reports every commit as a success.
    """

    path: Path
    _opened: os.stat_result

    def remember_file(self, path: Path) -> None:
        """Record that `path`, which this connection has used already, is its file."""
        self.path = path
        self._opened = os.stat(path)

    def require_file(self) -> None:
        """Raise OSError unless its file is still where it was."""
        if not os.path.samestat(os.stat(self.path), self._opened):
            raise FileNotFoundError("the file was replaced while it was in use")


def _open(path: Path) -> FileConnection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opens new files only: closing any descriptor of an open database would release the process's locks on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if is_read_only(path):
        raise OSError("the file or its disk is read-only")
    forget_cached_log(path)
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


def _make_schema(connection: sqlite3.Connection, path: Path) -> None:
    if _schema_version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        if _schema_version(connection) == 0:  # another process may have been quicker
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.execute("COMMIT")
    version = _schema_version(connection)
    if version != _SCHEMA_VERSION:
        raise QueueFileFailed(f"{path} is of version {version}; this release reads {_SCHEMA_VERSION}")


def _schema_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


class _Write(Generic[Result]):
    """One write. Its caller gives it up by cancelling `done`, for as long as it is not settled."""

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], Result],
        *,
        undo: Callable[[sqlite3.Connection, Result], object] | None = None,
    ) -> None:
        self._work = work
        self._undo = undo
        self._result: list[Result] = []
        self._refusal: MessagingError | None = None
        self.done: Future[Result] = Future()

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the work inside the open transaction. It may refuse (a `MessagingError`) before it writes."""
        self._refusal = None
        try:
            self._result = [self._work(connection)]
        except MessagingError as error:
            self._refusal = error

    def fail(self, error: MessagingError) -> None:
        """Tell the caller that nothing was written."""
        if self.done.set_running_or_notify_cancel():
            self.done.set_exception(error)

    def commit(self) -> "_Write[object] | None":
        """Tell the caller. Returns the write that undoes this one where it was given up too late."""
        if self._refusal is not None:
            self.fail(self._refusal)
            return None
        [result] = self._result
        if self.done.set_running_or_notify_cancel():
            self.done.set_result(result)
            return None
        undo = self._undo
        return None if undo is None else _Write(lambda connection: undo(connection, result))


class GroupCommitWriter:
    """One writing thread and connection for a process, started on first use and therefore after a fork.

    While other processes write, the writes wait, each within its own time limit. Any other trouble with the file fails
    the writes that met it, and the next write opens the file anew.
    """

    def __init__(self, *, open_connection: Callable[[], FileConnection], lock_file: Path, name: str) -> None:
        """`lock_file`: what every writer to this file locks while it writes."""
        self._open_connection = open_connection
        self._lock_file = lock_file
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[_Write[object]] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._locked = False

    def write(
        self,
        work: Callable[[sqlite3.Connection], Result],
        *,
        timeout_seconds: float,
        undo: Callable[[sqlite3.Connection, Result], object] | None = None,
    ) -> Result:
        """Run `work` in a transaction and return its result once that is on disk.

        `work` must raise no `MessagingError` after it has written. Raises `ConfirmTimeout` when the time is up,
        `QueueFileFailed` where the file cannot be used, and what `work` raises. After a `ConfirmTimeout`, a write whose
        transaction had begun is written all the same. `undo` then gets the result of that late write, in the next
        transaction.
        """
        write = _Write(work, undo=undo)
        self._add(write)
        try:
            return write.done.result(timeout_seconds)
        except TimeoutError:
            if write.done.cancel():
                raise self._timeout() from None
            return write.done.result()

    def submit(
        self, work: Callable[[sqlite3.Connection], object], *, on_done: Callable[[BaseException | None], None]
    ) -> Callable[[], ConfirmTimeout | None]:
        """Begin to run `work` in a transaction; `on_done` is called on the writing thread once that is on disk.

        `on_done` gets None, or why the write failed. The returned function gives the write up, from any thread: it
        returns the reason, and `on_done` is not called, or None where the write was done already. Raises
        `QueueFileFailed`.
        """

        def settle(done: "Future[object]") -> None:
            if not done.cancelled():
                on_done(done.exception())

        write: _Write[object] = _Write(work)
        write.done.add_done_callback(settle)
        self._add(write)
        return lambda: self._timeout() if write.done.cancel() else None

    def close(self, *, timeout_seconds: float) -> None:
        """Finish the waiting writes, then close the file. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _add(self, write: _Write[Any]) -> None:
        with self._changed:
            if self._closed:
                raise QueueFileFailed(f"{self._name} is closed")
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"write {self._name}", daemon=True)
                self._thread.start()
            self._waiting.append(write)
            self._changed.notify()

    def _timeout(self) -> ConfirmTimeout:
        why = "another process holds its lock" if self._locked else "the disk is slow"
        return ConfirmTimeout(f"{self._name} was not written within the time limit: {why}")

    def _run(self) -> None:
        connection: FileConnection | None = None
        while group := self._next_group():
            try:
                if connection is None:
                    connection = self._open_connection()
                with hold_file_lock(self._lock_file, wait_seconds=_LOCK_WAIT_SECONDS):
                    written = _commit(connection, group)
                self._locked = False
                # Only now, without the lock: a process that freezes right after its caller heard of it blocks nobody.
                self._put_back([undo for write in written if (undo := write.commit()) is not None])
            except LockTimeout:
                self._locked = True
                self._put_back(group)
            except (sqlite3.Error, OSError) as error:
                if connection is not None:
                    connection.close()  # rolls back the open transaction, whatever its state
                    connection = None
                self._locked = _is_busy(error)
                if self._locked:
                    time.sleep(_RETRY_SECONDS)
                    self._put_back(group)
                else:
                    failure = QueueFileFailed(f"{self._name}: {error}")
                    failure.__cause__ = error
                    for write in group:
                        write.fail(failure)
            except MessagingError as error:  # the file was written by another release
                for write in group:
                    write.fail(error)
        if connection is not None:
            connection.close()

    def _next_group(self) -> list[_Write[object]]:
        """Wait for writes. Returns none once the writer is closed and has written everything."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_GROUP))]
                wanted = [write for write in group if not write.done.cancelled()]
                if wanted or (self._closed and not self._waiting):
                    return wanted

    def _put_back(self, group: list[_Write[object]]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(group))


def _commit(connection: FileConnection, group: list[_Write[object]]) -> list[_Write[object]]:
    """Write the group, without those that were given up in time. Returns what is on disk now."""
    connection.execute("BEGIN IMMEDIATE")
    written = []
    for write in group:
        if not write.done.cancelled():  # while another process held the lock, or during the writes before this one
            write.run(connection)
            written.append(write)
    try:
        connection.execute("COMMIT")
    except sqlite3.Error:
        forget_cached_log(connection.path)
        raise
    connection.require_file()  # after the commit, so that no write to a deleted file is confirmed
    return written


def _is_busy(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE in _BUSY_CODES


class Leaseholder:
    """One holder of leases, whose name is part of each lease's name.

    It keeps one randomly chosen byte of `lock_file` locked until it is closed or its process ends, however that ends.
    The kernel then releases the byte, and every other holder can see that nobody works on those leases any more. The
    lock belongs to the open file, so it also tells apart the holders within one process. It depends neither on process
    ids, which differ between namespaces, nor on clocks. A lock file that was deleted and created anew says nothing
    about the holders of the old one.

    Where the system has no such locks, no holder is ever known to be gone, and leases expire by time.
    """

    def __init__(self, lock_file: Path) -> None:
        self._lock_file = lock_file
        # Guards what follows, and keeps the descriptor open while it is used: its number may soon be another file's.
        self._using = threading.Lock()
        self._descriptor: int | None = None
        self._inode = 0
        self._name = ""
        self._closed = False

    def name_lease(self) -> str:
        """The name of a new lease. Raises `QueueFileFailed` where the lock file cannot be used."""
        with self._using:
            self._open()
            return f"{self._name}/{secrets.token_hex(8)}"

    def is_orphaned(self, lease: str) -> bool:
        """Whether the lease's holder is surely gone. Raises `QueueFileFailed` where the lock file cannot be used."""
        holder = lease.partition("/")[0]
        inode, _, offset = holder.partition("-")
        with self._using:
            descriptor = self._open()
            if holder == self._name or inode != str(self._inode) or not offset.isdecimal():
                return False
            return is_byte_free(descriptor, int(offset))

    def close(self) -> None:
        """Leave what is still leased in this name to others. Safe to call twice."""
        with self._using:
            self._closed = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _open(self) -> int:
        if self._closed:
            raise QueueFileFailed(f"{self._lock_file} is closed")
        if self._descriptor is None:
            try:
                self._lock_file.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise QueueFileFailed(f"{self._lock_file}: {error}") from error
            offset = secrets.randbelow(_OFFSETS)
            self._inode = os.fstat(self._descriptor).st_ino if lock_byte(self._descriptor, offset) else -1
            self._name = f"{self._inode}-{offset}"
        return self._descriptor


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
            open_connection=lambda: _open(path), lock_file=path.with_name(path.name + ".lock"), name=str(path)
        )
        self._holder = Leaseholder(path.with_name(path.name + ".leases"))
        self._reading = threading.Lock()
        self._reader: FileConnection | None = None

    def submit(
        self, message: Message, *, on_done: Callable[[BaseException | None], None], max_bytes: int | None = None
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

    def count_messages(self) -> Mapping[str, int]:
        """Messages in `ledger`, leased ones included, and in `dead`. Raises `QueueFileFailed`."""
        [(dead,)] = self.read("SELECT count(*) FROM dead_letter")
        return {"ledger": self.depth().messages, "dead": int(dead)}

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


class EmbeddedPublisher:
    """Appends messages to the file; see `AsyncPublisher`. Exchange and routing key are stored and route nothing.

    The queue's own thread writes and fsyncs; the loop is woken once for a whole group of messages.
    """

    def __init__(self, *, queue: EmbeddedQueue, loop: asyncio.AbstractEventLoop, max_bytes: int | None = None) -> None:
        """`max_bytes` bounds what the file holds; beyond it, publishing fails with `SpoolFull`."""
        self._queue = queue
        self._loop = loop
        self._max_bytes = max_bytes
        # Settles what was written, in order. The writing thread appends, the loop takes.
        self._settling: deque[Callable[[], None]] = deque()
        self._pending = 0

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        """Publish; see `AsyncPublisher.submit`. It is settled with None once it is fsynced."""
        timer: asyncio.TimerHandle | None = None

        def settle(error: BaseException | None) -> None:
            if timer is not None:
                timer.cancel()
            self._pending -= 1
            on_settled(error if error is None or isinstance(error, NotConfirmed) else NotConfirmed(str(error)))

        def settle_on_loop(error: BaseException | None) -> None:
            self._settling.append(partial(settle, error))
            if len(self._settling) == 1:  # else the loop was woken, and has not come to the one before
                self._loop.call_soon_threadsafe(self._settle_written)

        try:
            give_up = self._queue.submit(message, on_done=settle_on_loop, max_bytes=self._max_bytes)
        except QueueFileFailed as error:
            on_settled(error)
            return

        def time_out() -> None:
            timeout = give_up()
            if timeout is not None:
                settle(timeout)

        self._pending += 1
        timer = self._loop.call_at(deadline, time_out)

    def _settle_written(self) -> None:
        while self._settling:
            self._loop.call_soon(self._settling.popleft())

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
