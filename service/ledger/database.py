"""All access to the database: engines, transactions, and its exceptions as the ledger's errors.

The database is PostgreSQL, or a SQLite file as the embedded default.
"""

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.pool import ConnectionPoolEntry

from service.ledger.database_url import MARGIN_SECONDS, find_libpq_url, require_driver
from service.ledger.errors import (
    ClaimUnstorable,
    LedgerContended,
    LedgerError,
    LedgerUnavailable,
    SchemaOutdated,
    SequenceBehind,
    UnusableDatabaseUrl,
)
from service.runtime.backoff import exponential
from service.runtime.clock import now
from service.runtime.file_locks import LockTimeout, hold_file_lock
from service.runtime.sqlite_files import forget_cached_log, is_read_only

#: Execution option of a connection that only reads; SQLite then takes no write lock.
READS_ONLY = "ledger_reads_only"
#: Execution option of an engine on a SQLite file: the lock file of its writers.
_WRITE_LOCK = "ledger_write_lock"

_POOL_TIMEOUT_SECONDS = 5
# For writers that do not use the lock file: SQLite's own commands, for example.
_SQLITE_BUSY_SECONDS = 0.8
# The key under which a connection keeps the status of the file that it has opened.
_FILE = "ledger_file"

_MAX_TRIES = 6
# A longer wait for other writers would look like a hang to our callers.
_LOCK_SECONDS = 5.0

# PostgreSQL's: serialization_failure, deadlock_detected, lock_not_available.
_CONTENDED = frozenset({"40001", "40P01", "55P03"})
# undefined_table, undefined_column.
_OUTDATED = frozenset({"42P01", "42703"})
# unique_violation. Our own repeats are skipped, so it is a key that the database generated.
_TAKEN = "23505"
# Data exceptions, and values that exceed a limit (the length of an index row).
_UNSTORABLE_CLASSES = ("22", "54")

Result = TypeVar("Result")


def make_engine(
    url: str, *, pool_size: int = 2, pooled: bool = False, application_name: str = "payment-callbacks"
) -> Engine:
    """An engine for `url` (`postgresql://...` or `sqlite:///...`), without connecting.

    Make it after forking. `pool_size` is the most connections that it opens. `pooled` means that a pooler hands out
    PostgreSQL's sessions for one transaction at a time. The SQLite file is created with mode 0600 at its first use; it
    must be on a local disk, and its folder must exist. Raises UnusableDatabaseUrl.
    """
    settings = {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": _POOL_TIMEOUT_SECONDS,
        # The messages of exceptions would otherwise show personal data.
        "hide_parameters": True,
    }
    libpq_url = find_libpq_url(url)
    if libpq_url is not None:
        require_driver()
        from service.ledger.postgresql import make_postgresql_engine

        return make_postgresql_engine(libpq_url, pooled=pooled, application_name=application_name, **settings)
    if pooled:
        raise UnusableDatabaseUrl("only PostgreSQL has poolers: remove database.pooled")
    return _sqlite(url, settings)


