"""The threads of a role: supervised loops, pools that work off leased jobs, and work that is repeated at intervals."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from consumers.faults import describe_fault, frames_of
from consumers.outages import Retrier, Stopped
from service.ledger.errors import LedgerUnavailable
from service.messaging.errors import MessagingError
from service.runtime.logs import Logger

Job = TypeVar("Job")
Result = TypeVar("Result")

#: At shutdown, jobs under way get this much on top of their own time limit.
GRACE_SECONDS = 2.0
_RESTART_SECONDS = 5.0

_log = Logger(__name__)


def supervise(loops: Mapping[str, Callable[[threading.Event], None]], stop: threading.Event) -> None:
    """Run each loop in a thread of its own until `stop` is set and all have ended. `loops` by a name for logs.

    A loop that raises has a bug. It does not stop the others, and is started again after 5 s.
    """

    def run_again(name: str) -> None:
        if not stop.wait(_RESTART_SECONDS):
            loops[name](stop)

    with ThreadPoolExecutor(len(loops) or 1, thread_name_prefix="loop") as threads:
        running = {threads.submit(loop, stop): name for name, loop in loops.items()}
        while running:
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                name, error = running.pop(ended), ended.exception()
                if error is None:
                    continue
                _log.error(
                    "loop_failed",
                    loop=name,
                    reason=describe_fault(error),
                    frames=frames_of(error),
                    restart_in_seconds=_RESTART_SECONDS,
                )
                if not stop.is_set():
                    running[threads.submit(run_again, name)] = name


class WorkerPool(Generic[Job, Result]):
    """Does `work` with each job, in the order in which they were added, in `threads` at once.

    Results are collected many at a time. `work` must not raise: an exception is a bug, and `collect` raises it.
    """

    def __init__(self, work: Callable[[Job], Result], *, threads: int, name: str) -> None:
        """Starts the threads; `close` ends them. They do not keep the process from ending."""
        self.name = name
        self._work = work
        self._waiting: deque[Job] = deque()
        self._under_way = 0
        self._results: list[Result] = []
        self._bug: BaseException | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._added = threading.Condition(self._lock)
        self._finished = threading.Condition(self._lock)
        # The number of results that `collect` waits for.
        self._wanted = 1
        for number in range(threads):
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """The number of jobs that no thread has begun."""
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        """The number of jobs that wait or are under way."""
        with self._lock:
            return len(self._waiting) + self._under_way

    def add(self, jobs: Sequence[Job]) -> None:
        """Append jobs to the queue."""
        with self._lock:
            self._waiting.extend(jobs)
            self._added.notify(len(jobs))

    def take_back(self) -> Sequence[Job]:
        """Remove and return every job that no thread has begun."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        return waiting

    def collect(self, *, wanted: int = sys.maxsize, wait_seconds: float) -> Sequence[Result]:
        """The results that were not collected yet.

        Waits until there are `wanted` results, all jobs are finished, or `wait_seconds` have passed.
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


@dataclass(frozen=True, slots=True)
class Leased(Generic[Job]):
    """A job, and the time at which its lease ends by our own clock."""

    job: Job
    ends_at: float


def lease_jobs(
    lease: Callable[..., Sequence[Job]], *, lease_seconds: float, monotonic: Callable[[], float] = time.monotonic
) -> Sequence[Leased[Job]]:
    """The jobs that `lease(lease_seconds=...)` leases, each with the end of its lease."""
    # Read before the database reads its clock: by ours the lease ends no later than by the database's.
    ends_at = monotonic() + lease_seconds
    return [Leased(job, ends_at) for job in lease(lease_seconds=lease_seconds)]


def run_leased(
    stop: threading.Event,
    pool: WorkerPool[Job, Result],
    *,
    turn: Callable[[WorkerPool[Job, Result], Retrier], None],
    finish: Callable[[WorkerPool[Job, Result], Retrier], None],
) -> None:
    """Repeat `turn`, which leases jobs and settles results, until `stop` is set; then `finish`, and close the pool.

    May be called again, with another pool, after it has raised: the leases of what was under way run out.
    """
    retrier = Retrier(stop=stop)
    try:
        with suppress(Stopped):
            while not stop.is_set():
                turn(pool, retrier)
            finish(pool, retrier)
    finally:
        pool.close()
        if pool.unfinished:
            _log.warning("work_left_unfinished", worker=pool.name, count=pool.unfinished)


@contextmanager
def repeated(
    work: Callable[[threading.Event], None],
    *,
    name: str,
    every_seconds: float,
    failure: str,
    once_more_seconds: float = 0.0,
) -> Iterator[None]:
    """Repeat `work` while the `with` lasts, on a thread called `name`, with a pause after each time.

    `work` gets an event that is set at the end; what is under way then is not waited for. It may raise: the log event
    `failure` says why, and the next round comes after the pause, whatever the error. Where `once_more_seconds` is not
    0, `work` is done once more at the end, and that is waited for, for so long at most.
    """
    over = threading.Event()

    def work_once() -> None:
        try:
            work(over)
        except (LedgerUnavailable, MessagingError) as error:
            _log.warning(failure, error=type(error).__name__, reason=str(error))
        except Exception as error:  # noqa: BLE001 - a bug must not end the work for good
            _log.error(failure, reason=describe_fault(error), frames=frames_of(error))

    def run() -> None:
        work_once()
        while not over.wait(every_seconds):
            work_once()
        if once_more_seconds:
            work_once()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(once_more_seconds)
