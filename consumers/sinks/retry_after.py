"""The Retry-After header (RFC 9110, section 10.2.3)."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_DELAY_SECONDS = re.compile(r"[0-9]{1,10}")


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Seconds from `now` (aware) that the header asks for, never negative; None where it is absent or unreadable.

    Both forms are read: a number of seconds, and an HTTP date. How much of it is granted is the caller's decision.
    """
    if value is None:
        return None
    value = value.strip()
    if _DELAY_SECONDS.fullmatch(value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # no date, or one with numbers beyond every calendar
        return None
    # An HTTP date is GMT by definition; "-0000" and the asctime form come back naive.
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((aware - now).total_seconds(), 0.0)