def _sqlite(text: str, settings: dict[str, Any]) -> Engine:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Without its cause, which quotes the URL.
        raise UnusableDatabaseUrl("not a database URL; it should look like postgresql://...") from None
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:" or url.host:
        raise UnusableDatabaseUrl("the database URL must begin with postgresql:// or name a sqlite:/// file")
    if url != URL.create("sqlite", database=url.database):
        raise UnusableDatabaseUrl("a sqlite:/// URL names a file and nothing else: take out its other parts")
    file = Path(url.database)
    # isolation_level None: transactions are begun by _begin and not by the driver.
    arguments = {"timeout": _SQLITE_BUSY_SECONDS, "isolation_level": None}
    engine = create_engine(url, connect_args=arguments, **settings)

    def before_opening(*_: object) -> None:
        # SQLite would create the file by the umask, and it holds personal data. SQLite reports what prevents us from
        # creating it. Only a new file is opened here: closing any descriptor of a database releases all locks that this
        # process has on it, and then the next command that ends deletes the write-ahead log that we still write to.
        with suppress(OSError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        if is_read_only(file):
            raise sqlite3.OperationalError(f"{file} or its disk is read-only")
        forget_cached_log(file)

    def prepare(connection: Any, record: ConnectionPoolEntry) -> None:
        # Pruned data must be gone from the file; the default of secure_delete depends on how SQLite was compiled.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")
        record.info[_FILE] = os.stat(file)

    def require_file(_connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        # When the file is deleted or replaced, SQLite goes on writing to the old one, which nobody finds again.
        try:
            there = os.path.samestat(os.stat(file), record.info[_FILE])
        except FileNotFoundError:
            there = False
        if not there:
            raise DisconnectionError(f"{file} was deleted or replaced while it was in use")

    def after_error(context: ExceptionContext) -> None:
        # Where the commit has failed, the write lock is still held.
        if isinstance(context.original_exception, sqlite3.OperationalError):
            forget_cached_log(file)

    event.listen(engine, "do_connect", before_opening)
    event.listen(engine, "handle_error", after_error)
    event.listen(engine, "connect", prepare)
    event.listen(engine, "checkout", require_file)
    event.listen(engine, "begin", _begin)
    engine.update_execution_options(**{_WRITE_LOCK: file.with_name(f"{file.name}.lock")})
    return engine


def _begin(connection: Connection) -> None:
    # A transaction that first reads and then writes fails at once if another one has written in between.
    reads_only = connection.get_execution_options().get(READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def write(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Do `work` in one transaction and commit it.

    Where another transaction was in the way, `work` is repeated a few times within seconds, so it must have no effects
    besides those on the connection. Raises errors of `service.ledger.errors` only.
    """
    for attempt in range(1, _MAX_TRIES):
        try:
            return _write_once(engine, work)
        except LedgerContended:
            time.sleep(_pause_seconds(attempt))
    return _write_once(engine, work)


def read(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Do `work`, which writes nothing, in one transaction. Raises errors of `service.ledger.errors` only."""
    try:
        with engine.connect().execution_options(**{READS_ONLY: True}) as connection, connection.begin():
            return work(connection)
    except (DBAPIError, NoFreeConnection) as error:
        raise translated(error) from error
    except UnicodeEncodeError as error:
        raise _unwritable() from error


def translated(error: DBAPIError | NoFreeConnection) -> LedgerError:
    """The ledger's error for an exception of the database library: unavailable, unless the data is surely at fault."""
    if isinstance(error, NoFreeConnection):
        return LedgerUnavailable("every connection of the pool is in use")
    # Only the first line: PostgreSQL's other lines quote the row.
    reason = f"{type(error.orig).__name__}: {error.orig}".splitlines()[0]
    if isinstance(error.orig, sqlite3.Error):
        return _of_sqlite(error, error.orig, reason)
    state = getattr(error.orig, "sqlstate", None) or ""
    if state in _CONTENDED:
        return LedgerContended(reason)
    if state in _OUTDATED:
        return SchemaOutdated(reason)
    if state == _TAKEN:
        return SequenceBehind(reason)
    if isinstance(error, DataError | IntegrityError) or state.startswith(_UNSTORABLE_CLASSES):
        return ClaimUnstorable(reason)
    return LedgerUnavailable(reason)


def _of_sqlite(error: DBAPIError, cause: sqlite3.Error, reason: str) -> LedgerError:
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerContended(reason)
    if code == sqlite3.SQLITE_ERROR and "no such" in reason:
        return SchemaOutdated(reason)
    if isinstance(error, DataError | IntegrityError):
        return ClaimUnstorable(reason)
    return LedgerUnavailable(reason)


def _write_once(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    try:
        with _write_lock(engine), engine.begin() as connection:
            return work(connection)
    except (DBAPIError, NoFreeConnection) as error:
        raise translated(error) from error
    except UnicodeEncodeError as error:
        raise _unwritable() from error


def _unwritable() -> ClaimUnstorable:
    # It was raised before anything was sent. The message leaves the text out, which may be a person's name.
    return ClaimUnstorable("a text holds a lone surrogate, which no database can store")


@contextmanager
def _write_lock(engine: Engine) -> Iterator[None]:
    """Hold the file lock of SQLite's writers: SQLite has one writer at a time, and does not choose it fairly."""
    file = engine.get_execution_options().get(_WRITE_LOCK)
    if file is None:
        yield
        return
    try:
        with hold_file_lock(file, wait_seconds=_LOCK_SECONDS):
            yield
    except (LockTimeout, OSError) as error:
        raise LedgerUnavailable(str(error)) from error


def _pause_seconds(attempt: int) -> float:
    chance = random.random()  # noqa: S311 - spreads the tries, guards nothing
    return exponential(attempt, first_seconds=0.02, max_seconds=0.5, jitter=0.9, random=chance)


def shared_time(connection: Connection) -> datetime:
    """The present time, aware, by the clock that all processes of a ledger share: PostgreSQL's, or this machine's.

    The clocks of two hosts may be minutes apart. By two such clocks a question that has just been asked would be due
    again, a lease would run out early, and the rate that one process has used would look unused to the other.
    """
    if connection.dialect.name == "sqlite":
        return now()
    # Not `now()`, which is the start of the transaction: it may have waited for a lock since.
    time: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return time


def wait_at_most(connection: Connection, *, milliseconds: int) -> None:
    """Limit the wait for each lock until the transaction ends; a statement that waits longer fails as contended.

    On SQLite, nothing waits within a transaction.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")


def allow_longer(connection: Connection, *, seconds: int | None) -> None:
    """Let each statement take up to `seconds` until the transaction ends; None is no limit. SQLite never has one."""
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {0 if seconds is None else seconds * 1000}")
    limited: Any = connection.connection.driver_connection
    limited.limit_seconds = None if seconds is None else seconds + MARGIN_SECONDS
