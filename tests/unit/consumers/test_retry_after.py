"""The Retry-After header in both of its forms."""

from datetime import UTC, datetime

import pytest

from consumers.sinks.retry_after import parse_retry_after

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90),
        ("Sun, 01 Mar 2026 20:01:30 +0800", 90),
        ("Sun Mar  1 12:01:30 2026", 90),
        ("Sunday, 01-Mar-26 12:01:30 GMT", 90),
    ],
)
def test_seconds_and_dates_say_how_long_to_wait(value: str, seconds: float) -> None:
    assert parse_retry_after(value, now=NOW) == seconds


def test_a_date_in_the_past_means_no_wait() -> None:
    assert parse_retry_after("Sun, 01 Mar 2026 11:00:00 GMT", now=NOW) == 0


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "-5",
        "1.5",
        "１２",
        "9" * 400,
        "Sun, 99 Mar 2026 12:00:00 GMT",
        f"Sun, 01 Mar {10**20} 12:00:00 GMT",
    ],
)
def test_what_cannot_be_read_counts_as_absent(value: str | None) -> None:
    assert parse_retry_after(value, now=NOW) is None
