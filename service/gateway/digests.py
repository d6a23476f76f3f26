"""Digests of statements: what makes a claim unique. Their bytes never change, whatever else is learned to be read."""

import json
import re
from datetime import UTC, datetime, tzinfo
from hashlib import sha256

from service.domain.claims import OrderStatus
from service.gateway.messages import OrderStatement

# As they were when the first digests were stored. `pay_times.py` reads more; here, more would be another digest.
_DATE_AND_TIME = re.compile(
    r"([0-9]{4})([-/])([0-9]{1,2})\2([0-9]{1,2})[ T]([0-9]{1,2}):([0-9]{2}):([0-9]{2})"
    r"|([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})"
)
_UNIX_SECONDS = re.compile(r"[0-9]{10}")
_YEARS = range(2000, 2100)
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def digest_statement(statement: OrderStatement, *, status: OrderStatus | None, time_zone: tzinfo) -> str:
    """sha256, lower-case hex, of what a statement says; equal for statements that say the same.

    Hashed is the UTF-8 of one compact JSON list: `["v1", status, pay_order_no, order_type, pay_type, paid_at,
    channel_response]`. The status is ours (an unknown one is the gateway's word after "unknown:"), and "" stands for
    what is absent. paid_at is a success' pay_time in UTC as `YYYY-mm-ddTHH:MM:SSZ`, where it is written in one of the
    few formats that were read when the first digests were stored, else "". It is stored as a unique key: a release
    that changes it takes every repeated callback for a new claim.
    """
    paid_at = _read_pay_time(statement.pay_time, time_zone) if status is OrderStatus.SUCCEEDED else None
    fields = [
        "v1",
        f"unknown:{statement.pay_status}" if status is None else status.value,
        statement.pay_order_no,
        statement.order_type,
        statement.pay_type,
        "" if paid_at is None else f"{paid_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        statement.channel_response,
    ]
    return sha256(_JSON.encode(fields).encode()).hexdigest()


def _read_pay_time(text: str, time_zone: tzinfo) -> datetime | None:
    time = (
        datetime.fromtimestamp(int(text), tz=time_zone)
        if _UNIX_SECONDS.fullmatch(text)
        else _read_date(text, time_zone)
    )
    return time if time is not None and time.year in _YEARS else None


def _read_date(text: str, time_zone: tzinfo) -> datetime | None:
    match = _DATE_AND_TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (
        int(digits) for digits in match.group(*((1, 3, 4, 5, 6, 7) if match.group(1) else (8, 9, 10, 11, 12, 13)))
    )
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=time_zone)
    except ValueError:
        return None
