"""A merchant's rate of questions: it is never exceeded and does not accumulate."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.ledger.inquiry_limits import InquiryRules, Rate

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
UNUSED = Rate(used_until=NOON - timedelta(days=1), doubts_used_until=NOON - timedelta(days=1))


def rules(per_minute: float, share: float = 0.5) -> InquiryRules:
    return InquiryRules(
        min_interval_seconds=1,
        max_per_day=10,
        max_per_minute=per_minute,
        overdue_share=share,
        first_repeat_seconds=1,
        max_repeat_seconds=1,
    )


def test_a_quiet_day_saves_up_no_more_than_a_second() -> None:
    assert UNUSED.free(rules(1200), NOON) == 20
    assert UNUSED.free_doubts(rules(1200), NOON) == 10


def test_a_slow_rate_still_allows_one_question_at_once() -> None:
    slow = rules(2)
    assert UNUSED.free(slow, NOON) == 1
    used = UNUSED.used(slow, NOON, questions=1, doubts=0)
    assert used.free(slow, NOON + timedelta(seconds=29)) == 0
    assert used.free(slow, NOON + timedelta(seconds=30)) == 1


def test_what_is_used_up_comes_back_with_time() -> None:
    used = UNUSED.used(rules(60), NOON, questions=1, doubts=1)
    assert used.free(rules(60), NOON) == 0
    assert used.free(rules(60), NOON + timedelta(seconds=1)) == 1
    assert used.free_doubts(rules(60), NOON + timedelta(seconds=1)) == 0


def test_a_clock_that_is_behind_gets_nothing_until_it_has_caught_up() -> None:
    used = UNUSED.used(rules(600), NOON, questions=10, doubts=0)
    assert used.free(rules(600), NOON - timedelta(seconds=30)) == 0


def test_a_clock_that_was_far_ahead_does_not_silence_the_others_until_its_date() -> None:
    used = UNUSED.used(rules(600), NOON + timedelta(days=1), questions=10, doubts=10)
    assert (used.free(rules(600), NOON), used.free_doubts(rules(600), NOON)) == (1, 1)
    again = used.used(rules(600), NOON, questions=1, doubts=1)
    assert again.free(rules(600), NOON) == 0
    assert again.free(rules(600), NOON + timedelta(seconds=1)) == 10


@given(
    per_minute=st.floats(min_value=1, max_value=6000),
    gaps=st.lists(st.floats(min_value=0, max_value=20), min_size=1, max_size=80),
    wanted=st.lists(st.integers(min_value=0, max_value=50), min_size=80, max_size=80),
)
def test_no_way_of_asking_exceeds_the_rate(per_minute: float, gaps: list[float], wanted: list[int]) -> None:
    limits, rate, now = rules(per_minute), UNUSED, NOON
    asked = doubts = 0
    for gap, want in zip(gaps, wanted, strict=False):
        now += timedelta(seconds=gap)
        fresh_doubts = min(want, rate.free_doubts(limits, now), rate.free(limits, now))
        fresh = min(want, rate.free(limits, now))
        rate = rate.used(limits, now, questions=fresh, doubts=fresh_doubts)
        asked += fresh
        doubts += fresh_doubts
    seconds = (now - NOON).total_seconds()
    burst = max(1.0, 60 / per_minute)
    assert asked <= (seconds + burst) * per_minute / 60 + 0.01
    assert doubts <= (seconds + max(1.0, 120 / per_minute)) * per_minute / 120 + 0.01
