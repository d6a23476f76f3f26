"""The clock of production code. Whatever needs the time gets a clock as an argument."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)
