"""The stream that roles log to, onto files, pipes and disks that do not take what is written."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.runtime.log_stream import LineCounts, LogStream
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


class Pipe:
    """A pipe whose reading end is kept, and read only when asked."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def fill(self) -> int:
        """Write until nothing fits any more; says how many bytes."""
        os.set_blocking(self.writer, False)
        size = 0
        with suppress(BlockingIOError):
            while True:
                size += os.write(self.writer, b"x" * select.PIPE_BUF)
        os.set_blocking(self.writer, True)
        return size

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < size:
            data += os.read(self.reader, size - len(data))
        return data

    def read_line(self) -> str:
        data = b""
        while not data.endswith(b"\n"):
            data += os.read(self.reader, 1)
        return data.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for descriptor in (made.reader, made.writer):
        with suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def counts() -> LineCounts:
    return LineCounts()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


def contents(descriptor: int) -> str:
    return os.pread(descriptor, 1_000_000, 0).decode()


def lost(counts: LineCounts, reason: str) -> Callable[[], int]:
    return lambda: counts.lost()[reason]


def in_fork(action: Callable[[], None]) -> int:
    """Run `action` in a fork, which then ends without any further ado; its process id."""
    pid = os.fork()
    if not pid:
        try:
            action()
        finally:
            os._exit(0)
    return pid


def test_lines_come_out_in_order_and_in_utf8(file: int, counts: LineCounts) -> None:
    stream = LogStream(file, counts=counts)
    stream.write("一\n")
    stream.write("二\n")
    assert stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)
    assert contents(file) == "一\n二\n"


def test_it_goes_on_after_a_drain(file: int, counts: LineCounts) -> None:
    stream = LogStream(file, counts=counts)
    for line in ("first\n", "second\n"):
        stream.write(line)
        assert stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)
    assert contents(file) == "first\nsecond\n"


def test_what_utf8_lacks_is_escaped_and_counted(file: int, counts: LineCounts) -> None:
    stream = LogStream(file, counts=counts)
    stream.write(json.dumps({"said": "半\ud83d个"}, ensure_ascii=False) + "\n")
    assert stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)
    assert contents(file) == '{"said": "半\\ud83d个"}\n'
    assert json.loads(contents(file)) == {"said": "半\ud83d个"}
    assert counts.escaped() == 1
    assert not any(counts.lost().values())


@pytest.mark.parametrize("bounds", [{"max_lines": 10}, {"max_bytes": 100}])
def test_while_nobody_reads_it_buffers_up_to_its_limit_and_counts_the_rest(
    pipe: Pipe, counts: LineCounts, bounds: dict[str, Any]
) -> None:
    filled = pipe.fill()
    stream = LogStream(pipe.writer, counts=counts, **bounds)
    for number in range(25):
        stream.write(f"line {number:04}\n")  # ten bytes each
    assert counts.lost()["full"] == 15
    pipe.read(filled)
    assert stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)
    assert pipe.read(100).decode() == "".join(f"line {number:04}\n" for number in range(10))


def test_a_line_longer_than_the_buffer_is_lost_alone(file: int, counts: LineCounts) -> None:
    stream = LogStream(file, counts=counts, max_bytes=100)
    stream.write("x" * 101)
    stream.write("fits\n")
    assert stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)
    assert contents(file).startswith("fits\n")
    assert counts.lost()["full"] == 1


def test_a_full_disk_costs_lines_and_is_tried_again(full_disk: int, file: int, counts: LineCounts) -> None:
    gaps: list[int] = []
    stream = LogStream(full_disk, counts=counts, on_gap=gaps.append)
    stream.write("lost\n")
    stream.write("lost\n")
    eventually(lambda: counts.lost()["unwritable"] == 2)
    os.dup2(file, full_disk)  # there is room again
    stream.write("written\n")
    eventually(lambda: contents(file) == "written\n")
    eventually(lambda: gaps == [2])


def test_a_pipe_that_was_closed_costs_lines_and_nothing_else(pipe: Pipe, counts: LineCounts) -> None:
    os.close(pipe.reader)
    stream = LogStream(pipe.writer, counts=counts)
    stream.write("lost\n")
    eventually(lost(counts, "unwritable"))


def test_a_descriptor_that_was_closed_costs_lines_and_nothing_else(counts: LineCounts) -> None:
    reader, writer = os.pipe()
    stream = LogStream(writer, counts=counts)
    os.close(reader)
    os.close(writer)
    stream.write("lost\n")
    eventually(lost(counts, "unwritable"))


