"""Turns the gateway's statements about orders into claims. Only this file and the sandbox know the gateway's words.

Nothing the document leaves open, such as the time format or an unknown status, makes us miss a payment: a callback is
refused only if its order is unknown, and a claim that we do not understand waits for a person.
"""

import json
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import partial
from hashlib import sha256
from zoneinfo import ZoneInfo

from service.config.settings import MerchantSettings
from service.domain.claims import Claim, ClaimSource, OrderStatus, Trust
from service.domain.masking import mask_unknown_word
from service.domain.money import Money, read_money
from service.gateway.errors import CallbackRefused, MessageInvalid, Refusal
from service.gateway.messages import CALLBACK, OrderStatement
from service.gateway.signature import VerifiedCallback
from service.runtime.logs import Logger

_log = Logger(__name__)
#: The gateway's `pay_status` (document: 3, 4, 5). `wait_pay` is documented for queries only, and accepted anywhere.
STATUSES = {
    "success": OrderStatus.SUCCEEDED,
    "fail": OrderStatus.FAILED,
    "initial": OrderStatus.INITIAL,
    "pending": OrderStatus.PROCESSING,
    "wait_pay": OrderStatus.PROCESSING,
}
#: The gateway's `order_type`s (document: 5). Answers to queries have none.
ORDER_TYPES = frozenset({"single_withhold"})
_LONGEST_QUOTE = 40


def claim_from_callback(
    verified: VerifiedCallback,
    *,
    merchant: MerchantSettings,
    trust: Trust,
    received_at: datetime,
    traceparent: str | None,
) -> Claim:
    """The claim in a callback that was received at `received_at` (aware).

    Raises `CallbackRefused` if a required field is missing or invalid.
    """
    try:
        statement = CALLBACK.read(verified.fields)
    except MessageInvalid as error:
        absent = any(problem.field not in verified.fields for problem in error.problems)
        raise CallbackRefused(Refusal.MISSING_FIELD if absent else Refusal.INVALID_FIELD, str(error)) from error
    return _make_claim(statement, merchant, trust, ClaimSource.CALLBACK, received_at, traceparent)


def claim_from_query(statement: OrderStatement, *, merchant: MerchantSettings, asked_at: datetime) -> Claim:
    """The claim in the answer to a query that was sent at `asked_at` (aware)."""
    return _make_claim(statement, merchant, Trust.QUERIED, ClaimSource.QUERY, asked_at, traceparent=None)


def _make_claim(
    statement: OrderStatement,
    merchant: MerchantSettings,
    trust: Trust,
    source: ClaimSource,
    stated_at: datetime,
    traceparent: str | None,
) -> Claim:
    time_zone = ZoneInfo(merchant.time_zone)  # cached
    status = STATUSES.get(statement.pay_status)
    paid_at = None
    if status is OrderStatus.SUCCEEDED and statement.pay_time:
        # With any other status, no money has moved.
        paid_at = read_pay_time(statement.pay_time, time_zone)
        if paid_at is None:
            _log.warning("pay_time_not_understood", merchant=merchant.slug, characters=len(statement.pay_time))
    digest = partial(digest_statement, statement, status=status, time_zone=time_zone)
    stated_amount = statement.unknown_fields.get(merchant.amount_field.name, "") if merchant.amount_field else ""
    return Claim(
        merchant=merchant.slug,
        biz_order_no=statement.biz_order_no,
        trust=trust,
        source=source,
        status=status,
        pay_order_no=statement.pay_order_no or None,
        order_type=statement.order_type,
        pay_type=statement.pay_type,
        amount=_read_amount(stated_amount, merchant),
        paid_at=paid_at,
        channel_response=statement.channel_response,
        stated_at=stated_at,
        digest=digest(amount=stated_amount),
        digest_without_amount=digest() if stated_amount else None,
        quarantine=_find_quarantine(statement, status, merchant.pay_types, from_stranger=trust is Trust.CHECKSUM),
        unknown_fields=statement.unknown_fields,
        missing_fields=statement.missing_fields,
        traceparent=traceparent,
    )


