"""The database engine: PostgreSQL, or a SQLite file as the embedded default."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from service.ledger.database_url import find_libpq_url, require_driver
from service.ledger.errors import UnusableDatabaseUrl

#: Execution option of a connection that only reads; SQLite then takes no write lock.
READS_ONLY = "ledger_reads_only"
#: Execution option of an engine on a SQLite file: the lock file of its writers.
WRITE_LOCK = "ledger_write_lock"

_POOL_TIMEOUT_SECONDS = 5
# For writers that do not use the lock file: SQLite's own commands, for example.
_SQLITE_BUSY_SECONDS = 0.8
# The key under which a connection keeps the status of the file that it has opened.
_FILE = "ledger_file"


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
    if url != URL.create("sqlite", database=url.database):
        raise UnusableDatabaseUrl("a sqlite:/// URL names a file and nothing else: take out its other parts")
    file = Path(url.database)
    # isolation_level None: transactions are begun by _begin and not by the driver.
    arguments = {"timeout": _SQLITE_BUSY_SECONDS, "isolation_level": None}
    engine = create_engine(url, connect_args=arguments, **settings)

    def create_private(*_: object) -> None:
        # SQLite would create the file by the umask, and it holds personal data. SQLite reports what prevents us from
        # creating it. Only a new file is opened here: closing any descriptor of a database releases all locks that this
        # process has on it, and then the next command that ends deletes the write-ahead log that we still write to.
        with suppress(OSError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))

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

    event.listen(engine, "do_connect", create_private)
    event.listen(engine, "connect", prepare)
    event.listen(engine, "checkout", require_file)
    event.listen(engine, "begin", _begin)
    engine.update_execution_options(**{WRITE_LOCK: file.with_name(f"{file.name}.lock")})
    return engine


def _begin(connection: Connection) -> None:
    # A transaction that first reads and then writes fails at once if another one has written in between.
    reads_only = connection.get_execution_options().get(READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
