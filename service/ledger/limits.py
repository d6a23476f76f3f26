"""How long a statement may take, and wait: in daily work not long; now and then, because it must, longer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: How long PostgreSQL itself lets a statement of daily work run.
STATEMENT_SECONDS = 10
#: How much longer we wait, so that it is the server that ends such a statement, and says so.
MARGIN_SECONDS = 2.0


def wait_at_most(connection: "Connection", *, milliseconds: int) -> None:
    """Let each lock be waited for no longer until the transaction ends; then the statement fails as contended.

    On SQLite nothing waits inside of a transaction.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")


def allow_longer(connection: "Connection", *, seconds: int | None) -> None:
    """Let each statement take up to `seconds` until the transaction ends; None is as long as it takes.

    SQLite, which is this very process, knows no limit.
    """
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {0 if seconds is None else seconds * 1000}")
    limited: Any = connection.connection.driver_connection
    limited.limit_seconds = None if seconds is None else seconds + MARGIN_SECONDS
