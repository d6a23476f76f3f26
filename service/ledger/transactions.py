"""Transactions: the only way to the database, and where its exceptions become the ledger's errors."""

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
from service.ledger.engine import READS_ONLY, TURNS
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
# A longer wait for other writers would be a hang to whoever waits for us.
_MOST_TURN_SECONDS = 5.0

# PostgreSQL's: serialization_failure, deadlock_detected, lock_not_available.
_CONTENDED = frozenset({"40001", "40P01", "55P03"})
# undefined_table, undefined_column.
_OUTDATED = frozenset({"42P01", "42703"})
# unique_violation. Our own repeats are passed over, so it is a key that the database made.
_TAKEN = "23505"
# Data exceptions, and limits that a value exceeds (the length of an index row).
_UNSTORABLE_CLASSES = ("22", "54")


def write(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Do `work` in one transaction and commit; all of it is stored, or nothing.

    `work` is run again, a few times and within seconds, when another transaction stood in its way, so it must have no
    effect but on the connection. Raises errors of `service.ledger.errors` only.
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
    """The ledger's word for what the database library raised. What is not surely the data's fault is trouble."""
    if isinstance(error, NoFreeConnection):
        return LedgerUnavailable("every connection of the pool is in use")
    # The first line alone: PostgreSQL's further ones quote the row.
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
        with _turn(engine), engine.begin() as connection:
            return work(connection)
    except (DBAPIError, NoFreeConnection) as error:
        raise translated(error) from error
    except UnicodeEncodeError as error:
        raise _unwritable() from error


def _unwritable() -> ClaimUnstorable:
    # Before anything was sent. Without the text: it may be a person's name.
    return ClaimUnstorable("a text holds a lone surrogate, which no database can store")


@contextmanager
def _turn(engine: Engine) -> Iterator[None]:
    """SQLite has one writer at a time, and no fair way to choose it; PostgreSQL has no need of one."""
    file = engine.get_execution_options().get(TURNS)
    if file is None:
        yield
        return
    try:
        with hold_file_lock(file, wait_seconds=_MOST_TURN_SECONDS):
            yield
    except (LockTimeout, OSError) as error:
        raise LedgerUnavailable(str(error)) from error


def _pause_seconds(attempt: int) -> float:
    chance = random.random()  # noqa: S311 - spreads the tries, guards nothing
    return exponential(attempt, first_seconds=0.02, most_seconds=0.5, jitter=0.9, random=chance)


def shared_time(connection: Connection) -> datetime:
    """The present time, aware: PostgreSQL's, or our own where all are on the machine of the SQLite file."""
    if connection.dialect.name == "sqlite":
        return now()
    # Not `now()`, which is when the transaction began: it may have waited for a lock since.
    time: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return time


def wait_at_most(connection: Connection, *, milliseconds: int) -> None:
    """Let each lock be waited for no longer until the transaction ends; then the statement fails as contended.

    On SQLite nothing waits inside of a transaction.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")


def allow_longer(connection: Connection, *, seconds: int | None) -> None:
    """Let each statement take up to `seconds` until the transaction ends; None is as long as it takes.

    SQLite, which is this very process, knows no limit.
    """
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {0 if seconds is None else seconds * 1000}")
    limited: Any = connection.connection.driver_connection
    limited.limit_seconds = None if seconds is None else seconds + MARGIN_SECONDS
