"""The spool: callbacks that the broker does not confirm are kept on disk, and forwarded when it is back."""

import asyncio
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from service.domain.depths import REPORT_EVERY_SECONDS, DepthReport
from service.messaging.codec import encode_depth
from service.messaging.errors import BrokerUnavailable, NotConfirmed, QueueFileFailed
from service.messaging.interface import AsyncPublisher, Message, OnSettled, Publisher
from service.messaging.sqlite.queue import Depth, EmbeddedPublisher, EmbeddedQueue, Leased
from service.runtime.logs import Logger

#: The part of a publish's time limit that is reserved for the spool.
_RESERVED_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_PUBLISH_SECONDS = 5.0
_WRITE_SECONDS = 5.0
#: How long a message that the broker refuses lets others go first.
_LEASE_SECONDS = 10.0
_REPORT_SECONDS = 2.0
#: Publishes at once: enough to keep the broker busy, too few to crowd out new callbacks.
_CONCURRENCY = 16
_BATCH = 64

_log = Logger(__name__)


class SpoolingPublisher:
    """Publishes to a broker and falls back to a file; see `AsyncPublisher`.

    What `inner` does not confirm, for any reason, is fsynced into `spool`, and forwarded when the broker is back. So a
    message may reach the broker twice, and messages may arrive in any order. `max_bytes` bounds the file's messages;
    beyond it, publishing fails with `SpoolFull`.

    Any number of processes may share one spool file: one of them forwards, through `forward_to`, and another takes over
    when that one ends. `on_depth` is called about once a second, in the process that forwards, on a thread of its own.
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
        self._forwarder = _Forwarder(publisher=forward_to, spool=spool, on_depth=on_depth)
        # Messages that an earlier process left do not wait for the next one.
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

        reserved_seconds = min(_RESERVED_SECONDS, remaining_seconds / 2)
        self._inner.submit(message, deadline=deadline - reserved_seconds, on_settled=fall_back)

    async def close(self, *, timeout_seconds: float) -> None:
        """Stop forwarding (what is left stays for the next process), then close both publishers and the spool."""
        deadline = time.monotonic() + timeout_seconds
        await self._inner.close(timeout_seconds=timeout_seconds)
        await asyncio.to_thread(self._forwarder.close, timeout_seconds=max(deadline - time.monotonic(), 0))
        await asyncio.to_thread(self._forward_to.close, timeout_seconds=max(deadline - time.monotonic(), 0.1))
        await self._spool.close(timeout_seconds=max(deadline - time.monotonic(), 0.1))


class _Forwarder:
    """Publishes what is in the spool, on a thread of its own, and deletes each message once it is confirmed.

    A lock beside the file allows one forwarder only; the kernel releases it when that process ends, however it ends.
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
        """Finish the current batch and end the thread. Safe to call twice."""
        with self._starting:
            self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with _try_lock(_lock_file(self._spool)) as locked:
                    if locked:
                        self._forward_until_closed()
            except NotConfirmed as error:  # of the spool's own file: all that can be done is to try again
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
        """Forward up to `max_messages`; returns how many the broker confirmed."""
        depth = self._spool.depth()
        self._on_depth(depth)
        if not depth.messages:
            return 0
        leased = self._spool.lease(
            max_messages=max_messages, lease_seconds=_LEASE_SECONDS, timeout_seconds=_WRITE_SECONDS
        )
        published = list(zip(leased, threads.map(self._publish, leased), strict=True))
        confirmed = [item for item, failure in published if failure is None]
        unsent = [item for item, failure in published if isinstance(failure, BrokerUnavailable)]
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


class SpoolReporter:
    """Reports a spool's depth to the ledger, through the queue. For the process that forwards the spool.

    Nothing is reported while the broker is away. The ledger shows since when it has heard nothing.
    """

    def __init__(
        self,
        *,
        publisher: Publisher,
        spool: EmbeddedQueue,
        clock: Callable[[], datetime],
        interval_seconds: float = REPORT_EVERY_SECONDS,
    ) -> None:
        """`publisher` leads to the broker and not to the spool. `clock` returns the present time, aware."""
        self._publisher = publisher
        self._spool = spool
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._due_at = time.monotonic()

    def report(self, depth: Depth) -> None:
        """Publish the depth if the interval has passed. It takes two seconds at most, and a failure is only logged."""
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + self._interval_seconds
        try:
            report = DepthReport(
                reporter=f"spool-{_read_id(_lock_file(self._spool))}",
                name=f"spool {socket.gethostname()}:{self._spool.path.absolute()}",
                messages=depth.messages,
                oldest_at=depth.oldest_at,
                reported_at=self._clock(),
            )
            self._publisher.publish(encode_depth(report), timeout_seconds=_REPORT_SECONDS)
        except (NotConfirmed, OSError) as error:
            _log.info("spool_depth_not_reported", messages=depth.messages, reason=f"{type(error).__name__}: {error}")


def _lock_file(spool: EmbeddedQueue) -> Path:
    return spool.path.with_name(spool.path.name + ".forwarder")


def _read_id(lock_file: Path) -> str:
    """The id of a spool, which is in its forwarder's lock file, and is written there first. Only for the lock's holder.

    The ledger knows a spool by it, even after another container got its volume. Raises OSError.
    """
    if not (spool_id := lock_file.read_text(encoding="ascii", errors="backslashreplace")):
        spool_id = uuid.uuid4().hex
        lock_file.write_text(spool_id, encoding="ascii")
    return spool_id


@contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Whether this process now holds the lock, which is released at the end."""
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
