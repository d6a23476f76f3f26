"""The limits on questions about one order."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.inquiry_limits import MAX_NOT_FOUND, InquiryRules, InquirySchedule, pause_after_not_found, split

EVENING = datetime(2026, 1, 5, 23, 0, tzinfo=UTC)
RULES = InquiryRules(
    min_interval_seconds=60,
    max_per_day=10,
    max_per_minute=60,
    overdue_share=0.5,
    first_repeat_seconds=5,
    max_repeat_seconds=7200,
)
FRESH = InquirySchedule(
    due_at=EVENING,
    doubt_due_at=None,
    not_before=None,
    doubt_not_before=None,
    attempts=0,
    doubt_attempts=0,
    asked_day="",
    asked_today=0,
    doubts_today=0,
)
DOUBTED = replace(FRESH, due_at=None, doubt_due_at=EVENING)


def ask_until_spent(pace: InquirySchedule, *, owed: bool, now: datetime = EVENING) -> tuple[InquirySchedule, int]:
    asked = 0
    while pace.allowed_at(owed=owed, rules=RULES, now=now) <= now:
        pace = pace.asked(owed=owed, rules=RULES, now=now, chance=0.0)
        asked += 1
    return pace, asked


def test_a_day_allows_as_many_questions_as_its_most() -> None:
    spent, asked = ask_until_spent(FRESH, owed=True)
    assert asked == RULES.max_per_day
    assert spent.allowed_at(owed=True, rules=RULES, now=EVENING) == datetime(2026, 1, 6, tzinfo=UTC)


def test_anyones_reasons_take_their_share_of_the_day_and_no_more() -> None:
    spent, asked = ask_until_spent(DOUBTED, owed=False)
    assert asked == 5
    _, left = ask_until_spent(spent, owed=True)
    assert left == 5


def test_the_next_day_in_utc_counts_anew() -> None:
    spent, _ = ask_until_spent(FRESH, owed=True)
    next_day = EVENING + timedelta(hours=1)
    assert spent.allowed_at(owed=True, rules=RULES, now=next_day) == next_day
    assert spent.asked(owed=True, rules=RULES, now=next_day, chance=0.0).asked_today == 1


def test_when_the_day_is_spent_the_next_question_is_due_the_next_day() -> None:
    spent, _ = ask_until_spent(FRESH, owed=True)
    assert spent.due_at is not None
    assert spent.due_at >= datetime(2026, 1, 6, tzinfo=UTC)
    assert spent.not_before == datetime(2026, 1, 6, tzinfo=UTC)


def test_a_question_puts_off_what_is_due_to_the_least_interval_at_least() -> None:
    asked = FRESH.asked(owed=True, rules=RULES, now=EVENING, chance=0.0)
    assert asked.due_at == asked.not_before == EVENING + timedelta(seconds=60)


def test_one_question_answers_whatever_was_due() -> None:
    both = replace(FRESH, doubt_due_at=EVENING - timedelta(seconds=1))
    asked = both.asked(owed=True, rules=RULES, now=EVENING, chance=0.0)
    assert (asked.attempts, asked.doubt_attempts) == (1, 1)
    assert asked.doubt_due_at == EVENING + timedelta(seconds=60)
    assert (asked.asked_today, asked.doubts_today) == (1, 0)


def test_a_doubt_leaves_the_time_at_which_the_order_is_overdue() -> None:
    overdue_at = EVENING + timedelta(minutes=30)
    both = replace(DOUBTED, due_at=overdue_at)
    asked = both.asked(owed=False, rules=RULES, now=EVENING, chance=0.0)
    assert asked.due_at == overdue_at
    assert asked.attempts == 0


@given(
    gaps=st.lists(st.floats(min_value=0, max_value=40_000), min_size=1, max_size=60),
    owed=st.lists(st.booleans(), min_size=60, max_size=60),
    chance=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_no_sequence_of_questions_breaks_a_limit(gaps: list[float], owed: list[bool], chance: float) -> None:
    pace, now, asked = FRESH, EVENING, list[tuple[datetime, bool]]()
    for gap, is_owed in zip(gaps, owed, strict=False):
        now += timedelta(seconds=gap)
        floor = pace.not_before if is_owed else pace.doubt_not_before
        if floor is not None and now < floor:
            continue
        assert pace.allowed_at(owed=is_owed, rules=RULES, now=now) == now, "the floor holds the daily most as well"
        pace = pace.asked(owed=is_owed, rules=RULES, now=now, chance=chance)
        asked.append((now, is_owed))
    for day in {at.date() for at, _ in asked}:
        of_day = [is_owed for at, is_owed in asked if at.date() == day]
        assert len(of_day) <= RULES.max_per_day
        assert of_day.count(False) <= RULES.max_doubts_per_day


@pytest.mark.parametrize(
    ("room", "owed", "doubts", "expected"),
    [
        (10, 10, 10, (5, 5)),
        (10, 2, 10, (2, 8)),
        (10, 10, 2, (8, 2)),
        (10, 0, 4, (0, 4)),
        (0, 5, 5, (0, 0)),
    ],
)
def test_room_is_shared_and_none_is_left_unused(room: int, owed: int, doubts: int, expected: tuple[int, int]) -> None:
    assert split(room=room, first=owed, others=doubts, others_share=0.5, chance=0.0) == expected


def test_a_single_free_place_goes_to_either_by_chance() -> None:
    assert split(room=1, first=1, others=1, others_share=0.5, chance=0.4) == (1, 0)
    assert split(room=1, first=1, others=1, others_share=0.5, chance=0.6) == (0, 1)


def test_an_order_that_was_not_found_is_left_alone_eight_times_as_long_each_time() -> None:
    pauses = [pause_after_not_found(times, rules=RULES, chance=0.0) for times in range(1, MAX_NOT_FOUND)]
    assert [pause.total_seconds() for pause in pauses] == [5, 40, 320, 2560]