def _read_amount(text: str, merchant: MerchantSettings) -> Money | None:
    if not text or merchant.amount_field is None:
        return None
    amount = read_money(text, merchant.amount_field.unit)
    if amount is None:
        _log.warning("amount_not_understood", merchant=merchant.slug, characters=len(text))
    return amount and amount.to(merchant.amount_unit)


def _find_quarantine(
    statement: OrderStatement, status: OrderStatus | None, pay_types: Collection[str], *, from_stranger: bool
) -> str | None:
    # Masked here, because it goes into logs, reports and tables.
    def quote(value: str) -> str:
        shown = mask_unknown_word(value, from_stranger=from_stranger)
        return repr(shown if len(shown) <= _LONGEST_QUOTE else f"{shown[:_LONGEST_QUOTE]}…")

    reasons = []
    if status is None:
        reasons.append(f"unknown pay_status {quote(statement.pay_status)}")
    if statement.order_type and statement.order_type not in ORDER_TYPES:
        reasons.append(f"unknown order_type {quote(statement.order_type)}")
    if statement.pay_type and statement.pay_type not in pay_types:
        reasons.append(f"pay_type {quote(statement.pay_type)} is not this merchant's")
    return "; ".join(reasons) or None


# A year outside this range comes from a wrong clock or another format.
_PAY_YEARS = range(2000, 2100)
_MARKED_DATE = r"(?P<year>[0-9]{4})(?P<mark>[-/.])(?P<month>[0-9]{1,2})(?P=mark)(?P<day>[0-9]{1,2})"
_CHINESE_DATE = r"(?P<year>[0-9]{4})年(?P<month>[0-9]{1,2})月(?P<day>[0-9]{1,2})日"
_COMPACT_DATE = r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})"
_MARKED_TIME = (
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2})(?::(?P<second>[0-9]{1,2})(?P<fraction>[.,][0-9]{1,9}|:[0-9]{3})?)?"
)
_CHINESE_TIME = r"(?P<hour>[0-9]{1,2})[时時点點](?P<minute>[0-9]{1,2})分(?:(?P<second>[0-9]{1,2})秒)?"
_COMPACT_TIME = (
    r"(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})(?P<second>[0-9]{2})(?P<fraction>[.,][0-9]{1,9}|[0-9]{3}|[0-9]{6})?"
)
# Java writes a zone's name after its offset.
_OFFSET = r"(?: ?(?P<offset>[Zz]|UTC|GMT|(?:UTC|GMT)?[+-](?:[0-9]{2}(?::?[0-5][0-9])?|[0-9]))(?:\[[A-Za-z_/+-]+\])?)?"
_FORMATS = tuple(
    re.compile(written + _OFFSET)
    for written in (
        f"{_MARKED_DATE}[ Tt]{_MARKED_TIME}",
        f"{_CHINESE_DATE} ?(?:{_CHINESE_TIME})",
        f"{_CHINESE_DATE} ?(?:{_MARKED_TIME})",
        f"{_COMPACT_DATE}[ T]?{_COMPACT_TIME}",
        f"{_COMPACT_DATE}[ T]{_MARKED_TIME}",
        # Twelve digits may be either of these; mostly only one of them gives a valid month and year.
        r"(?P<year>[0-9]{2})(?P<month>[0-9]{2})(?P<day>[0-9]{2})(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})(?P<second>[0-9]{2})",
        r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})",
    )
)
# Seconds, milliseconds, microseconds or nanoseconds, all with or without a fraction.
_UNIX = re.compile(r"(?P<seconds>[0-9]{10})(?P<fraction>(?:[0-9]{3}|[0-9]{6}|[0-9]{9})?(?:[.,][0-9]{1,9})?)")
# The same as Java writes a double, into which Gson turns the numbers of a map.
_DOUBLE = re.compile(r"[0-9]\.[0-9]{1,18}E(?:9|1[0-8])")
_LONGEST = 64


