"""What the spools and the queue last reported of their depth. The attention list shows the old and the silent ones."""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, delete, select

from service.domain.depths import DepthReport
from service.ledger.bulk import insert_or_update
from service.ledger.database import shared_time, write
from service.ledger.sanitizing import escaped
from service.ledger.tables import depth_reports

#: A reporter that has been silent for so long has left for good, and is forgotten. By then the gateway, if it can be
#: asked, has been asked to the usual horizon about an order whose callback is in a lost spool.
FORGOTTEN_AFTER = timedelta(days=7)


class DepthStore:
    """Records reports. Safe to share between threads."""

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to give all processes the same time."""
        self._engine = engine
        self._clock = clock

    def record(self, reports: Collection[DepthReport]) -> None:
        """Record the reports that are newer than the recorded ones, and forget the reporters that have left.

        Repeating it is harmless. Raises LedgerUnavailable.
        """
        write(self._engine, lambda connection: _record(connection, reports, self._clock(connection)))


def _record(connection: Connection, reports: Collection[DepthReport], now: datetime) -> None:
    connection.execute(delete(depth_reports).where(depth_reports.c.reported_at <= now - FORGOTTEN_AFTER))
    known = select(depth_reports.c.reporter, depth_reports.c.oldest_at)
    waiting_since = {row.reporter: row.oldest_at for row in connection.execute(known)}
    latest: dict[str, DepthReport] = {}
    for report in sorted(reports, key=lambda report: report.reported_at):
        latest[escaped(report.reporter)] = report
    rows = []
    for reporter, report in sorted(latest.items()):
        # A clock that is ahead must not make its later reports look old once it is right.
        reported_at = min(report.reported_at, now)
        oldest_at = report.oldest_at or waiting_since.get(reporter) or reported_at
        rows.append(
            {
                "reporter": reporter,
                "name": escaped(report.name),
                "messages": report.messages,
                "oldest_at": oldest_at if report.messages else None,
                "reported_at": reported_at,
            }
        )
    insert_or_update(connection, depth_reports, rows, growing="reported_at")
