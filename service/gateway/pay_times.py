"""The gateway's `pay_time`: the document names no format, and gateways of this kind write many."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo

# A year outside of these is a wrong clock or another format, not a time of payment.
_YEARS = range(2000, 2100)

_MARKED_DATE = r"(?P<year>[0-9]{4})(?P<mark>[-/.])(?P<month>[0-9]{1,2})(?P=mark)(?P<day>[0-9]{1,2})"
_CHINESE_DATE = r"(?P<year>[0-9]{4})年(?P<month>[0-9]{1,2})月(?P<day>[0-9]{1,2})日"
_COMPACT_DATE = r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})"
_MARKED_TIME = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2})(?::(?P<second>[0-9]{1,2})(?P<fraction>[.,][0-9]{1,9})?)?"
_CHINESE_TIME = r"(?P<hour>[0-9]{1,2})[时時点點](?P<minute>[0-9]{1,2})分(?:(?P<second>[0-9]{1,2})秒)?"
_COMPACT_TIME = (
    r"(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})(?P<second>[0-9]{2})(?P<fraction>[.,][0-9]{1,9}|[0-9]{3}|[0-9]{6})?"
)
# Java writes a zone's name after its offset.
_OFFSET = r"(?: ?(?P<offset>[Zz]|UTC|GMT|(?:UTC|GMT)?[+-](?:[0-9]{2}(?::?[0-5][0-9])?|[0-9]))(?:\[[A-Za-z_/+-]+\])?)?"
_FORMATS = tuple(
    re.compile(written + _OFFSET)
    for written in (
        f"{_MARKED_DATE}[ T]{_MARKED_TIME}",
        f"{_CHINESE_DATE} ?(?:{_CHINESE_TIME})",
        f"{_CHINESE_DATE} ?(?:{_MARKED_TIME})",
        f"{_COMPACT_DATE}[ T]?{_COMPACT_TIME}",
        f"{_COMPACT_DATE}[ T]{_MARKED_TIME}",
        # Twelve digits are either of these; which one, most often only one month or year tells.
        r"(?P<year>[0-9]{2})(?P<month>[0-9]{2})(?P<day>[0-9]{2})(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})(?P<second>[0-9]{2})",
        r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})",
    )
)
# Seconds, milliseconds, microseconds or nanoseconds.
_UNIX = re.compile(r"(?P<seconds>[0-9]{10})(?P<fraction>[.,][0-9]{1,9}|[0-9]{3}|[0-9]{6}|[0-9]{9})?")
_LONGEST = 64


def read_pay_time(text: str, time_zone: tzinfo) -> datetime | None:
    """A gateway's time in `time_zone`, to the microsecond, or None where it is none that we know or has two meanings.

    Taken are a date and a time of day with marks (`2019-07-01 12:00:05`, `2019/7/1 9:05:05`, `2019.07.01T12:00`),
    without (`20190701120005`, `190701120005`) and in Chinese, with a fraction or without, and unix time in seconds down
    to nanoseconds. What names no offset from UTC is in `time_zone`.
    """
    written = text.strip()
    if len(written) > _LONGEST:
        return None
    times = {time for time in _readings(written, time_zone) if time.year in _YEARS}
    return times.pop() if len(times) == 1 else None


def _readings(text: str, time_zone: tzinfo) -> Iterator[datetime]:
    if unix := _UNIX.fullmatch(text):
        seconds = datetime.fromtimestamp(int(unix["seconds"]), tz=UTC)
        yield (seconds + timedelta(microseconds=_microseconds(unix["fraction"]))).astimezone(time_zone)
    for pattern in _FORMATS:
        match = pattern.fullmatch(text)
        if match and (time := _make_time(match.groupdict(), time_zone)):
            yield time


def _make_time(parts: dict[str, str | None], time_zone: tzinfo) -> datetime | None:
    century = 2000 if len(parts["year"] or "") == 2 else 0
    year, month, day, hour, minute, second = (
        int(parts.get(name) or 0) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    try:
        time = datetime(
            century + year,
            month,
            day,
            hour,
            minute,
            second,
            _microseconds(parts.get("fraction")),
            tzinfo=_read_offset(parts["offset"]) if parts["offset"] else time_zone,
        )
        return time.astimezone(time_zone)
    except (ValueError, OverflowError):
        return None


def _microseconds(fraction: str | None) -> int:
    digits = (fraction or "").lstrip(".,")
    return int(digits.ljust(6, "0")[:6])


def _read_offset(text: str) -> tzinfo:
    """Raises ValueError for one of a day or more."""
    digits = text.upper().removeprefix("UTC").removeprefix("GMT").removeprefix("Z").replace(":", "")
    if not digits:
        return UTC
    minutes = 60 * int(digits[1:3]) + int(digits[3:] or 0)
    return timezone(timedelta(minutes=-minutes if digits[0] == "-" else minutes))
