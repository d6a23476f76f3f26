"""A fixed number of threads that work off one queue, and whose results are collected many at a time."""

import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Senders(Generic[Job, Result]):
    """Does `work` with each job, in the order in which they were added, by `threads` at once.

    `work` must not raise: what it raises is a bug, and is raised by `collect`.
    """

    def __init__(self, work: Callable[[Job], Result], *, threads: int, name: str) -> None:
        """Starts the threads; `close` ends them. They do not keep the process from ending."""
        self._work = work
        self._waiting: deque[Job] = deque()
        self._under_way = 0
        self._results: list[Result] = []
        self._bug: BaseException | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._added = threading.Condition(self._lock)
        self._finished = threading.Condition(self._lock)
        # How many results whoever collects waits for.
        self._wanted = 1
        for number in range(threads):
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun."""
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        """Jobs that wait, and those that are under way."""
        with self._lock:
            return len(self._waiting) + self._under_way

    def add(self, jobs: Sequence[Job]) -> None:
        """Put jobs at the end of the queue."""
        with self._lock:
            self._waiting.extend(jobs)
            self._added.notify(len(jobs))

    def take_back(self) -> Sequence[Job]:
        """Every job that no thread has begun; none of them will be."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        return waiting

    def collect(self, *, wanted: int = sys.maxsize, wait_seconds: float) -> Sequence[Result]:
        """The results that nobody has collected yet.

        Waits until there are as many as are `wanted`, all jobs are finished, or `wait_seconds` have passed.
        """
        with self._lock:
            self._wanted = wanted
            self._finished.wait_for(lambda: len(self._results) >= wanted or self._is_idle or self._bug, wait_seconds)
            results, self._results = self._results, []
            if self._bug is not None:
                raise self._bug
        return results

    def close(self) -> None:
        """End the threads, each after the job that it has begun."""
        with self._lock:
            self._closed = True
            self._added.notify_all()

    @property
    def _is_idle(self) -> bool:
        return not self._waiting and not self._under_way

    def _run(self) -> None:
        while True:
            with self._lock:
                self._added.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._waiting.popleft()
                self._under_way += 1
            results: Sequence[Result] = ()
            bug: BaseException | None = None
            try:
                results = [self._work(job)]
            except BaseException as error:  # noqa: BLE001 -- raised by `collect`
                bug = error
            with self._lock:
                self._under_way -= 1
                self._results += results
                self._bug = self._bug or bug
                if len(self._results) >= self._wanted or self._is_idle or bug is not None:
                    self._finished.notify()
