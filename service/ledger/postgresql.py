"""PostgreSQL, with a time limit of our own on all that it is asked.

`statement_timeout` is the server's to keep. One that is frozen (its disk hangs, its machine is paused) keeps none, and
its kernel goes on acknowledging what we send, so that neither keepalives nor `tcp_user_timeout` notice. The only module
that needs the driver, which the embedded default lacks.
"""

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL

from service.ledger.limits import MARGIN_SECONDS, STATEMENT_SECONDS

Answer = TypeVar("Answer")

_CONNECT_SECONDS = 5
# Before a connection that rested is used again. Nothing is lost by giving it up: nothing was sent on it yet.
_PING_SECONDS = 5.0
# How soon a signal is seen, as psycopg has it.
_INTERVAL_SECONDS = 0.1

# A host that vanished without a word is noticed within about 10 s, whether we wait for its answer or for its ack.
_CONNECTION = {
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
    "options": " ".join(
        [
            f"-c statement_timeout={STATEMENT_SECONDS}s",
            "-c lock_timeout=3s",
            # A frozen process must not keep others from its orders.
            "-c idle_in_transaction_session_timeout=15s",
            "-c timezone=UTC",
        ]
    ),
}


class LimitedConnection(psycopg.Connection[tuple[Any, ...]]):
    """psycopg's connection, which closes itself where an answer takes longer than `limit_seconds`.

    What was asked may be done all the same: of such a connection nothing is known any more.
    """

    #: None is no limit.
    limit_seconds: float | None = STATEMENT_SECONDS + MARGIN_SECONDS

    def wait(self, gen: PQGen[Answer], interval: float = _INTERVAL_SECONDS, timeout: float | None = None) -> Answer:
        """Send and receive what `gen` says; all that is asked passes here. Raises psycopg.OperationalError."""
        limit = self.limit_seconds if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit)
        except _WaitTimeout:
            self.close()
            raise psycopg.OperationalError(f"no answer within {limit:g} s") from None


def make_postgresql_engine(url: URL, *, application_name: str, **settings: Any) -> Engine:
    """An engine of such connections, `settings` as for SQLAlchemy's `create_engine`."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={**_CONNECTION, "application_name": application_name},
        pool_pre_ping=True,
        **settings,
    )
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "checkin", _limit_ping)
    event.listen(engine, "checkout", _limit_statements)
    return engine


def _connect(_dialect: object, _record: object, arguments: Any, keywords: Any) -> LimitedConnection:
    connection = LimitedConnection.connect(*arguments, **keywords)
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ("UTF8", None):  # None: a pooler that does not say
        # Names and banks' words could not be stored, and would be taken for poison.
        advice = f"CREATE DATABASE {connection.info.dbname} ENCODING 'UTF8' TEMPLATE template0"
        connection.close()
        raise psycopg.OperationalError(f"the database has the encoding {encoding}, and has to have UTF8: {advice}")
    return connection


def _limit_ping(connection: LimitedConnection | None, _record: object) -> None:
    if connection is not None:  # else it was given up
        connection.limit_seconds = _PING_SECONDS


def _limit_statements(connection: LimitedConnection, _record: object, _proxy: object) -> None:
    connection.limit_seconds = LimitedConnection.limit_seconds
