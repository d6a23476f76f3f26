"""Durable writes to one SQLite file by many threads: what waits at the same time shares one commit and one fsync."""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from service.messaging.errors import ConfirmTimeout, MessagingError, QueueFileFailed
from service.messaging.file_connection import FileConnection

#: Writes in one transaction at most, so that no transaction gets long.
_LARGEST_GROUP = 500
#: Between two tries for a locked file. SQLite waits by itself for most locks, but not for all.
_PAUSE_SECONDS = 0.01

_BUSY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRIMARY_CODE = 0xFF

Result = TypeVar("Result")


class _Write(Generic[Result]):
    """One write that a thread waits for."""

    def __init__(self, work: Callable[[sqlite3.Connection], Result]) -> None:
        self._work = work
        self._done = threading.Event()
        self._result: list[Result] = []
        self._error: MessagingError | None = None
        self.abandoned = False

    def wait(self, timeout_seconds: float) -> bool:
        return self._done.wait(timeout_seconds)

    def result(self) -> Result:
        if self._error is not None:
            raise self._error
        return self._result[0]

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the work inside of the open transaction. It may refuse (a `MessagingError`) before it writes."""
        self._error = None
        try:
            self._result = [self._work(connection)]
        except MessagingError as error:
            self._error = error

    def fail(self, error: MessagingError) -> None:
        self._error = error
        self._done.set()

    def commit(self) -> None:
        self._done.set()


class GroupCommitWriter:
    """One writing thread and connection for a process, started and opened on first use, hence after fork.

    While another process holds the file's lock, the writes wait their turn, each within its own time limit. Any other
    trouble with the file fails those that met it, and the next write opens the file anew.
    """

    def __init__(self, *, open_connection: Callable[[], FileConnection], name: str) -> None:
        self._open_connection = open_connection
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[_Write[object]] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._locked = False

    def write(self, work: Callable[[sqlite3.Connection], Result], *, timeout_seconds: float) -> Result:
        """Run `work` in a transaction and return its result once that is on disk.

        `work` must raise no `MessagingError` after it has written. Raises `ConfirmTimeout` when the time is up (it
        may be written all the same), `QueueFileFailed` where the file cannot be used, and what `work` raises.
        """
        write = _Write(work)
        with self._changed:
            if self._closed:
                raise QueueFileFailed(f"{self._name} is closed")
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"write {self._name}", daemon=True)
                self._thread.start()
            self._waiting.append(write)  # type: ignore[arg-type]  # a deque of writes of every result
            self._changed.notify()
        if not write.wait(timeout_seconds):
            write.abandoned = True
            why = "another process holds its lock" if self._locked else "the disk is slow"
            raise ConfirmTimeout(f"{self._name} was not written within {timeout_seconds} s: {why}")
        return write.result()

    def close(self, *, timeout_seconds: float) -> None:
        """Finish the waiting writes, then close the file. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        connection: FileConnection | None = None
        while group := self._next_group():
            try:
                if connection is None:
                    connection = self._open_connection()
                _commit(connection, group)
                self._locked = False
            except (sqlite3.Error, OSError) as error:
                if connection is not None:
                    connection.close()  # undoes the open transaction, whatever state that is in
                    connection = None
                self._locked = _is_busy(error)
                if self._locked:
                    time.sleep(_PAUSE_SECONDS)
                    self._put_back(group)
                else:
                    failure = QueueFileFailed(f"{self._name}: {error}")
                    failure.__cause__ = error
                    for write in group:
                        write.fail(failure)
            except MessagingError as error:  # a file of another release
                for write in group:
                    write.fail(error)
        if connection is not None:
            connection.close()

    def _next_group(self) -> list[_Write[object]]:
        """Wait for writes; empty when there will be none any more."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _LARGEST_GROUP))]
                wanted = [write for write in group if not write.abandoned]
                if wanted or (self._closed and not self._waiting):
                    return wanted

    def _put_back(self, group: list[_Write[object]]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(group))


def _commit(connection: FileConnection, group: list[_Write[object]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for write in group:
        write.run(connection)
    connection.execute("COMMIT")
    connection.require_file()  # after the commit, so that nothing is called safe that went into a deleted file
    for write in group:
        write.commit()


def _is_busy(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE in _BUSY_CODES
