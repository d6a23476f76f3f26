"""Which refusals end an order, and when the gateway has answered "not found" often enough."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.refused_withholds import RefusalRule, RefusalRules, claim_from_rule
from tests.support.claims import NOON

RULES = RefusalRules(messages=["余额不足"], not_found_times=8, not_found_hours=24, max_per_hour=20)


def is_absent(hours: Sequence[float]) -> bool:
    return RULES.is_absent(refused_at=NOON, not_found_at=[NOON + timedelta(hours=hour) for hour in hours])


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        ("余额不足", RefusalRule.MESSAGE),
        ("余额不足。", RefusalRule.NOT_FOUND),
        ("余额", RefusalRule.NOT_FOUND),
        ("", RefusalRule.NOT_FOUND),
    ],
)
def test_only_a_whole_message_is_the_message_of_a_rule(message: str, rule: RefusalRule) -> None:
    assert RULES.choose(message) is rule
    without = replace(RULES, not_found_times=None)
    assert without.choose(message) is (rule if rule is RefusalRule.MESSAGE else None)


@pytest.mark.parametrize(
    ("hours", "absent"),
    [
        ([3, 6, 9, 12, 15, 18, 21, 24], True),
        ([3, 6, 9, 12, 15, 18, 21, 23.9], False),
        ([3, 6, 9, 12, 15, 18, 21], False),
        # The first comes too soon after the refusal, and a burst counts once.
        ([0, 6, 9, 12, 15, 18, 21, 24], False),
        ([3, 3.1, 3.2, 6, 9, 12, 15, 18, 21], False),
        ([24, 24.1, 24.2, 24.3, 24.4, 24.5, 24.6, 24.7], False),
        # Sooner ones between them do no harm, and their sequence does not matter.
        ([24, 0.1, 3, 6, 7, 9, 10, 12, 15, 18, 21], True),
        # Asked before the refusal.
        ([-9, -6, -3, 3, 6, 9, 12, 15], False),
    ],
)
def test_the_answers_that_count_are_spread_over_all_the_hours(hours: list[float], absent: bool) -> None:
    assert is_absent(hours) is absent


@given(st.lists(st.floats(-30, 80), max_size=60))
def test_an_order_is_never_taken_for_absent_sooner_or_by_fewer_answers(hours: list[float]) -> None:
    if is_absent(hours):
        assert len([hour for hour in hours if hour > 0]) >= 8
        assert max(hours) >= 24


def test_without_a_number_of_answers_no_order_is_absent() -> None:
    rules = replace(RULES, not_found_times=None)
    assert not rules.is_absent(refused_at=NOON, not_found_at=[NOON + timedelta(hours=4 * n) for n in range(40)])


@pytest.mark.parametrize("rule", RefusalRule)
def test_a_rules_claim_names_the_rule_and_says_why(rule: RefusalRule) -> None:
    claim = claim_from_rule(OrderKey("acme", "DK1"), rule, reason=RULES.explain(rule), stated_at=NOON)
    assert (claim.status, claim.trust, claim.stated_by) == (OrderStatus.FAILED, Trust.RULE, rule)
    assert "refused the withhold" in claim.reason
