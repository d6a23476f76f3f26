"""Pace: how often, and when next, the gateway may be asked about one order. No I/O, no clock.

Every limit has a part that reasons which anyone can give may not take, so a flood of forged callbacks leaves orders
that are overdue their questions. A question for such reasons is called a doubt here.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

from service.ledger.rules import InquiryRules
from service.runtime.backoff import exponential

#: The share of the doubts that is left to those which only repeat a question, where there is not room for all: else a
#: flood of new ones would keep the gateway from being asked again whenever it has not answered.
REPEATED_SHARE = 0.1
#: So often the gateway is asked about an order of which only strangers speak, and which it does not know.
MOST_NOT_FOUND = 5

# So that a repeat after an outage does not come as one wave.
_JITTER = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPace:
    """How often one order was asked about, and when it is next. Times are aware; None is never."""

    due_at: datetime | None
    doubt_due_at: datetime | None
    #: The earliest time of the next question, and of the next doubt.
    not_before: datetime | None
    doubt_not_before: datetime | None
    attempts: int
    doubt_attempts: int
    #: The day (UTC, YYYY-MM-DD) of the two counts that follow.
    asked_day: str
    asked_today: int
    doubts_today: int

    def allowed_at(self, *, owed: bool, rules: InquiryRules, now: datetime) -> datetime:
        """When the next question may be asked: `now`, unless the day's are used up."""
        today = self._on(now)
        spent = today.asked_today >= rules.most_per_day
        if not owed:
            spent |= today.doubts_today >= rules.most_doubts_per_day
        return _next_day(now) if spent else now

    def asked(self, *, owed: bool, rules: InquiryRules, now: datetime, chance: float) -> "OrderPace":
        """The pace once a question is asked at `now`, and what comes next if its answer settles nothing.

        `chance` is 0 to below 1. What else was due is answered by the same question.
        """
        today = self._on(now)
        asked_today = today.asked_today + 1
        doubts_today = today.doubts_today + (not owed)
        least = now + timedelta(seconds=rules.least_interval_seconds)
        not_before = least if asked_today < rules.most_per_day else max(least, _next_day(now))
        doubt_not_before = not_before if doubts_today < rules.most_doubts_per_day else max(least, _next_day(now))
        attempts = self.attempts + _is_due(self.due_at, now)
        doubt_attempts = self.doubt_attempts + _is_due(self.doubt_due_at, now)

        def put_off(due: datetime | None, attempt: int, floor: datetime) -> datetime | None:
            if due is None:
                return None
            return max(now + _backoff(attempt, rules, chance) if due <= now else due, floor)

        return OrderPace(
            due_at=put_off(self.due_at, attempts, not_before),
            doubt_due_at=put_off(self.doubt_due_at, doubt_attempts, doubt_not_before),
            not_before=not_before,
            doubt_not_before=doubt_not_before,
            attempts=attempts,
            doubt_attempts=doubt_attempts,
            asked_day=today.asked_day,
            asked_today=asked_today,
            doubts_today=doubts_today,
        )

    def _on(self, now: datetime) -> "OrderPace":
        day = now.astimezone(UTC).date().isoformat()
        return self if self.asked_day == day else replace(self, asked_day=day, asked_today=0, doubts_today=0)


def split(*, room: int, first: int, others: int, others_share: float, chance: float) -> tuple[int, int]:
    """How `room` for questions is shared by as many that come first and as many others: how many of each are asked.

    Where there is not room for all, the others get at most their share of it, rounded by `chance` (0 to below 1).
    """
    reserved = min(others, int(room * others_share + chance))
    asked_first = min(first, room - reserved)
    return asked_first, min(others, room - asked_first)


def pause_after_not_found(times: int, *, rules: InquiryRules, chance: float) -> timedelta:
    """How long an order of which only strangers speak is left alone once the gateway has said `times` that it has none.

    Eight times as long after each, so that few questions reach far: a gateway that learns of an order late, or has
    lost its memory for an hour, is asked once more after that.
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
        most_seconds=rules.most_repeat_seconds,
        jitter=_JITTER,
        random=chance,
    )
    return timedelta(seconds=wait)
