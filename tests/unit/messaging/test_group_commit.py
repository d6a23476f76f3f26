"""Writes whose thread does not wait for them any more."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.messaging.errors import ConfirmTimeout
from service.messaging.sqlite.queue import FileConnection, GroupCommitWriter
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "words.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE word (word TEXT)")
    connection.close()
    return path


@pytest.fixture
def writer(path: Path) -> Iterator[GroupCommitWriter]:
    def open_connection() -> FileConnection:
        connection = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False, factory=FileConnection
        )
        connection.remember_file(path)
        return connection

    writer = GroupCommitWriter(open_connection=open_connection, lock_file=path.with_name("words.lock"), name="words")
    yield writer
    writer.close(timeout_seconds=30)


def _add(word: str) -> Callable[[sqlite3.Connection], str]:
    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO word VALUES (?)", (word,))
        return word

    return work


def _take_back(connection: sqlite3.Connection, word: str) -> None:
    connection.execute("DELETE FROM word WHERE word = ?", (word,))


def _words(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [word for (word,) in connection.execute("SELECT word FROM word")]
    finally:
        connection.close()


def test_a_write_abandoned_while_the_file_is_locked_is_not_written(writer: GroupCommitWriter, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(ConfirmTimeout):
            writer.write(_add("late"), timeout_seconds=0.2)
    finally:
        other.close()

    writer.write(_add("after"), timeout_seconds=30)
    assert _words(path) == ["after"]


def _write_slowly(
    writer: GroupCommitWriter,
    work: Callable[[sqlite3.Connection], str],
    undo: Callable[[sqlite3.Connection, str], None] | None = None,
) -> None:
    """Write something that reaches the disk only after its caller has been told that the time is up."""
    told = threading.Event()

    def slow(connection: sqlite3.Connection) -> str:
        result = work(connection)
        assert told.wait(HANGS_AFTER_SECONDS)
        return result

    with pytest.raises(ConfirmTimeout):
        writer.write(slow, timeout_seconds=0.2, undo=undo)
    told.set()


def test_what_reached_the_disk_too_late_for_its_caller_is_undone_where_that_is_wanted(
    writer: GroupCommitWriter, path: Path
) -> None:
    writer.write(_add("first"), timeout_seconds=30)
    _write_slowly(writer, _add("late"), undo=_take_back)

    writer.write(_add("after"), timeout_seconds=30)
    eventually(lambda: _words(path) == ["first", "after"])


def test_a_late_write_without_an_undo_stays(writer: GroupCommitWriter, path: Path) -> None:
    _write_slowly(writer, _add("late"))

    eventually(lambda: _words(path) == ["late"])


def test_a_write_whose_caller_waits_is_not_undone(writer: GroupCommitWriter, path: Path) -> None:
    assert writer.write(_add("kept"), timeout_seconds=30, undo=_take_back) == "kept"

    writer.close(timeout_seconds=30)
    assert _words(path) == ["kept"]


def test_closing_waits_for_what_is_to_be_undone(writer: GroupCommitWriter, path: Path) -> None:
    _write_slowly(writer, _add("late"), undo=_take_back)

    writer.close(timeout_seconds=30)
    assert _words(path) == []


def test_at_the_edge_of_the_time_limit_the_caller_has_either_the_result_or_nothing_on_disk(
    writer: GroupCommitWriter, path: Path
) -> None:
    def write(number: int) -> str | None:
        try:
            # Around the time that a commit takes.
            return writer.write(_add(str(number)), timeout_seconds=number % 50 / 5000, undo=_take_back)
        except ConfirmTimeout:
            return None

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(write, range(1000)))

    writer.close(timeout_seconds=30)
    assert {word for word in answers if word is not None} == set(_words(path))
