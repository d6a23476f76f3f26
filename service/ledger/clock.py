"""The clock that all processes of a ledger share: hosts' own may be minutes apart.

With two such clocks a question that has just been asked would be due again by the other, and its lease run out; and
each would take the part of the rate that the other has used for time that nobody has.
"""

from datetime import datetime

from sqlalchemy import Connection, func, select

from service.runtime.clock import now


def shared_time(connection: Connection) -> datetime:
    """The present time, aware: PostgreSQL's, or our own where all are on the machine of the SQLite file."""
    if connection.dialect.name == "sqlite":
        return now()
    # Not `now()`, which is when the transaction began: it may have waited for a lock since.
    time: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return time
