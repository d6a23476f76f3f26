"""A crew: loops that run side by side in one process, none of which may suffer from another's fault."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import structlog

from consumers.faults import describe_fault, frames_of

_log = structlog.get_logger()


class ThreadSupervisor:
    """Runs each member in a thread of its own; one that breaks is started again after `restart_seconds`."""

    def __init__(self, members: Mapping[str, Callable[[threading.Event], None]], *, restart_seconds: float) -> None:
        """`members` by a name for logs; each runs until the event that it is given is set."""
        self._members = members
        self._restart_seconds = restart_seconds

    def run(self, stop: threading.Event) -> None:
        """Run them until `stop` is set and each has ended."""
        with ThreadPoolExecutor(len(self._members) or 1, thread_name_prefix="crew") as threads:
            running = {threads.submit(member, stop): name for name, member in self._members.items()}
            while running:
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(ended)
                    if self._broke(ended, name) and not stop.is_set():
                        running[threads.submit(self._run_again, name, stop)] = name

    def _run_again(self, name: str, stop: threading.Event) -> None:
        if not stop.wait(self._restart_seconds):
            self._members[name](stop)

    def _broke(self, ended: "Future[None]", name: str) -> bool:
        """Whether a member ended by a bug of ours."""
        error = ended.exception()
        if error is None:
            return False
        _log.error(
            "loop_broke",
            loop=name,
            reason=describe_fault(error),
            frames=frames_of(error),
            again_in_seconds=self._restart_seconds,
        )
        return True
