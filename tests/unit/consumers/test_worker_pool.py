"""The worker pool: jobs in order, results collected together, jobs taken back that have not begun."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from consumers.threads import WorkerPool
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


@contextmanager
def worker_pool(work: Callable[[int], int], *, threads: int) -> Iterator[WorkerPool[int, int]]:
    made = WorkerPool(work, threads=threads, name="test")
    try:
        yield made
    finally:
        made.close()


def test_one_thread_works_in_the_order_in_which_jobs_were_added() -> None:
    with worker_pool(lambda job: job * 10, threads=1) as working:
        working.add([1, 2])
        working.add([3])
        assert working.collect(wait_seconds=HANGS_AFTER_SECONDS) == [10, 20, 30]


def test_as_many_jobs_are_under_way_as_there_are_threads() -> None:
    together = threading.Barrier(3, timeout=HANGS_AFTER_SECONDS)

    def meet(job: int) -> int:
        together.wait()
        return job

    with worker_pool(meet, threads=3) as working:
        working.add([1, 2, 3])
        assert sorted(working.collect(wait_seconds=HANGS_AFTER_SECONDS)) == [1, 2, 3]


def test_results_are_collected_once_there_are_as_many_as_are_wanted() -> None:
    go_on = threading.Event()

    def wait_at_the_third(job: int) -> int:
        assert job < 3 or go_on.wait(HANGS_AFTER_SECONDS)
        return job

    with worker_pool(wait_at_the_third, threads=1) as working:
        working.add([1, 2, 3])
        assert working.collect(wanted=2, wait_seconds=HANGS_AFTER_SECONDS) == [1, 2]
        assert working.unfinished == 1
        go_on.set()
        assert working.collect(wanted=2, wait_seconds=HANGS_AFTER_SECONDS) == [3]
        assert working.unfinished == 0


def test_nothing_to_do_has_no_results_and_nobody_waits_for_them() -> None:
    with worker_pool(lambda job: job, threads=1) as working:
        assert working.collect(wait_seconds=HANGS_AFTER_SECONDS) == []


def test_jobs_that_no_thread_has_begun_can_be_taken_back_and_are_not_done() -> None:
    begun, go_on = threading.Event(), threading.Event()
    done = []

    def linger(job: int) -> int:
        begun.set()
        assert go_on.wait(HANGS_AFTER_SECONDS)
        done.append(job)
        return job

    with worker_pool(linger, threads=1) as working:
        working.add([1, 2, 3])
        assert begun.wait(HANGS_AFTER_SECONDS)
        assert working.waiting == 2
        assert working.take_back() == [2, 3]
        go_on.set()
        assert working.collect(wait_seconds=HANGS_AFTER_SECONDS) == [1]
    assert done == [1]


def test_a_bug_in_the_work_is_raised_to_who_collects() -> None:
    with worker_pool(lambda job: 1 // job, threads=1) as working:
        working.add([0, 1])
        with pytest.raises(ZeroDivisionError):
            working.collect(wait_seconds=HANGS_AFTER_SECONDS)


def test_closing_ends_the_threads_after_what_they_have_begun() -> None:
    go_on = threading.Event()

    def linger(job: int) -> int:
        assert go_on.wait(HANGS_AFTER_SECONDS)
        return job

    with worker_pool(linger, threads=2) as working:
        working.add([1, 2, 3])
        eventually(lambda: working.waiting == 1)
    go_on.set()
    eventually(lambda: not any(thread.name.startswith("test-") for thread in threading.enumerate()))
    assert sorted(working.collect(wait_seconds=0)) == [1, 2]
