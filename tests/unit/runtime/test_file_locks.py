"""Turns at a file, between threads and between processes."""

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
with hold_file_lock(Path(sys.argv[1]), wait_seconds=10):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "turns"


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


def test_one_has_a_turn_at_a_time(file: Path) -> None:
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


def test_who_wants_every_turn_leaves_others_theirs(file: Path) -> None:
    over, turns = threading.Event(), list[int]()

    def want_every_turn() -> None:
        while not over.is_set():
            with hold_file_lock(file, wait_seconds=60):
                turns.append(1)
                time.sleep(0.003)

    with ThreadPoolExecutor(1) as greedy:
        greedy.submit(want_every_turn)
        for _ in range(50):
            with hold_file_lock(file, wait_seconds=60):
                pass
        over.set()
    # One while we were not there yet, one while we were next.
    assert len(turns) < 50 * 4


def test_a_turn_that_another_process_keeps_does_not_come(file: Path) -> None:
    with (
        holding_process(file),
        pytest.raises(LockTimeout, match=r"turns: others have written for 0\.05 s"),
        hold_file_lock(file, wait_seconds=0.05),
    ):
        pass


def test_whoever_dies_leaves_its_turn_to_others(file: Path) -> None:
    with holding_process(file) as holder:
        holder.kill()
        with hold_file_lock(file, wait_seconds=60):
            pass


def test_who_gave_up_keeps_nobody_out(file: Path) -> None:
    with hold_file_lock(file, wait_seconds=0), pytest.raises(LockTimeout), hold_file_lock(file, wait_seconds=0):
        pass
    with hold_file_lock(file, wait_seconds=0):
        pass


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), hold_file_lock(tmp_path / "missing" / "turns", wait_seconds=1):
        pass
