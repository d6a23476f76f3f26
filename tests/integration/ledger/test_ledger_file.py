"""Many processes on one SQLite ledger: none may remove the file, or its content, under another."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from service.ledger.database import make_engine, read, write
from service.ledger.errors import LedgerUnavailable, SchemaOutdated
from service.ledger.schema import migrate
from service.runtime.file_locks import hold_file_lock
from tests.support.waiting import HANGS_AFTER_SECONDS

_COMMAND = """
import sys
from sqlalchemy import text
from service.ledger.database import make_engine
from service.ledger.database import write

engine = make_engine(sys.argv[1])
write(engine, lambda connection: connection.execute(text("INSERT INTO said VALUES (:words)"), {"words": sys.argv[2]}))
engine.dispose()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    engine = make_engine(f"sqlite:///{file}", pool_size=4)
    write(engine, lambda connection: connection.execute(text("CREATE TABLE said (words TEXT)")))
    yield engine
    engine.dispose()


def say_in_another_process(file: Path, words: str) -> None:
    subprocess.run(
        [sys.executable, "-c", _COMMAND, f"sqlite:///{file}", words], check=True, timeout=HANGS_AFTER_SECONDS
    )


def said(engine: Engine) -> list[str]:
    return read(engine, lambda connection: list(connection.execute(text("SELECT words FROM said")).scalars()))


def test_who_writes_all_the_time_keeps_nobody_out(engine: Engine) -> None:
    over, written = threading.Event(), list[int]()

    def write_slowly(connection: Connection) -> None:
        connection.execute(text("INSERT INTO said VALUES ('much')"))
        time.sleep(0.005)

    def write_all_the_time() -> None:
        while not over.is_set():
            write(engine, write_slowly)
            written.append(1)

    with ThreadPoolExecutor(1) as greedy:
        greedy.submit(write_all_the_time)
        for _ in range(20):
            write(engine, lambda connection: connection.execute(text("INSERT INTO said VALUES ('little')")))
        over.set()
    # SQLite's own lock would let hundreds pass for each of ours. More than one passes where this thread has to wait for
    # the processor.
    assert len(written) < 20 * 50


def test_a_turn_that_a_frozen_process_keeps_is_given_up(engine: Engine, file: Path) -> None:
    with (
        hold_file_lock(file.with_name("ledger.sqlite3.lock"), wait_seconds=10),
        pytest.raises(LedgerUnavailable, match="others have written for"),
    ):
        write(engine, lambda connection: connection.execute(text("INSERT INTO said VALUES ('never')")))
    assert said(engine) == []


def test_a_command_that_ends_leaves_the_write_ahead_log_to_those_that_still_use_it(engine: Engine, file: Path) -> None:
    with ExitStack() as held:
        # A role uses several connections, and opens them while it already uses one.
        for _ in range(3):
            held.enter_context(engine.connect())
        write(engine, lambda connection: connection.execute(text("INSERT INTO said VALUES ('ours')")))
        log = os.stat(f"{file}-wal")
        say_in_another_process(file, "theirs")
        assert os.path.samestat(os.stat(f"{file}-wal"), log)
    assert said(engine) == ["ours", "theirs"]
    write(engine, lambda connection: connection.execute(text("INSERT INTO said VALUES ('ours again')")))
    engine.dispose()
    assert said(engine) == ["ours", "theirs", "ours again"]


def test_a_file_that_was_put_in_the_ledgers_place_is_the_one_that_is_used(engine: Engine, file: Path) -> None:
    backup = make_engine(f"sqlite:///{file.with_name('backup.sqlite3')}")
    migrate(backup)
    write(backup, lambda connection: connection.execute(text("CREATE TABLE said (words TEXT)")))
    write(backup, lambda connection: connection.execute(text("INSERT INTO said VALUES ('restored')")))
    backup.dispose()
    file.with_name("backup.sqlite3").replace(file)
    for suffix in ("-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
    assert said(engine) == ["restored"]


def test_a_ledger_that_was_deleted_takes_nothing_more(engine: Engine, file: Path) -> None:
    file.unlink()
    with pytest.raises((LedgerUnavailable, SchemaOutdated)):
        write(engine, lambda connection: connection.execute(text("INSERT INTO said VALUES ('lost')")))


def test_what_was_removed_is_gone_from_the_file_however_sqlite_was_compiled(file: Path) -> None:
    engine = make_engine(f"sqlite:///{file}", pool_size=2)

    @event.listens_for(engine, "connect", insert=True)
    def as_compiled(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA secure_delete = OFF")

    write(engine, lambda connection: connection.execute(text("CREATE TABLE said (words TEXT)")))
    write(engine, lambda connection: connection.execute(text("INSERT INTO said VALUES ('a card number')")))
    write(engine, lambda connection: connection.execute(text("DELETE FROM said")))
    engine.dispose()
    assert b"a card number" not in file.read_bytes()