def read_pay_time(text: str, time_zone: tzinfo) -> datetime | None:
    """The gateway's `pay_time` in `time_zone`, to the microsecond; None if the format is unknown or ambiguous.

    The document names no format, and gateways write many. Read are a date and a time of day with separators
    (`2019-07-01 12:00:05`, `2019/7/1 9:05:05`, `2019.07.01T12:00`), without (`20190701120005`, `190701120005`) and in
    Chinese, each with or without a fraction, and unix time in seconds to nanoseconds, also as a double. A time without
    an offset from UTC is in `time_zone`.
    """
    written = text.strip()
    if len(written) > _LONGEST:
        return None
    if _DOUBLE.fullmatch(written):
        written = f"{Decimal(written):f}"
    times = {time for time in _readings(written, time_zone) if time.year in _PAY_YEARS}
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
    digits = re.sub("[.,:]", "", fraction or "")
    return int(digits.ljust(6, "0")[:6])


def _read_offset(text: str) -> tzinfo:
    """Raises ValueError for one of a day or more."""
    digits = text.upper().removeprefix("UTC").removeprefix("GMT").removeprefix("Z").replace(":", "")
    if not digits:
        return UTC
    minutes = 60 * int(digits[1:3]) + int(digits[3:] or 0)
    return timezone(timedelta(minutes=-minutes if digits[0] == "-" else minutes))


# The formats that were read when the first digests were stored. To read more of them here would change digests.
_DATE_AND_TIME = re.compile(
    r"([0-9]{4})([-/])([0-9]{1,2})\2([0-9]{1,2})[ T]([0-9]{1,2}):([0-9]{2}):([0-9]{2})"
    r"|([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})"
)
_UNIX_SECONDS = re.compile(r"[0-9]{10}")
_DIGESTED_YEARS = range(2000, 2100)
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def digest_statement(
    statement: OrderStatement, *, status: OrderStatus | None, time_zone: tzinfo, amount: str = ""
) -> str:
    """sha256, lower-case hex, of a statement's content. Statements with the same content have the same digest.

    The digest is stored as a unique key. Its bytes must never change: a changed digest would make every repeated
    callback a new claim. Hashed is the UTF-8 of one compact JSON list: `["v1", status, pay_order_no, order_type,
    pay_type, paid_at, channel_response]`. The status is ours; an unknown one is "unknown:" and the gateway's value. ""
    stands for an absent value. paid_at is the pay_time of a success in UTC as `YYYY-mm-ddTHH:MM:SSZ`; it is "" unless
    the pay_time has one of the formats that were read when the first digests were stored. `amount` is what the
    merchant's amount field states, as it was sent, whether or not it can be read; where it is not "", the list begins
    with "v2" and ends with it.
    """
    paid_at = _read_digested_time(statement.pay_time, time_zone) if status is OrderStatus.SUCCEEDED else None
    fields = [
        "v2" if amount else "v1",
        f"unknown:{statement.pay_status}" if status is None else status.value,
        statement.pay_order_no,
        statement.order_type,
        statement.pay_type,
        "" if paid_at is None else f"{paid_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        statement.channel_response,
    ]
    if amount:
        fields.append(amount)
    return sha256(_JSON.encode(fields).encode()).hexdigest()


def _read_digested_time(text: str, time_zone: tzinfo) -> datetime | None:
    time = (
        datetime.fromtimestamp(int(text), tz=time_zone)
        if _UNIX_SECONDS.fullmatch(text)
        else _read_digested_date(text, time_zone)
    )
    return time if time is not None and time.year in _DIGESTED_YEARS else None


def _read_digested_date(text: str, time_zone: tzinfo) -> datetime | None:
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
