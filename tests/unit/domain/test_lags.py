"""Percentiles of a histogram of lags."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.domain.lags import LAG_BOUNDS_SECONDS, estimate_percentile


def bucket_of(seconds: float) -> float:
    return next((bound for bound in LAG_BOUNDS_SECONDS if seconds <= bound), math.inf)


@given(
    st.lists(st.floats(0.0, 200_000.0), min_size=1, max_size=50),
    st.sampled_from([0.01, 0.5, 0.99, 1.0]),
)
def test_an_estimate_is_in_the_bucket_of_the_true_percentile(lags: list[float], share: float) -> None:
    true = sorted(lags)[math.ceil(share * len(lags)) - 1]
    estimate = estimate_percentile(Counter(map(bucket_of, lags)), share)
    assert estimate is not None
    upper = min(bucket_of(true), LAG_BOUNDS_SECONDS[-1])
    lower = max((bound for bound in (0, *LAG_BOUNDS_SECONDS) if bound < true), default=0)
    assert lower <= estimate <= upper


def test_orders_are_taken_to_be_spread_evenly_within_their_bucket() -> None:
    assert estimate_percentile({300: 4}, 0.5) == 210
    assert estimate_percentile({300: 4, 600: 4}, 0.75) == 450


def test_no_orders_have_no_percentile() -> None:
    assert estimate_percentile({}, 0.5) is None
    assert estimate_percentile({5: 0}, 0.5) is None
