"""Emptying a spool into the broker: one forwarder per file, however many processes fill it."""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import structlog

from service.messaging.contract import Publisher
from service.messaging.errors import BrokerUnavailable, NotConfirmed, QueueFileFailed
from service.messaging.sqlite.queue import Depth, EmbeddedQueue, Leased

_PAUSE_SECONDS = 1.0
_PUBLISH_SECONDS = 5.0
_WRITE_SECONDS = 5.0
#: How long a message that the broker refuses lets others go first.
_LEASE_SECONDS = 10.0
#: Publishes at once: enough to keep the broker busy, too few to crowd out new callbacks.
_CONCURRENCY = 16
_BATCH = 64

_log = structlog.get_logger(__name__)


class SpoolForwarder:
    """Publishes what lies in the spool, on a thread of its own, and deletes each message once it is confirmed.

    A lock beside the file keeps it to one forwarder; the kernel frees it when that process ends, however it ends.
    """

    def __init__(self, *, publisher: Publisher, spool: EmbeddedQueue, on_depth: Callable[[Depth], None]) -> None:
        self._publisher = publisher
        self._spool = spool
        self._on_depth = on_depth
        self._starting = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs. Not before a fork: threads do not survive one."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if (self._thread is None or not self._thread.is_alive()) and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="forward spool", daemon=True)
                self._thread.start()

    def close(self, *, timeout_seconds: float) -> None:
        """Finish the batch in hand and end the thread. Safe to call twice."""
        with self._starting:
            self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        lock_file = self._spool.path.with_name(self._spool.path.name + ".forwarder")
        while not self._closing.is_set():
            try:
                with _exclusive(lock_file) as ours:
                    if ours:
                        self._forward_until_closed()
            except NotConfirmed as error:  # of the spool's own file: nothing to do but to try again
                _log.warning("spool_unusable", reason=str(error))
            self._closing.wait(_PAUSE_SECONDS)

    def _forward_until_closed(self) -> None:
        # One message finds out whether the broker is back; the others follow if it is.
        batch = 1
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="forward spool") as threads:
            while not self._closing.is_set():
                forwarded = self._forward(batch, threads)
                batch = _BATCH if forwarded else 1
                if not forwarded:
                    self._closing.wait(_PAUSE_SECONDS)

    def _forward(self, max_messages: int, threads: ThreadPoolExecutor) -> int:
        """Forward up to `max_messages`; says how many the broker confirmed."""
        depth = self._spool.depth()
        self._on_depth(depth)
        if not depth.messages:
            return 0
        leased = self._spool.lease(
            max_messages=max_messages, lease_seconds=_LEASE_SECONDS, timeout_seconds=_WRITE_SECONDS
        )
        failures = list(threads.map(self._publish, leased))
        confirmed = [item for item, failure in zip(leased, failures, strict=True) if failure is None]
        unsent = [
            item for item, failure in zip(leased, failures, strict=True) if isinstance(failure, BrokerUnavailable)
        ]
        if confirmed:
            self._spool.remove(confirmed, timeout_seconds=_WRITE_SECONDS)
            _log.info("spool_forwarded", messages=len(confirmed), left=depth.messages - len(confirmed))
        if unsent:
            self._spool.release(unsent, timeout_seconds=_WRITE_SECONDS)
        return len(confirmed)

    def _publish(self, leased: Leased) -> NotConfirmed | None:
        try:
            self._publisher.publish(leased.message, timeout_seconds=_PUBLISH_SECONDS)
        except NotConfirmed as error:
            return error
        return None


@contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    """Whether this process now has the lock; it is given back at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise QueueFileFailed(f"{path}: {error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
