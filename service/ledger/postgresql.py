"""PostgreSQL, with our own time limit on every statement.

The server enforces `statement_timeout`. A frozen server (its disk hangs, its machine is paused) does not, but its
kernel goes on acknowledging what we send, so neither keepalives nor `tcp_user_timeout` notice. Only this module and
`database_url` need the driver, which an embedded installation does not have.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine, event

from service.ledger.bulk import PLANNED_ANEW
from service.ledger.database_url import MARGIN_SECONDS, STATEMENT_SECONDS, read_postgresql_url

Result = TypeVar("Result")

# For the test of a pooled connection before it is used. Nothing was sent on it yet, so it can be dropped.
_PING_SECONDS = 5.0
# psycopg's default: how soon a signal is noticed.
_INTERVAL_SECONDS = 0.1


class LimitedConnection(psycopg.Connection[tuple[Any, ...]]):
    """psycopg's connection, which closes itself where an answer takes longer than `limit_seconds`.

    The statement may be executed all the same: the state of such a connection is unknown.
    """

    #: None is no limit.
    limit_seconds: float | None = STATEMENT_SECONDS + MARGIN_SECONDS
    #: Sent by a TransactionStartCursor with the first statement of each transaction.
    transaction_start: sql.Composed | None = None

    def wait(self, gen: PQGen[Result], interval: float = _INTERVAL_SECONDS, timeout: float | None = None) -> Result:
        """Send and receive what `gen` yields; every statement passes here. Raises psycopg.OperationalError."""
        limit = self.limit_seconds if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit)
        except _WaitTimeout:
            self.close()
            raise psycopg.OperationalError(f"no answer within {limit:g} s") from None

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """Send the statements within it together, without waiting for each answer."""
        with self.lock:
            self._check_connection_ok()
            self._pipeline = self._pipeline or _Pipeline(self)
        with super().pipeline() as pipeline:
            yield pipeline


class _Pipeline(psycopg.Pipeline):
    """A pipeline that ends with Sync.

    psycopg's sends a Flush after the Sync. PostgreSQL (15.18 at least) takes the Flush for activity and stops the timer
    of `idle_in_transaction_session_timeout` until the next statement. Sync alone already sends all answers.
    """

    def _exit_gen(self) -> PQGen[None]:
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
        finally:
            yield from self._fetch_gen(flush=False)


class TransactionStartCursor(psycopg.Cursor[tuple[Any, ...]]):
    """A cursor that sends its connection's `transaction_start` first in each transaction, in one pipeline.

    Behind a pooler, the next transaction may run in another session, so settings of the session cannot be used.
    """

    def execute(self, *arguments: Any, **keywords: Any) -> Self:
        """As psycopg's."""
        with self._started_transaction():
            return super().execute(*arguments, **keywords)

    def executemany(self, *arguments: Any, **keywords: Any) -> None:
        """As psycopg's."""
        with self._started_transaction():
            super().executemany(*arguments, **keywords)

    @contextmanager
    def _started_transaction(self) -> Iterator[None]:
        connection: Any = self.connection
        if connection.autocommit or connection.info.transaction_status is not TransactionStatus.IDLE:
            yield
            return
        with connection.pipeline():
            psycopg.Cursor(connection).execute(connection.transaction_start)
            yield


def make_postgresql_engine(url: str, *, pooled: bool, application_name: str, **settings: Any) -> Engine:
    """An engine of such connections; `settings` are for SQLAlchemy's `create_engine`.

    Where a pooler hands sessions out per transaction (`pooled`), nothing is kept in them. Raises UnusableDatabaseUrl.
    """
    access = read_postgresql_url(url, pooled=pooled, application_name=application_name)
    arguments: dict[str, Any] = dict(access.parameters)
    if pooled:
        # A prepared statement belongs to a session.
        arguments |= {"prepare_threshold": None, "cursor_factory": TransactionStartCursor}
    engine = create_engine(access.display_url, connect_args=arguments, pool_pre_ping=True, **settings)
    start = _set_local(access.transaction_settings) if pooled else None

    def connect(_dialect: object, _record: object, arguments: Any, keywords: Any) -> LimitedConnection:
        connection = _connect(arguments, keywords)
        connection.transaction_start = start
        return connection

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "checkin", _limit_ping)
    event.listen(engine, "checkout", _limit_statements)
    event.listen(engine, "do_execute", _execute)
    return engine


def _set_local(settings: Mapping[str, str]) -> sql.Composed:
    """`SET LOCAL` of all settings in one statement, as a pipeline needs it."""
    calls = [sql.SQL("set_config({}, {}, true)").format(name, value) for name, value in settings.items()]
    return sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls))


def _connect(arguments: Any, keywords: Any) -> LimitedConnection:
    try:
        connection = LimitedConnection.connect(*arguments, **keywords)
    except psycopg.OperationalError as error:
        # PgBouncer before 1.20 goes on with the name `options`; later releases name what is in it.
        if "unsupported startup parameter" in str(error):
            raise psycopg.OperationalError("a pooler is in front of it: set database.pooled = true") from error
        raise
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ("UTF8", None):  # None: a pooler that does not say
        # Names and banks' texts could not be stored, and such claims would go to the dead letters.
        advice = f"CREATE DATABASE {connection.info.dbname} ENCODING 'UTF8' TEMPLATE template0"
        connection.close()
        raise psycopg.OperationalError(f"the database has the encoding {encoding}, and has to have UTF8: {advice}")
    return connection


def _limit_ping(connection: LimitedConnection | None, _record: object) -> None:
    if connection is not None:  # None: it was invalidated
        connection.limit_seconds = _PING_SECONDS


def _limit_statements(connection: LimitedConnection, _record: object, _proxy: object) -> None:
    connection.limit_seconds = LimitedConnection.limit_seconds


def _execute(cursor: psycopg.Cursor[Any], statement: str, parameters: Any, context: Any) -> bool:
    """Execute statements that are to be planned at each execution; leave all others to SQLAlchemy."""
    if context is None or not context.execution_options.get(PLANNED_ANEW, False):
        return False
    cursor.execute(statement, parameters, prepare=False)
    return True
