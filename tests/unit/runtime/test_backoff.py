"""How waits grow, and that they stay within their bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.runtime.backoff import exponential


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 5), (2, 10), (3, 20), (4, 30), (10_000, 30)])
def test_the_wait_doubles_up_to_its_most(attempt: int, seconds: float) -> None:
    assert exponential(attempt, first_seconds=5, max_seconds=30, jitter=0.5, random=0) == seconds


@given(
    attempt=st.integers(min_value=0, max_value=10**6),
    jitter=st.floats(min_value=0, max_value=1),
    random=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_chance_only_shortens_the_wait_and_by_no_more_than_the_jitter(
    attempt: int, jitter: float, random: float
) -> None:
    whole = exponential(attempt, first_seconds=2, max_seconds=600, jitter=0, random=random)
    wait = exponential(attempt, first_seconds=2, max_seconds=600, jitter=jitter, random=random)
    assert whole * (1 - jitter) <= wait <= whole <= 600
