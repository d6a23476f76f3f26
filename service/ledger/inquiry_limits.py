"""Inquiry limits: how often the gateway may be asked, about one order and per minute, and when next.

A part of every limit is reserved for orders that are owed an answer. A flood of forged callbacks, which can only raise
doubts, therefore cannot use up their questions.

The rate per minute holds for all processes together. Each question moves a stored time on by one interval (60 s / most
per minute), and none may be asked while that time lies in the future. The time falls at most one burst behind the
present, so a quiet hour is not followed by a wave. It is never ahead of the clock that moved it, so a time that is far
ahead of ours was written by a clock that was wrong.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

from sqlalchemy import Connection, select, update

from service.ledger.bulk import insert_new
from service.ledger.tables import inquiry_rates
from service.runtime.backoff import exponential

#: The share of doubts for questions that are repeated, where there is not room for all. Without it, a flood of new
#: doubts would keep the gateway from being asked again after it has not answered.
REPEATED_SHARE = 0.1
#: How often the gateway is asked about an order that it does not have and about which there are only doubts.
MAX_NOT_FOUND = 5

# Spreads the repeats after an outage.
_JITTER = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryRules:
    """How often one merchant's gateway may be asked."""

    #: The minimum time between two questions about one order.
    min_interval_seconds: float
    #: The most questions about one order in a day (UTC).
    max_per_day: int
    #: The most questions about all orders, by all processes together.
    max_per_minute: float
    #: The share of both maxima that is reserved for orders that are owed an answer. Between 0 and 1.
    overdue_share: float
    #: Backoff while no answer settles an order: the first wait, which doubles up to the longest.
    first_repeat_seconds: float
    max_repeat_seconds: float

    @property
    def max_doubts_per_day(self) -> int:
        """The most doubts that are asked about one order in a day; at least one."""
        return max(1, int(self.max_per_day * (1 - self.overdue_share)))

    @property
    def max_doubts_per_minute(self) -> float:
        """The most doubts that are asked about all orders in a minute."""
        return self.max_per_minute * (1 - self.overdue_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class InquirySchedule:
    """How often the gateway was asked about one order, and when next. Times are aware; None is never."""

    due_at: datetime | None
    doubt_due_at: datetime | None
    #: The earliest time of the next question, and of the next doubt.
    not_before: datetime | None
    doubt_not_before: datetime | None
    attempts: int
    doubt_attempts: int
    #: The day (UTC, YYYY-MM-DD) of the two counts below.
    asked_day: str
    asked_today: int
    doubts_today: int

    def allowed_at(self, *, owed: bool, rules: InquiryRules, now: datetime) -> datetime:
        """When the next question may be asked: `now`, unless the day's questions are used up."""
        today = self._on(now)
        spent = today.asked_today >= rules.max_per_day
        if not owed:
            spent |= today.doubts_today >= rules.max_doubts_per_day
        return _next_day(now) if spent else now

    def asked(self, *, owed: bool, rules: InquiryRules, now: datetime, chance: float) -> "InquirySchedule":
        """The schedule once a question is asked at `now`: what comes next if its answer settles nothing.

        `chance` is 0 to below 1. The same question also answers whatever else was due.
        """
        today = self._on(now)
        asked_today = today.asked_today + 1
        doubts_today = today.doubts_today + (not owed)
        least = now + timedelta(seconds=rules.min_interval_seconds)
        not_before = least if asked_today < rules.max_per_day else max(least, _next_day(now))
        doubt_not_before = not_before if doubts_today < rules.max_doubts_per_day else max(least, _next_day(now))
        attempts = self.attempts + _is_due(self.due_at, now)
        doubt_attempts = self.doubt_attempts + _is_due(self.doubt_due_at, now)

        def postponed(due: datetime | None, attempt: int, earliest: datetime) -> datetime | None:
            if due is None:
                return None
            return max(now + _backoff(attempt, rules, chance) if due <= now else due, earliest)

        return InquirySchedule(
            due_at=postponed(self.due_at, attempts, not_before),
            doubt_due_at=postponed(self.doubt_due_at, doubt_attempts, doubt_not_before),
            not_before=not_before,
            doubt_not_before=doubt_not_before,
            attempts=attempts,
            doubt_attempts=doubt_attempts,
            asked_day=today.asked_day,
            asked_today=asked_today,
            doubts_today=doubts_today,
        )

    def _on(self, now: datetime) -> "InquirySchedule":
        day = now.astimezone(UTC).date().isoformat()
        return self if self.asked_day == day else replace(self, asked_day=day, asked_today=0, doubts_today=0)


def split(*, room: int, first: int, others: int, others_share: float, chance: float) -> tuple[int, int]:
    """How many of the `first` and of the `others` are asked where there is room for `room` questions.

    Where there is not room for all, the others get at most their share of it, rounded by `chance` (0 to below 1).
    """
    reserved = min(others, int(room * others_share + chance))
    asked_first = min(first, room - reserved)
    return asked_first, min(others, room - asked_first)


def pause_after_not_found(times: int, *, rules: InquiryRules, chance: float) -> timedelta:
    """How long to wait with doubts about an order that the gateway has said `times` times it does not have.

    Each wait is eight times the last, so that few questions cover a long time: the gateway is still asked after it
    learned of an order late, or could not find its orders for an hour.
    """
    return _backoff(3 * times - 2, rules, chance)


def _is_due(due: datetime | None, now: datetime) -> bool:
    return due is not None and due <= now


def _next_day(now: datetime) -> datetime:
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), tzinfo=UTC)


def _backoff(attempt: int, rules: InquiryRules, chance: float) -> timedelta:
    wait = exponential(
        attempt,
        first_seconds=rules.first_repeat_seconds,
        max_seconds=rules.max_repeat_seconds,
        jitter=_JITTER,
        random=chance,
    )
    return timedelta(seconds=wait)


# Enough for processes that look at intervals.
_BURST = timedelta(seconds=1)
# A time further ahead was written by a wrong clock. If it were believed, nothing would be asked until then.
_MAX_AHEAD = timedelta(minutes=1)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How far a merchant's rate is used: the time up to which the questions asked so far fill it."""

    used_until: datetime
    doubts_used_until: datetime

    def free(self, rules: InquiryRules, now: datetime) -> int:
        """How many questions may be asked now."""
        return _free(self.used_until, rules.max_per_minute, now)

    def free_doubts(self, rules: InquiryRules, now: datetime) -> int:
        """How many doubts may be asked now."""
        return _free(self.doubts_used_until, rules.max_doubts_per_minute, now)

    def used(self, rules: InquiryRules, now: datetime, *, questions: int, doubts: int) -> "Rate":
        """The rate after `questions` are asked at `now`, of which `doubts` are doubts."""
        return Rate(
            used_until=_used(self.used_until, rules.max_per_minute, now, questions),
            doubts_used_until=_used(self.doubts_used_until, rules.max_doubts_per_minute, now, doubts),
        )


def lock_rate(connection: Connection, merchant: str) -> Rate:
    """The merchant's rate, locked until the transaction ends: nobody else can lease its inquiries until then."""
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
    if used_until > now + _MAX_AHEAD:
        return now - _interval(per_minute)
    return max(used_until, now - max(_BURST, _interval(per_minute)))


def _free(used_until: datetime, per_minute: float, now: datetime) -> int:
    return max(0, (now - _start(used_until, per_minute, now)) // _interval(per_minute))


def _used(used_until: datetime, per_minute: float, now: datetime, questions: int) -> datetime:
    return _start(used_until, per_minute, now) + questions * _interval(per_minute)
