"""The order state machine: its rules one by one, and its properties over all orders of arrival."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.claims import Claim, ClaimSource, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import OrderState, Transition, Verdict, decide

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
TRUSTS = [Trust.CHECKSUM, Trust.CAPABILITY, Trust.QUERIED]
TERMINAL = [OrderStatus.SUCCEEDED, OrderStatus.FAILED]


def a_claim(
    status: OrderStatus | None,
    trust: Trust = Trust.CAPABILITY,
    minute: int = 0,
    pay_order_no: str | None = "P1",
    quarantine: str | None = None,
) -> Claim:
    source = {Trust.QUERIED: ClaimSource.QUERY, Trust.OPERATOR: ClaimSource.OPERATOR}.get(trust, ClaimSource.CALLBACK)
    return Claim(
        merchant="acme",
        biz_order_no="DK1",
        trust=trust,
        source=source,
        status=status,
        pay_order_no=pay_order_no,
        stated_at=NOON + timedelta(minutes=minute),
        digest=f"{status}/{trust}/{minute}/{pay_order_no}",
        quarantine=quarantine,
    )


def told(*claims: Claim, required: Trust = Trust.CAPABILITY) -> tuple[OrderState, list[Transition]]:
    order, transitions = OrderState(), []
    for claim in claims:
        transitions.append(decide(order, claim, required=required))
        order = transitions[-1].after
    return order, transitions


def believed(order: OrderState) -> tuple[OrderStatus, Trust | None, bool, str | None]:
    return order.status, order.trust, order.conflicted, order.pay_order_no


def events(transitions: list[Transition]) -> list[EventType]:
    return [t.event for t in transitions if t.event]


def test_a_first_success_is_applied_and_announced() -> None:
    order, transitions = told(a_claim(OrderStatus.SUCCEEDED))
    assert believed(order) == (OrderStatus.SUCCEEDED, Trust.CAPABILITY, False, "P1")
    assert events(transitions) == [EventType.SUCCEEDED]


def test_initial_makes_no_event() -> None:
    order, transitions = told(a_claim(OrderStatus.INITIAL))
    assert order.status is OrderStatus.INITIAL
    assert events(transitions) == []


def test_the_same_status_again_is_a_duplicate_without_an_event() -> None:
    _, transitions = told(a_claim(OrderStatus.SUCCEEDED), a_claim(OrderStatus.SUCCEEDED, minute=1))
    assert transitions[1].verdict is Verdict.DUPLICATE
    assert events(transitions) == [EventType.SUCCEEDED]


def test_late_pending_leaves_a_succeeded_order_alone() -> None:
    order, transitions = told(a_claim(OrderStatus.SUCCEEDED), a_claim(OrderStatus.PROCESSING, minute=5))
    assert order.status is OrderStatus.SUCCEEDED
    assert transitions[1].verdict is Verdict.STALE


@pytest.mark.parametrize("status", [*OrderStatus])
def test_a_claim_below_the_required_trust_changes_nothing_of_the_order(status: OrderStatus) -> None:
    before, _ = told(a_claim(OrderStatus.PROCESSING, Trust.QUERIED), required=Trust.QUERIED)
    transition = decide(before, a_claim(status, Trust.CAPABILITY, 9, "P-forged"), required=Trust.QUERIED)
    assert transition.verdict is Verdict.UNTRUSTED
    assert transition.after == before
    assert transition.event is None


def test_a_claim_below_the_required_trust_that_would_be_news_is_worth_a_question() -> None:
    assert decide(OrderState(), a_claim(OrderStatus.SUCCEEDED), required=Trust.QUERIED).ask


def test_a_claim_below_the_required_trust_that_says_what_is_known_is_not_worth_a_question() -> None:
    before, _ = told(a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED), required=Trust.QUERIED)
    assert not decide(before, a_claim(OrderStatus.SUCCEEDED, minute=3), required=Trust.QUERIED).ask


def test_a_forged_fail_never_masks_a_real_success() -> None:
    order, transitions = told(
        a_claim(OrderStatus.FAILED, Trust.CHECKSUM, pay_order_no="P-forged"),
        a_claim(OrderStatus.SUCCEEDED, Trust.CAPABILITY, 1),
    )
    assert believed(order) == (OrderStatus.SUCCEEDED, Trust.CAPABILITY, False, "P1")
    assert events(transitions) == [EventType.SUCCEEDED]


def test_an_unreadable_claim_is_quarantined_and_asked_about() -> None:
    transition = decide(OrderState(), a_claim(None, quarantine="unknown pay_status"), required=Trust.CAPABILITY)
    assert transition.verdict is Verdict.QUARANTINED
    assert transition.after == OrderState()
    assert transition.ask


def test_an_unreadable_claim_that_anyone_can_have_made_is_asked_about_and_no_persons_work() -> None:
    forged = a_claim(None, Trust.CHECKSUM, quarantine="unknown pay_status")
    transition = decide(OrderState(), forged, required=Trust.QUERIED)
    assert transition.verdict is Verdict.UNTRUSTED
    assert transition.ask


def test_two_ends_of_equal_trust_conflict_and_neither_is_announced_over_the_other() -> None:
    order, transitions = told(a_claim(OrderStatus.SUCCEEDED), a_claim(OrderStatus.FAILED, minute=1))
    assert (order.status, order.conflicted) == (OrderStatus.SUCCEEDED, True)
    assert events(transitions) == [EventType.SUCCEEDED, EventType.CONFLICTED]
    assert transitions[1].ask


def test_another_pay_order_no_is_a_conflict() -> None:
    order, transitions = told(a_claim(OrderStatus.PROCESSING), a_claim(OrderStatus.SUCCEEDED, pay_order_no="P2"))
    assert (order.status, order.conflicted) == (OrderStatus.PROCESSING, True)
    assert transitions[1].verdict is Verdict.CONFLICT


def test_a_second_contradiction_is_not_announced_again() -> None:
    _, transitions = told(
        a_claim(OrderStatus.SUCCEEDED), a_claim(OrderStatus.FAILED), a_claim(OrderStatus.FAILED, minute=2)
    )
    assert events(transitions).count(EventType.CONFLICTED) == 1


def test_a_later_question_settles_a_conflict_and_corrects_the_status() -> None:
    order, transitions = told(
        a_claim(OrderStatus.SUCCEEDED),
        a_claim(OrderStatus.FAILED, minute=1),
        a_claim(OrderStatus.FAILED, Trust.QUERIED, 2),
    )
    assert believed(order) == (OrderStatus.FAILED, Trust.QUERIED, False, "P1")
    assert transitions[2].event is EventType.CORRECTED


def test_a_question_asked_before_the_dispute_does_not_settle_it() -> None:
    order, transitions = told(
        a_claim(OrderStatus.SUCCEEDED),
        a_claim(OrderStatus.FAILED, minute=4),
        a_claim(OrderStatus.FAILED, Trust.QUERIED, 2),
    )
    assert (order.status, order.conflicted) == (OrderStatus.SUCCEEDED, True)
    assert transitions[2].ask


def test_a_settled_conflict_is_announced_even_where_the_status_stays() -> None:
    _, transitions = told(
        a_claim(OrderStatus.SUCCEEDED),
        a_claim(OrderStatus.FAILED, minute=1),
        a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, 2),
    )
    assert transitions[2].event is EventType.CORRECTED


def test_a_conflict_before_the_end_is_settled_by_a_plain_success() -> None:
    order, transitions = told(
        a_claim(OrderStatus.PROCESSING),
        a_claim(OrderStatus.SUCCEEDED, minute=1, pay_order_no="P2"),
        a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, 2, "P2"),
    )
    assert believed(order) == (OrderStatus.SUCCEEDED, Trust.QUERIED, False, "P2")
    assert transitions[2].event is EventType.SUCCEEDED


def test_a_question_without_an_end_leaves_a_dispute_open_and_asks_again() -> None:
    order, transitions = told(
        a_claim(OrderStatus.PROCESSING),
        a_claim(OrderStatus.SUCCEEDED, minute=1, pay_order_no="P2"),
        a_claim(OrderStatus.PROCESSING, Trust.QUERIED, 2),
    )
    assert order.conflicted
    assert transitions[2].ask


def test_the_gateways_later_answer_corrects_a_callback() -> None:
    order, transitions = told(a_claim(OrderStatus.FAILED), a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, 1))
    assert believed(order) == (OrderStatus.SUCCEEDED, Trust.QUERIED, False, "P1")
    assert events(transitions) == [EventType.FAILED, EventType.CORRECTED]


def test_an_answer_asked_before_the_callback_does_not_correct_it() -> None:
    order, transitions = told(a_claim(OrderStatus.SUCCEEDED, minute=5), a_claim(OrderStatus.FAILED, Trust.QUERIED, 1))
    assert (order.status, order.conflicted) == (OrderStatus.SUCCEEDED, True)
    assert EventType.CORRECTED not in events(transitions)


def test_an_older_answer_does_not_correct_a_later_one() -> None:
    order, _ = told(a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, 5), a_claim(OrderStatus.FAILED, Trust.QUERIED, 1))
    assert believed(order) == (OrderStatus.SUCCEEDED, Trust.QUERIED, False, "P1")


def test_a_callback_older_than_the_question_does_not_dispute_the_answer() -> None:
    order, transitions = told(
        a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, 5), a_claim(OrderStatus.FAILED, Trust.CAPABILITY, 1)
    )
    assert not order.conflicted
    assert transitions[1].ask


def test_a_callback_later_than_the_question_disputes_the_answer() -> None:
    order, _ = told(a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, 1), a_claim(OrderStatus.FAILED, Trust.CAPABILITY, 5))
    assert (order.status, order.conflicted) == (OrderStatus.SUCCEEDED, True)


def test_a_checksum_never_disputes_what_is_better_known() -> None:
    order, _ = told(
        a_claim(OrderStatus.SUCCEEDED, Trust.CAPABILITY),
        a_claim(OrderStatus.FAILED, Trust.CHECKSUM, 9),
        required=Trust.CHECKSUM,
    )
    assert not order.conflicted


def test_the_gateway_not_knowing_a_paid_order_is_a_reason_to_ask_again() -> None:
    order, transitions = told(a_claim(OrderStatus.SUCCEEDED), a_claim(OrderStatus.PROCESSING, Trust.QUERIED, 3))
    assert order.status is OrderStatus.SUCCEEDED
    assert transitions[1].ask


def test_an_operator_settles_anything() -> None:
    order, transitions = told(
        a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, 1),
        a_claim(OrderStatus.FAILED, minute=2),
        a_claim(OrderStatus.FAILED, Trust.OPERATOR, 3, None),
    )
    assert believed(order) == (OrderStatus.FAILED, Trust.OPERATOR, False, "P1")
    assert transitions[2].event is EventType.CORRECTED


def test_what_a_person_decided_only_a_person_can_decide_again() -> None:
    order, transitions = told(
        a_claim(OrderStatus.FAILED, Trust.OPERATOR, 1), a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, 5)
    )
    assert (order.status, order.trust, order.conflicted) == (OrderStatus.FAILED, Trust.OPERATOR, True)
    assert not transitions[1].ask


# --- properties over all arrivals ---

minutes = st.integers(min_value=0, max_value=6)
answers = st.builds(a_claim, st.sampled_from(TERMINAL), st.just(Trust.QUERIED), minutes)
any_claim = st.builds(
    a_claim,
    st.sampled_from([*OrderStatus]),
    st.sampled_from(TRUSTS),
    minutes,
    st.sampled_from(["P1", "P2", None]),
)


@st.composite
def agreeing_claims(draw: st.DrawFn) -> list[Claim]:
    end = draw(st.sampled_from(TERMINAL))
    statuses = st.sampled_from([OrderStatus.INITIAL, OrderStatus.PROCESSING, end])
    one = st.builds(a_claim, statuses, st.sampled_from(TRUSTS), minutes, st.sampled_from(["P1", None]))
    return draw(st.lists(one, min_size=1, max_size=5))


@settings(max_examples=300)
@given(agreeing_claims(), st.sampled_from(TRUSTS))
def test_claims_that_agree_reach_the_same_state_in_every_order_of_arrival(claims: list[Claim], required: Trust) -> None:
    ends = {told(*arrival, required=required)[0] for arrival in permutations(claims)}
    assert len(ends) == 1
    assert not ends.pop().conflicted


@settings(max_examples=300)
@given(st.lists(any_claim, min_size=1, max_size=4), st.sampled_from(TRUSTS), st.data())
def test_terminal_claims_of_equal_trust_reach_the_same_conflicted_flag(
    claims: list[Claim], trust: Trust, data: st.DataObject
) -> None:
    claims = [
        replace(c, trust=trust, status=data.draw(st.sampled_from(TERMINAL)), pay_order_no=c.pay_order_no or "P1")
        for c in claims
    ]
    assert len({told(*arrival, required=trust)[0].conflicted for arrival in permutations(claims)}) == 1


@settings(max_examples=300)
@given(st.lists(any_claim, min_size=1, max_size=4), st.sampled_from(TRUSTS), st.sampled_from(TERMINAL))
def test_any_claims_reach_the_same_state_once_a_later_question_is_answered(
    claims: list[Claim], required: Trust, truth: OrderStatus
) -> None:
    answer = a_claim(truth, Trust.QUERIED, 60)
    ends = {believed(told(*arrival, answer, required=required)[0]) for arrival in permutations(claims)}
    assert ends == {(truth, Trust.QUERIED, False, "P1")}


@settings(max_examples=500)
@given(st.lists(any_claim, min_size=1, max_size=6), st.sampled_from(TRUSTS), st.data())
def test_a_repeated_claim_makes_no_second_event(claims: list[Claim], required: Trust, data: st.DataObject) -> None:
    order, _ = told(*claims, required=required)
    again = data.draw(st.sampled_from(claims))
    once = decide(order, again, required=required)
    twice = decide(once.after, again, required=required)
    assert twice.event is None
    assert twice.after == once.after


@settings(max_examples=500)
@given(st.lists(any_claim, min_size=1, max_size=8), st.sampled_from(TRUSTS))
def test_at_most_one_plain_terminal_event_ever_goes_out(claims: list[Claim], required: Trust) -> None:
    _, transitions = told(*claims, required=required)
    plain = [e for e in events(transitions) if e in (EventType.SUCCEEDED, EventType.FAILED)]
    assert len(plain) <= 1


@settings(max_examples=500)
@given(st.lists(any_claim, max_size=6), st.sampled_from(TRUSTS), any_claim)
def test_whatever_changes_the_status_is_announced(claims: list[Claim], required: Trust, claim: Claim) -> None:
    before, _ = told(*claims, required=required)
    transition = decide(before, claim, required=required)
    if transition.after.status is not before.status:
        assert transition.event is not None
