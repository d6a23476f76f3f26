"""The database engine: PostgreSQL, or a SQLite file as the embedded default."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from service.ledger.database_url import find_libpq_url, require_driver
from service.ledger.errors import UnusableDatabaseUrl

#: Execution option of a connection whose transaction only reads; SQLite then takes no write lock.
READS_ONLY = "ledger_reads_only"
#: Execution option of an engine on a SQLite file: the file at which its writers take their turns.
TURNS = "ledger_turns"

_POOL_TIMEOUT_SECONDS = 5
# For what takes no turn: a command of another release, or of SQLite's own.
_SQLITE_BUSY_SECONDS = 0.8
# Where a connection keeps which file it has opened.
_FILE = "ledger_file"


def make_engine(
    url: str, *, pool_size: int = 2, pooled: bool = False, application_name: str = "payment-callbacks"
) -> Engine:
    """An engine for `url` (`postgresql://...` or `sqlite:///...`), without connecting.

    Make it after forking. `pool_size` is the most connections it opens. `pooled` says that a pooler gives PostgreSQL's
    sessions out for one transaction at a time. The SQLite file is made with mode 0600 when it is first used, and must
    lie on a local disk; its folder must exist. Raises UnusableDatabaseUrl.
    """
    settings = {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": _POOL_TIMEOUT_SECONDS,
        # They would show people's data in the message of every exception.
        "hide_parameters": True,
    }
    libpq_url = find_libpq_url(url)
    if libpq_url is not None:
        require_driver()
        from service.ledger.postgresql import make_postgresql_engine

        return make_postgresql_engine(libpq_url, pooled=pooled, application_name=application_name, **settings)
    if pooled:
        raise UnusableDatabaseUrl("only PostgreSQL has poolers: take database.pooled out")
    return _sqlite(url, settings)


def _sqlite(text: str, settings: dict[str, Any]) -> Engine:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Without its cause, which quotes the URL.
        raise UnusableDatabaseUrl("not a database URL; it should look like postgresql://...") from None
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:" or url.host:
        raise UnusableDatabaseUrl("the database URL must begin with postgresql:// or name a sqlite:/// file")
    file = Path(url.database)
    # isolation_level None: the driver begins nothing of its own, _begin does.
    arguments = {"timeout": _SQLITE_BUSY_SECONDS, "isolation_level": None}
    engine = create_engine(url.set(drivername="sqlite+pysqlite"), connect_args=arguments, **settings)

    def create_private(*_: object) -> None:
        # Otherwise SQLite makes it as the umask says; it holds people's data. What hinders us will hinder SQLite, which
        # says so in its own words. Only ever a new file is opened: closing any descriptor of a database drops all locks
        # that this process has on it. Then the next command that ends takes itself for the last user, and deletes the
        # write-ahead log that we go on writing to.
        with suppress(OSError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))

    def prepare(connection: Any, record: ConnectionPoolEntry) -> None:
        # What is pruned must be gone from the file; whether it is without our word is up to who compiled SQLite.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")
        record.info[_FILE] = os.stat(file)

    def require_file(_connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        # When the file is deleted or replaced, SQLite goes on in the one that nobody will ever find again.
        try:
            there = os.path.samestat(os.stat(file), record.info[_FILE])
        except FileNotFoundError:
            there = False
        if not there:
            raise DisconnectionError(f"{file} was deleted or replaced while it was in use")

    event.listen(engine, "do_connect", create_private)
    event.listen(engine, "connect", prepare)
    event.listen(engine, "checkout", require_file)
    event.listen(engine, "begin", _begin)
    engine.update_execution_options(**{TURNS: file.with_name(f"{file.name}.turns")})
    return engine


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another has written in between.
    reads_only = connection.get_execution_options().get(READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
