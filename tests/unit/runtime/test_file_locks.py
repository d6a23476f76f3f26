"""File locks between threads and between processes."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.runtime.file_locks import LockTimeout, hold_file_lock

_HOLDER = """
import sys, time
from pathlib import Path
from service.runtime.file_locks import hold_file_lock
with hold_file_lock(Path(sys.argv[1]), wait_seconds=60):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@contextmanager
def holding_process(file: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", _HOLDER, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_one_holds_the_lock_at_a_time(file: Path) -> None:
    inside: list[int] = []

    def enter(number: int) -> int:
        with hold_file_lock(file, wait_seconds=60):
            inside.append(number)
            time.sleep(0.001)
            found = len(inside)
            inside.remove(number)
            return found

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(enter, range(200))) == {1}


def test_a_greedy_holder_does_not_keep_others_out(file: Path) -> None:
    over, held = threading.Event(), list[int]()

    def lock_all_the_time() -> None:
        while not over.is_set():
            with hold_file_lock(file, wait_seconds=60):
                held.append(1)
                time.sleep(0.003)

    with ThreadPoolExecutor(1) as greedy:
        greedy.submit(lock_all_the_time)
        for _ in range(50):
            with hold_file_lock(file, wait_seconds=60):
                pass
        over.set()
    # One while we are not waiting yet, one while we are next, and more where this thread has to wait for the processor.
    # Without turns, a hundred for each of ours.
    assert len(held) < 50 * 20


def test_a_lock_that_another_process_keeps_is_a_timeout(file: Path) -> None:
    with (
        holding_process(file),
        pytest.raises(LockTimeout, match=r"lock: others have written for 0\.05 s"),
        hold_file_lock(file, wait_seconds=0.05),
    ):
        pass


def test_a_holder_that_dies_releases_the_lock(file: Path) -> None:
    with holding_process(file) as holder:
        holder.kill()
        with hold_file_lock(file, wait_seconds=60):
            pass


def test_a_waiter_that_gave_up_keeps_no_other_out(file: Path) -> None:
    with hold_file_lock(file, wait_seconds=0), pytest.raises(LockTimeout), hold_file_lock(file, wait_seconds=0):
        pass
    with hold_file_lock(file, wait_seconds=0):
        pass


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), hold_file_lock(tmp_path / "missing" / "lock", wait_seconds=1):
        pass
