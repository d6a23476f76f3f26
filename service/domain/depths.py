"""Depths: how much a spool or the queue holds. The ledger gets them as reports, since it can see neither."""

from dataclasses import dataclass
from datetime import datetime

#: Between two reports of one reporter.
REPORT_EVERY_SECONDS = 15.0
#: The reporter of the queue's depth.
QUEUE = "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthReport:
    """How many messages a spool or the queue holds. It is a total: the latest report of a reporter replaces all others.

    So repeated, late and reordered reports are harmless.
    """

    #: `QUEUE`, or `spool-` and the spool's id. It stays the same for the life of the queue or spool.
    reporter: str
    #: For people: what it is, and where.
    name: str
    messages: int
    #: When the oldest message came in, aware; None where nobody knows, or where there is none.
    oldest_at: datetime | None
    #: Aware.
    reported_at: datetime
