"""An asyncio loop on a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine


class LoopThread:
    """Runs a loop on a daemon thread from `start` to `close`. Safe to use from many threads; start it after a fork."""

    def __init__(self, name: str) -> None:
        """`name`: the thread's."""
        self._name = name
        self._changing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> asyncio.AbstractEventLoop:
        """The loop. The first call starts it."""
        with self._changing:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=[self._loop], name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def close(self, last: Coroutine[object, object, None], *, timeout_seconds: float) -> None:
        """Run `last` on the loop, then end the thread, all within `timeout_seconds`. Safe to call twice."""
        with self._changing:
            loop, self._loop = self._loop, None
            thread = self._thread
        if loop is None or thread is None or thread is threading.current_thread():
            last.close()
            return
        closing = asyncio.run_coroutine_threadsafe(asyncio.wait_for(last, timeout_seconds), loop)
        closing.add_done_callback(lambda _done: loop.call_soon_threadsafe(loop.stop))
        thread.join(timeout_seconds)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()
