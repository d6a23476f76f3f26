"""The time that clocks pass on: everything that needs to know it is handed a clock."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)
