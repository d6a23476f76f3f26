"""Rates: how many questions one merchant's gateway is asked, by all processes together.

Each question moves a time on by one interval (60 s / most per minute), and none may be asked while it lies ahead. It
falls no further behind the present than one burst: what was not asked in a quiet hour is not asked in a wave. It never
lies ahead of the clock that moved it; one that lies far ahead of ours was moved by a clock that was wrong.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select, update

from service.ledger.inserts import insert_new
from service.ledger.rules import InquiryRules
from service.ledger.tables import inquiry_rates

# Enough for whoever looks once in a while.
_BURST = timedelta(seconds=1)
# More, and the clock was wrong. Were it believed, a date that is right again would silence all until the wrong one.
_MOST_AHEAD = timedelta(minutes=1)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How far a merchant's rate is used up: the time up to which the questions asked so far fill it."""

    used_until: datetime
    doubts_used_until: datetime

    def free(self, rules: InquiryRules, now: datetime) -> int:
        """How many questions may be asked now."""
        return _free(self.used_until, rules.most_per_minute, now)

    def free_doubts(self, rules: InquiryRules, now: datetime) -> int:
        """How many of them may be doubts."""
        return _free(self.doubts_used_until, rules.most_doubts_per_minute, now)

    def used(self, rules: InquiryRules, now: datetime, *, questions: int, doubts: int) -> "Rate":
        """The rate once `questions` are asked at `now`, `doubts` among them."""
        return Rate(
            used_until=_used(self.used_until, rules.most_per_minute, now, questions),
            doubts_used_until=_used(self.doubts_used_until, rules.most_doubts_per_minute, now, doubts),
        )


def lock_rate(connection: Connection, merchant: str) -> Rate:
    """The merchant's rate, locked until the transaction ends: until then nobody else can claim for this merchant."""
    unused = {"merchant": merchant, "used_until": _LONG_AGO, "doubts_used_until": _LONG_AGO}
    own = select(inquiry_rates).where(inquiry_rates.c.merchant == merchant).with_for_update()
    row = connection.execute(own).one_or_none()
    if row is None:
        insert_new(connection, inquiry_rates, [unused])
        row = connection.execute(own).one()
    return Rate(used_until=row.used_until, doubts_used_until=row.doubts_used_until)


def save_rate(connection: Connection, merchant: str, rate: Rate) -> None:
    """Write a rate that was locked before."""
    own = update(inquiry_rates).where(inquiry_rates.c.merchant == merchant)
    connection.execute(own.values(used_until=rate.used_until, doubts_used_until=rate.doubts_used_until))


def _interval(per_minute: float) -> timedelta:
    return timedelta(minutes=1) / per_minute


def _start(used_until: datetime, per_minute: float, now: datetime) -> datetime:
    if used_until > now + _MOST_AHEAD:
        return now - _interval(per_minute)
    return max(used_until, now - max(_BURST, _interval(per_minute)))


def _free(used_until: datetime, per_minute: float, now: datetime) -> int:
    return max(0, (now - _start(used_until, per_minute, now)) // _interval(per_minute))


def _used(used_until: datetime, per_minute: float, now: datetime, questions: int) -> datetime:
    return _start(used_until, per_minute, now) + questions * _interval(per_minute)
