"""A publisher for callers that wait. It runs an `AsyncPublisher` on a loop and thread of its own."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

from service.messaging.errors import BrokerUnavailable, ConfirmTimeout, NotConfirmed
from service.messaging.interface import AsyncPublisher, Message, OnSettled
from service.messaging.loop_thread import LoopThread
from service.runtime.logs import Logger

_log = Logger(__name__)

#: How much later than the loop a caller gives up. It matters only if the loop is stuck.
_GRACE_SECONDS = 0.1


class _CallQueue:
    """Runs calls from other threads on a loop, in order. Calls that come while the loop wakes up share the wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._scheduling = threading.Lock()
        self._scheduled = False

    def call(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the loop, soon. From any thread. Raises RuntimeError where the loop is closed."""
        self._calls.append(callback)
        with self._scheduling:
            schedule, self._scheduled = not self._scheduled, True
        if schedule:
            self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        with self._scheduling:
            self._scheduled = False
        for _ in range(len(self._calls)):
            self._calls.popleft()()


class BlockingPublisher:
    """Makes a `Publisher` of an `AsyncPublisher`. Its thread starts with the first message, so after a fork."""

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], AsyncPublisher], *, name: str) -> None:
        """`make` is called once, on the loop of the publisher. `name`: the thread's."""
        self._make = make
        self._thread = LoopThread(name)
        self._opening = threading.Lock()
        self._closed = False
        self._calls: _CallQueue | None = None
        # Used on the loop only.
        self._made: AsyncPublisher | None = None

    def publish(self, message: Message, *, timeout_seconds: float) -> None:
        """Return once the message is safely queued; see `Publisher.publish`."""
        settled = threading.Event()
        outcome: list[NotConfirmed | None] = []

        def settle(error: NotConfirmed | None) -> None:
            outcome.append(error)
            settled.set()

        self.submit(message, deadline=time.monotonic() + timeout_seconds, on_settled=settle)
        if not settled.wait(timeout_seconds + _GRACE_SECONDS):
            raise ConfirmTimeout(f"no confirm within {timeout_seconds} s; the message may or may not be queued")
        if outcome[0] is not None:
            raise outcome[0]

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        """Begin to publish, from any thread; `on_settled` is called on the publisher's thread. See `AsyncPublisher`."""
        calls = self._open()
        if calls is None:
            on_settled(BrokerUnavailable("the publisher is closed"))
        else:
            calls.call(lambda: self._submit(message, deadline, on_settled))

    def close(self, *, timeout_seconds: float) -> None:
        """Refuse new messages, wait for pending ones, then end the thread. Safe to call twice."""
        with self._opening:
            self._closed = True
        self._thread.close(self._close(timeout_seconds), timeout_seconds=timeout_seconds + _GRACE_SECONDS)

    def _open(self) -> _CallQueue | None:
        with self._opening:
            if self._closed:
                return None
            if self._calls is None:
                self._calls = _CallQueue(self._thread.start())
            return self._calls

    def _submit(self, message: Message, deadline: float, on_settled: OnSettled) -> None:
        try:
            if self._made is None:
                self._made = self._make(asyncio.get_running_loop())
            self._made.submit(message, deadline=deadline, on_settled=on_settled)
        except Exception as error:  # noqa: BLE001 - the caller that waits must learn of it
            _log.exception("publish_failed")
            on_settled(NotConfirmed(f"internal error: {error!r}"))

    async def _close(self, timeout_seconds: float) -> None:
        if self._made is not None:
            await self._made.close(timeout_seconds=timeout_seconds)
