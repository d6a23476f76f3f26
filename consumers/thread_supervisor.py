"""A supervisor of loops that run side by side in one process, so that a bug in one does not stop the others."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import structlog

from consumers.faults import describe_fault, frames_of

_log = structlog.get_logger()


class ThreadSupervisor:
    """Runs each loop in a thread of its own; one that raises is started again after `restart_seconds`."""

    def __init__(self, loops: Mapping[str, Callable[[threading.Event], None]], *, restart_seconds: float) -> None:
        """`loops` by a name for logs; each runs until the event that it is given is set."""
        self._loops = loops
        self._restart_seconds = restart_seconds

    def run(self, stop: threading.Event) -> None:
        """Run them until `stop` is set and all have ended."""
        with ThreadPoolExecutor(len(self._loops) or 1, thread_name_prefix="loop") as threads:
            running = {threads.submit(loop, stop): name for name, loop in self._loops.items()}
            while running:
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(ended)
                    if self._failed(ended, name) and not stop.is_set():
                        running[threads.submit(self._run_again, name, stop)] = name

    def _run_again(self, name: str, stop: threading.Event) -> None:
        if not stop.wait(self._restart_seconds):
            self._loops[name](stop)

    def _failed(self, ended: "Future[None]", name: str) -> bool:
        """Whether a loop ended with an exception, which is a bug."""
        error = ended.exception()
        if error is None:
            return False
        _log.error(
            "loop_failed",
            loop=name,
            reason=describe_fault(error),
            frames=frames_of(error),
            restart_in_seconds=self._restart_seconds,
        )
        return True
