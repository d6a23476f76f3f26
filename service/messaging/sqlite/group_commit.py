"""Durable writes to one SQLite file by many threads: writes that wait at the same time share one commit and fsync."""

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from service.messaging.errors import ConfirmTimeout, MessagingError, QueueFileFailed
from service.runtime.file_locks import LockTimeout, hold_file_lock

#: The most writes in one transaction, so that no transaction gets long.
_MAX_GROUP = 500
#: Between two tries for a locked file. SQLite waits by itself for most locks, but not for all.
_RETRY_SECONDS = 0.01
#: How long a group waits for the lock before the writes that were abandoned are taken out of it.
_LOCK_WAIT_SECONDS = 0.5

_BUSY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRIMARY_CODE = 0xFF

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


class _Write(Generic[Result]):
    """One write, until its caller gets the result or gives up."""

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], Result],
        *,
        undo: Callable[[sqlite3.Connection, Result], object] | None = None,
        on_done: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._undo = undo
        self._on_done = on_done
        # The caller and the writing thread agree, once, on whether the write is abandoned or done.
        self._deciding = threading.Lock()
        self._done = False
        self._result: list[Result] = []
        self.error: MessagingError | None = None
        self.abandoned = False

    def abandon(self) -> bool:
        """Stop waiting for it; says whether that was before it was done."""
        with self._deciding:
            self.abandoned = not self._done
        return self.abandoned

    def result(self) -> Result:
        if self.error is not None:
            raise self.error
        return self._result[0]

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the work inside the open transaction. It may refuse (a `MessagingError`) before it writes."""
        self.error = None
        try:
            self._result = [self._work(connection)]
        except MessagingError as error:
            self.error = error

    def fail(self, error: MessagingError) -> None:
        self.error = error
        self._settle()

    def commit(self) -> "_Write[object] | None":
        """Notify the caller. Returns the write that undoes this one where it was abandoned too late."""
        self._settle()
        undo, result = self._undo, self._result
        if not self.abandoned or self.error is not None or undo is None:
            return None
        return _Write(lambda connection: undo(connection, result[0]))

    def _settle(self) -> None:
        with self._deciding:
            self._done = True
        if not self.abandoned:
            self._on_done()


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
        done = threading.Event()
        write = _Write(work, undo=undo, on_done=done.set)
        self._add(write)
        if not done.wait(timeout_seconds) and write.abandon():
            raise self._timeout()
        return write.result()

    def submit(
        self, work: Callable[[sqlite3.Connection], object], *, on_done: Callable[[MessagingError | None], None]
    ) -> Callable[[], ConfirmTimeout | None]:
        """Begin to run `work` in a transaction; `on_done` is called on the writing thread once that is on disk.

        `on_done` gets None, or why the write failed. The returned function gives the write up, from any thread: it
        returns the reason, and `on_done` is not called, or None where the write was done already. Raises
        `QueueFileFailed`.
        """
        write: _Write[object] = _Write(work, on_done=lambda: on_done(write.error))
        self._add(write)
        return lambda: self._timeout() if write.abandon() else None

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
                wanted = [write for write in group if not write.abandoned]
                if wanted or (self._closed and not self._waiting):
                    return wanted

    def _put_back(self, group: list[_Write[object]]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(group))


def _commit(connection: FileConnection, group: list[_Write[object]]) -> list[_Write[object]]:
    """Write the group, without those that were abandoned in time. Returns what is on disk now."""
    connection.execute("BEGIN IMMEDIATE")
    written = []
    for write in group:
        if not write.abandoned:  # while another process held the lock, or during the writes before this one
            write.run(connection)
            written.append(write)
    connection.execute("COMMIT")
    connection.require_file()  # after the commit, so that no write to a deleted file is confirmed
    return written


def _is_busy(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE in _BUSY_CODES
