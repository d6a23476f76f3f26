"""Transactions: all access to the database, and the translation of its exceptions into the ledger's errors."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from service.ledger.database_url import MARGIN_SECONDS
from service.ledger.engine import READS_ONLY, WRITE_LOCK
from service.ledger.errors import (
    ClaimUnstorable,
    LedgerContended,
    LedgerError,
    LedgerUnavailable,
    SchemaOutdated,
    SequenceBehind,
)
from service.runtime.backoff import exponential
from service.runtime.clock import now
from service.runtime.file_locks import LockTimeout, hold_file_lock

Result = TypeVar("Result")

_MOST_TRIES = 6
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


def write(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Do `work` in one transaction and commit it.

    Where another transaction was in the way, `work` is repeated a few times within seconds, so it must have no effects
    besides those on the connection. Raises errors of `service.ledger.errors` only.
    """
    for attempt in range(1, _MOST_TRIES):
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
    file = engine.get_execution_options().get(WRITE_LOCK)
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
    return exponential(attempt, first_seconds=0.02, most_seconds=0.5, jitter=0.9, random=chance)


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