def test_a_line_that_an_error_cut_is_ended_before_the_next(tmp_path: Path) -> None:
    """In a process of its own, whose files must not grow beyond 16 bytes."""
    program = """
import os, resource, signal, sys
from service.runtime.log_stream import LineCounts, LogStream
from tests.support.waiting import eventually
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
counts = LineCounts()
stream = LogStream(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND), counts=counts)
stream.write("longer than sixteen bytes\\n")
eventually(lambda: counts.lost()["unwritable"])
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
stream.write("whole\\n")
assert stream.drain(timeout_seconds=10)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "log")], check=True)
    assert (tmp_path / "log").read_text() == "longer than sixt\nwhole\n"


def test_a_stream_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe, counts: LineCounts) -> None:
    filled = pipe.fill()
    os.set_blocking(pipe.writer, False)
    stream = LogStream(pipe.writer, counts=counts)
    stream.write("late\n")
    assert not stream.drain(timeout_seconds=0.1)
    pipe.read(filled)
    assert pipe.read_line() == "late\n"
    assert not any(counts.lost().values())


def test_draining_waits_no_longer_than_its_time_limit(pipe: Pipe, counts: LineCounts) -> None:
    pipe.fill()
    stream = LogStream(pipe.writer, counts=counts)
    stream.write("nobody reads it\n")
    assert not stream.drain(timeout_seconds=0.1)
    assert not stream.drain(timeout_seconds=0.1)


def test_a_process_ends_although_nobody_reads_its_log(pipe: Pipe) -> None:
    pipe.fill()
    program = """
import sys
from service.runtime.log_stream import LineCounts, LogStream
stream = LogStream(1, counts=LineCounts())
stream.write("nobody reads it\\n")
assert not stream.drain(timeout_seconds=0.1)
"""
    subprocess.run([sys.executable, "-c", program], stdout=pipe.writer, check=True, timeout=HANGS_AFTER_SECONDS)


def test_what_a_parent_has_in_hand_is_written_once_and_a_fork_writes_its_own(pipe: Pipe, counts: LineCounts) -> None:
    filled = pipe.fill()
    stream = LogStream(pipe.writer, counts=counts)
    stream.write("parent\n")

    def log_and_end() -> None:
        stream.write("child\n")
        stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)

    pid = in_fork(log_and_end)
    stream.write("parent again\n")
    pipe.read(filled)
    lines = [pipe.read_line() for _ in range(3)]
    os.waitpid(pid, 0)
    assert stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)
    assert sorted(lines) == ["child\n", "parent\n", "parent again\n"]
    os.set_blocking(pipe.reader, False)
    with pytest.raises(BlockingIOError):
        os.read(pipe.reader, 1)


def test_a_fork_logs_whatever_its_parents_threads_were_doing(file: int, counts: LineCounts) -> None:
    stream = LogStream(file, counts=counts)
    over = threading.Event()

    def log_all_the_time() -> None:
        while not over.is_set():
            stream.write("parent\n")
            counts.add("full")

    threads = [threading.Thread(target=log_all_the_time) for _ in range(3)]
    for thread in threads:
        thread.start()

    def log_and_end() -> None:
        counts.add("unwritable")
        stream.write(f"child {os.getpid()}\n")
        stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)

    pids = [in_fork(log_and_end) for _ in range(20)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 20
    over.set()
    for thread in threads:
        thread.join()
    assert stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)
    written = os.pread(file, os.fstat(file).st_size, 0).decode().splitlines()
    assert sorted(line for line in written if line != "parent") == sorted(f"child {pid}" for pid in pids)
    assert counts.lost()["unwritable"] == 20


def test_the_handler_of_a_signal_may_log_at_any_moment(file: int, counts: LineCounts) -> None:
    stream = LogStream(file, counts=counts)
    handled = 0

    def log_too(_number: int, _frame: object) -> None:
        nonlocal handled
        handled += 1
        stream.write("handler\n")

    before = signal.signal(signal.SIGALRM, log_too)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        written = 0
        while handled < 500:
            stream.write("main\n")
            written += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stream.drain(timeout_seconds=HANGS_AFTER_SECONDS)
    lines = os.pread(file, os.fstat(file).st_size, 0).decode().splitlines()
    assert len(lines) + counts.lost()["full"] == handled + written
    assert set(lines) == {"handler", "main"}


def test_processes_that_share_a_pipe_do_not_write_into_each_others_lines(pipe: Pipe, counts: LineCounts) -> None:
    stream = LogStream(pipe.writer, counts=counts)

    def log_much() -> None:
        for _ in range(200):
            stream.write(str(os.getpid())[-1] * 300 + "\n")
        stream.drain(timeout_seconds=60)

    pids = [in_fork(log_much) for _ in range(3)]
    lines = pipe.read(3 * 200 * 301).decode().splitlines()
    for pid in pids:
        os.waitpid(pid, 0)
    assert {len(set(line)) for line in lines} == {1}
