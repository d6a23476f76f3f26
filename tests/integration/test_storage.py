"""A disk that is full, read-only or broken: what is not kept is not promised, and work goes on when it is mended."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import psycopg
import pytest
from sqlalchemy import select

from service.ledger.database import make_engine, read
from service.ledger.errors import LedgerUnavailable
from service.ledger.tables import claims
from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.errors import QueueFileFailed
from service.messaging.rabbitmq.publisher import RabbitPublisher
from service.messaging.sqlite.queue import EmbeddedQueue
from service.messaging.sqlite.spool import SpoolingPublisher
from tests.support import ledger
from tests.support.claims import a_claim
from tests.support.disks import Disk
from tests.support.ledger import LedgerDatabases, make_sqlite_ledger
from tests.support.messages import embedded_publisher, make_message, rabbit_publisher
from tests.support.postgresql import PostgreSQL

#: The size of what is kept, so that a disk is soon full.
MUCH = 100_000
#: More than the disk has room for.
MANY = 400


class Keeper(Protocol):
    """Keeps names on a disk, in the way of the service."""

    #: What it raises where a name is not kept.
    refusal: type[Exception]

    def keep(self, name: str) -> None:
        """Return once it is kept."""

    def kept(self) -> set[str]:
        """What is kept."""

    def close(self) -> None: ...


class Queue:
    refusal: type[Exception] = QueueFileFailed
    file = "queue.sqlite3"

    def __init__(self, folder: Path) -> None:
        self._queue = EmbeddedQueue(folder / self.file)
        self._publisher = self._make_publisher(folder)

    def keep(self, name: str) -> None:
        self._publisher.publish(replace(make_message(name), body=b"x" * MUCH), timeout_seconds=60)

    def kept(self) -> set[str]:
        return {name for (name,) in self._queue.read("SELECT message_id FROM message")}

    def close(self) -> None:
        self._publisher.close(timeout_seconds=5)
        self._queue.close(timeout_seconds=5)

    def _make_publisher(self, folder: Path) -> BlockingPublisher:
        return embedded_publisher(EmbeddedQueue(folder / self.file))


class Spool(Queue):
    """Of a receiver whose broker is away."""

    file = "spool.sqlite3"

    def _make_publisher(self, folder: Path) -> BlockingPublisher:
        nowhere = "amqp://127.0.0.1:9/"

        def make(loop: asyncio.AbstractEventLoop) -> SpoolingPublisher:
            return SpoolingPublisher(
                loop=loop,
                inner=RabbitPublisher(loop=loop, urls=[nowhere], connection_name="test"),
                forward_to=rabbit_publisher(nowhere),
                spool=EmbeddedQueue(folder / self.file),
                max_bytes=10**9,
                on_depth=lambda _depth: None,
            )

        return BlockingPublisher(make, name="test")


class Ledger:
    refusal: type[Exception] = LedgerUnavailable

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._store = ledger.make_store(self._engine, clock=lambda: datetime.now(UTC))

    def keep(self, name: str) -> None:
        self._store.record([a_claim(order=name, channel_response="x" * MUCH)])

    def kept(self) -> set[str]:
        return set(read(self._engine, lambda connection: connection.execute(select(claims.c.biz_order_no)).scalars()))

    def close(self) -> None:
        ledger.dispose(self._engine)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk() as disk:
        yield disk


Open = Callable[[Path], Keeper]


@pytest.fixture(params=["queue", "spool", "ledger"])
def open_file(request: pytest.FixtureRequest, disk: Disk) -> Open:
    """Opens the file of that kind that is in a folder; one is on the disk."""
    if request.param == "queue":
        return Queue
    if request.param == "spool":
        return Spool
    make_sqlite_ledger(disk.path / "ledger.sqlite3")
    return lambda folder: Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}")


def keep_until_refused(keeper: Keeper, *, reason: str) -> set[str]:
    """Keep ever more; what was kept before something was refused for that reason."""
    kept: set[str] = set()

    def keep_many() -> None:
        for number in range(MANY):
            keeper.keep(f"m{number}")
            kept.add(f"m{number}")

    with pytest.raises(keeper.refusal, match=reason):
        keep_many()
    with pytest.raises(keeper.refusal, match=reason):
        keeper.keep("again")
    return kept


def test_a_full_disk_refuses_clearly_and_takes_again_what_it_has_room_for(open_file: Open, disk: Disk) -> None:
    with closing(open_file(disk.path)) as keeper:
        keeper.keep("before")
        disk.fill()
        kept = keep_until_refused(keeper, reason="disk is full")
        disk.mend()
        keeper.keep("after")
        assert keeper.kept() >= kept | {"before", "after"}


def test_what_was_confirmed_outlives_a_power_cut_after_syncs_have_failed(open_file: Open, disk: Disk) -> None:
    with closing(open_file(disk.path)) as keeper:
        keeper.keep("before")
        disk.break_down()
        kept = keep_until_refused(keeper, reason="disk I/O error|disk is full")
        disk.mend()
        keeper.keep("after")
        with disk.after_power_cut() as folder, closing(open_file(folder)) as left:
            assert left.kept() >= kept | {"before", "after"}


def test_a_read_only_disk_refuses_clearly_and_takes_again_once_it_is_writable(open_file: Open, disk: Disk) -> None:
    with closing(open_file(disk.path)) as keeper:
        keeper.keep("before")
        with left_by_a_killed_process(disk.path):
            keeper.close()
    disk.make_read_only()
    with closing(open_file(disk.path)) as keeper:
        for attempt in (keeper.kept, partial(keeper.keep, "never")) * 2:
            with pytest.raises(keeper.refusal, match=r"[Rr]ead-only"):
                attempt()
        disk.mend()
        keeper.keep("after")
        assert keeper.kept() == {"before", "after"}


@contextmanager
def left_by_a_killed_process(folder: Path) -> Iterator[None]:
    """Keep the write-ahead log, which SQLite would delete when its last user closes the file.

    With the log there, SQLite can read a file that it cannot write.
    """
    [file] = folder.glob("*.sqlite3")
    kept = {
        path: path.read_bytes() for path in folder.glob(f"{file.name}*") if path.name.endswith(("3", "-wal", "-shm"))
    }
    yield
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.fixture
def ledger_on(disk: Disk, ledger_databases: LedgerDatabases, postgresql_cluster: PostgreSQL) -> Iterator[str]:
    """The URL of an empty ledger in PostgreSQL whose tables are on the disk."""
    url = ledger_databases.make(postgresql_cluster)
    server, _, name = url.replace("+psycopg", "").rpartition("/")
    folder = disk.path / "tables"
    folder.mkdir()
    shutil.chown(folder, "postgres")
    with closing(psycopg.connect(f"{server}/postgres", autocommit=True)) as connection:
        connection.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'".encode())
        connection.execute(f"ALTER DATABASE {name} SET TABLESPACE {name}".encode())
        yield url
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        connection.execute(f"DROP TABLESPACE {name}".encode())


def test_a_full_disk_of_postgresql_is_no_fault_of_a_claim(ledger_on: str, disk: Disk) -> None:
    with closing(Ledger(ledger_on)) as keeper:
        keeper.keep("before")
        disk.fill()
        kept = keep_until_refused(keeper, reason="No space left on device")
        disk.mend()
        keeper.keep("after")
        assert keeper.kept() == kept | {"before", "after"}


def test_a_read_only_postgresql_is_no_fault_of_a_claim(
    ledger_databases: LedgerDatabases, postgresql_cluster: PostgreSQL
) -> None:
    url = ledger_databases.make(postgresql_cluster)
    server, _, name = url.replace("+psycopg", "").rpartition("/")
    with closing(Ledger(url)) as keeper, psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        keeper.keep("before")
        set_read_only = f"ALTER DATABASE {name} SET default_transaction_read_only = {{}}"
        disconnect = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        connection.execute(set_read_only.format("on").encode())
        connection.execute(disconnect, [name])
        with pytest.raises(LedgerUnavailable, match="read-only transaction"):
            keeper.keep("never")
        connection.execute(set_read_only.format("off").encode())
        connection.execute(disconnect, [name])
        keeper.keep("after")
        assert keeper.kept() == {"before", "after"}
