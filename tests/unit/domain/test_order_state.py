"""The order state machine: its rules one by one, and its properties over all orders of arrival."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.claims import Claim, ClaimSource, IdentityField, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.money import Money
from service.domain.order_state import (
    WHOLE_IDENTITY,
    Dispute,
    OrderState,
    Transition,
    Verdict,
    decide,
    decide_announcement,
)

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
TRUSTS = [Trust.CHECKSUM, Trust.CAPABILITY, Trust.QUERIED]
TERMINAL = [OrderStatus.SUCCEEDED, OrderStatus.FAILED]


def a_claim(
    status: OrderStatus | None,
    trust: Trust = Trust.CAPABILITY,
    minute: int = 0,
    pay_order_no: str | None = "P1",
    quarantine: str | None = None,
    **payment: Any,
) -> Claim:
    sources = {Trust.RULE: ClaimSource.RULE, Trust.QUERIED: ClaimSource.QUERY, Trust.OPERATOR: ClaimSource.OPERATOR}
    return Claim(
        merchant="acme",
        biz_order_no="DK1",
        trust=trust,
        source=sources.get(trust, ClaimSource.CALLBACK),
        status=status,
        pay_order_no=pay_order_no,
        stated_at=NOON + timedelta(minutes=minute),
        digest=f"{status}/{trust}/{minute}/{pay_order_no}/{payment}",
        quarantine=quarantine,
        **payment,
    )


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """An announcement among claims."""

    pay_type: str = ""
    amount: Money | None = None
    minute: int = 0


def told(
    *arrivals: Claim | Announcement,
    required: Trust = Trust.CAPABILITY,
    identity: Collection[IdentityField] = WHOLE_IDENTITY,
) -> tuple[OrderState, list[Transition]]:
    order, transitions = OrderState(), []
    for one in arrivals:
        if isinstance(one, Announcement):
            at = NOON + timedelta(minutes=one.minute)
            transition = decide_announcement(
                order, pay_type=one.pay_type, amount=one.amount, announced_at=at, identity=identity
            )
        else:
            transition = decide(order, one, required=required, identity=identity)
        transitions.append(transition)
        order = transition.after
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


# --- the payment's identity: every field that contradicts is a dispute ---

FEN_100 = Money("10000", "fen")
YUAN_100 = Money("100.00", "yuan")
CENT = Money("0.01", "yuan")
BAOFOO = Announcement(pay_type="baofoo_001", amount=YUAN_100)
PAID = OrderStatus.SUCCEEDED


def test_a_callback_with_another_pay_type_than_announced_is_a_conflict_and_no_success() -> None:
    order, transitions = told(BAOFOO, a_claim(PAID, pay_type="kuaiqian_002"))
    assert transitions[1].verdict is Verdict.CONFLICT
    assert events(transitions) == [EventType.CONFLICTED]
    assert (order.status, order.pay_type) == (OrderStatus.INITIAL, "baofoo_001")
    assert order.disputed == (Dispute("pay_type", "kuaiqian_002"),)
    assert transitions[1].ask


def test_two_successes_with_two_pay_types_are_a_conflict() -> None:
    order, transitions = told(a_claim(PAID, pay_type="baofoo_001"), a_claim(PAID, minute=1, pay_type="kuaiqian_002"))
    assert events(transitions) == [EventType.SUCCEEDED, EventType.CONFLICTED]
    assert (order.pay_type, order.disputed) == ("baofoo_001", (Dispute("pay_type", "kuaiqian_002"),))


def test_two_order_types_are_a_conflict() -> None:
    order, _ = told(a_claim(PAID, order_type="single_withhold"), a_claim(PAID, minute=1, order_type="refund"))
    assert order.disputed == (Dispute("order_type", "refund"),)


def test_every_contradicting_field_is_named() -> None:
    first = a_claim(PAID, pay_type="baofoo_001", order_type="a", amount=YUAN_100)
    second = a_claim(OrderStatus.FAILED, minute=1, pay_order_no="P2", pay_type="k", order_type="b", amount=CENT)
    order, _ = told(first, second)
    assert dict(order.disputed) == {
        "status": "failed",
        "pay_order_no": "P2",
        "pay_type": "k",
        "order_type": "b",
        "amount": "0.01",
    }


@pytest.mark.parametrize("answered", ["baofoo_001", "kuaiqian_002", "third_003"])
def test_an_answer_asked_after_the_dispute_settles_the_pay_type_and_the_order_has_the_answers(answered: str) -> None:
    order, transitions = told(
        BAOFOO,
        a_claim(PAID, minute=1, pay_type="kuaiqian_002"),
        a_claim(PAID, Trust.QUERIED, 2, pay_type=answered),
    )
    assert events(transitions) == [EventType.CONFLICTED, EventType.SUCCEEDED]
    assert (order.status, order.conflicted, order.pay_type, order.disputed) == (PAID, False, answered, ())
    assert order.announced_pay_type == "baofoo_001"


def test_an_answer_that_does_not_state_the_disputed_field_does_not_settle_it() -> None:
    order, transitions = told(
        BAOFOO, a_claim(PAID, minute=1, pay_type="kuaiqian_002"), a_claim(PAID, Trust.QUERIED, 2, pay_type="")
    )
    assert (order.status, order.conflicted) == (OrderStatus.INITIAL, True)
    assert transitions[2].ask


def test_the_first_answer_that_denies_the_announced_pay_type_opens_the_dispute_and_the_next_settles_it() -> None:
    order, transitions = told(
        BAOFOO,
        a_claim(PAID, Trust.QUERIED, 1, pay_type="kuaiqian_002"),
        a_claim(PAID, Trust.QUERIED, 2, pay_type="kuaiqian_002"),
    )
    assert events(transitions) == [EventType.CONFLICTED, EventType.SUCCEEDED]
    assert (order.pay_type, order.conflicted) == ("kuaiqian_002", False)


def test_an_answer_asked_before_the_dispute_does_not_settle_the_pay_type() -> None:
    order, _ = told(
        BAOFOO,
        a_claim(PAID, minute=5, pay_type="kuaiqian_002"),
        a_claim(PAID, Trust.QUERIED, 1, pay_type="kuaiqian_002"),
    )
    assert order.conflicted


def test_an_answer_settles_no_amount() -> None:
    order, transitions = told(
        BAOFOO, a_claim(PAID, minute=1, amount=CENT), a_claim(PAID, Trust.QUERIED, 2, amount=YUAN_100)
    )
    assert (order.status, order.conflicted, order.amount) == (OrderStatus.INITIAL, True, YUAN_100)
    assert order.disputed == (Dispute("amount", "0.01"),)
    assert events(transitions) == [EventType.CONFLICTED]
    assert not transitions[1].ask
    assert not transitions[2].ask


@pytest.mark.parametrize("decided", [YUAN_100, CENT])
def test_an_operator_settles_the_amount_and_the_order_has_the_operators(decided: Money) -> None:
    order, transitions = told(
        BAOFOO, a_claim(PAID, minute=1, amount=CENT), a_claim(PAID, Trust.OPERATOR, 2, amount=decided)
    )
    assert events(transitions) == [EventType.CONFLICTED, EventType.SUCCEEDED]
    assert (order.conflicted, order.amount) == (False, decided)


def test_the_same_money_in_another_unit_is_no_contradiction() -> None:
    order, _ = told(BAOFOO, a_claim(PAID, minute=1, amount=FEN_100))
    assert (order.status, order.conflicted) == (PAID, False)
    assert order.amount is not None
    assert (order.amount.text, order.amount.unit) == ("100.00", "yuan")


def test_the_other_amount_is_shown_in_the_unit_of_the_order() -> None:
    order, _ = told(BAOFOO, a_claim(PAID, minute=1, amount=Money("1", "fen")))
    assert order.disputed == (Dispute("amount", "0.01"),)


@pytest.mark.parametrize("field", [*IdentityField])
def test_a_field_that_is_left_out_of_the_identity_never_contradicts(field: IdentityField) -> None:
    values: dict[str, tuple[Any, Any]] = {
        "pay_order_no": ("P1", "P2"),
        "pay_type": ("a", "b"),
        "order_type": ("a", "b"),
        "amount": (YUAN_100, CENT),
    }
    first, second = values[field]
    claims = a_claim(OrderStatus.PROCESSING, **{field: first}), a_claim(PAID, minute=1, **{field: second})
    order, transitions = told(*claims, identity=WHOLE_IDENTITY - {field})
    assert events(transitions) == [EventType.PROCESSING, EventType.SUCCEEDED]
    assert getattr(order, field) == second
    assert told(*claims)[0].disputed[0].field == field


def test_a_field_that_is_compared_no_longer_does_not_keep_a_conflict_open() -> None:
    order, _ = told(BAOFOO, a_claim(PAID, minute=1, amount=CENT))
    answer = a_claim(PAID, Trust.QUERIED, 2)
    settled = decide(order, answer, required=Trust.CAPABILITY, identity=WHOLE_IDENTITY - {IdentityField.AMOUNT})
    assert (settled.after.status, settled.after.conflicted) == (PAID, False)


def test_a_later_announcement_that_contradicts_opens_the_dispute_and_overwrites_nothing() -> None:
    order, transitions = told(a_claim(PAID, pay_type="kuaiqian_002", amount=CENT), replace(BAOFOO, minute=3))
    assert (order.status, order.pay_type, order.amount) == (PAID, "kuaiqian_002", CENT)
    assert order.announced_pay_type == "baofoo_001"
    assert dict(order.disputed) == {"pay_type": "baofoo_001", "amount": "100.00"}
    assert events(transitions) == [EventType.SUCCEEDED, EventType.CONFLICTED]
    assert order.as_of == NOON + timedelta(minutes=3)


def test_a_later_announcement_is_settled_only_by_a_question_asked_after_it() -> None:
    claimed = a_claim(PAID, Trust.QUERIED, 1, pay_type="kuaiqian_002")
    announced = Announcement(pay_type="baofoo_001", minute=3)
    early = told(claimed, announced, a_claim(PAID, Trust.QUERIED, 2, pay_type="kuaiqian_002"))[0]
    late = told(claimed, announced, a_claim(PAID, Trust.QUERIED, 4, pay_type="kuaiqian_002"))[0]
    assert early.conflicted
    assert (late.conflicted, late.pay_type) == (False, "kuaiqian_002")


def test_a_later_announcement_that_agrees_fills_in_what_nobody_stated() -> None:
    order, transitions = told(a_claim(PAID, pay_type="baofoo_001"), BAOFOO)
    assert (order.amount, order.conflicted) == (YUAN_100, False)
    assert events(transitions) == [EventType.SUCCEEDED]


@pytest.mark.parametrize("payment", [{"pay_type": "kuaiqian_002"}, {"amount": CENT}, {"order_type": "refund"}])
def test_below_the_required_trust_nothing_is_in_dispute(payment: dict[str, Any]) -> None:
    before, _ = told(BAOFOO, a_claim(PAID, Trust.QUERIED, order_type="single_withhold"), required=Trust.QUERIED)
    transition = decide(before, a_claim(PAID, minute=9, **payment), required=Trust.QUERIED)
    assert (transition.verdict, transition.after, transition.event) == (Verdict.UNTRUSTED, before, None)


# --- the rules for refused withholds ---

FAILED = OrderStatus.FAILED
BY_RULE = a_claim(FAILED, Trust.RULE, 3, pay_order_no=None)


@pytest.mark.parametrize("required", TRUSTS)
@pytest.mark.parametrize("before", [[], [BAOFOO]])
def test_a_rule_ends_an_order_of_which_nobody_trusted_has_spoken_whatever_trust_is_required(
    before: list[Claim | Announcement], required: Trust
) -> None:
    order, transitions = told(*before, BY_RULE, required=required)
    assert (order.status, order.trust, order.conflicted) == (FAILED, Trust.RULE, False)
    assert (transitions[-1].verdict, transitions[-1].event) == (Verdict.APPLIED, EventType.FAILED)


@pytest.mark.parametrize("status", [*OrderStatus])
@pytest.mark.parametrize("trust", [Trust.CHECKSUM, Trust.CAPABILITY, Trust.QUERIED, Trust.OPERATOR])
def test_a_rule_changes_nothing_once_somebody_trusted_has_spoken(status: OrderStatus, trust: Trust) -> None:
    before, _ = told(a_claim(status, trust), required=Trust.CHECKSUM)
    transition = decide(before, BY_RULE, required=Trust.CHECKSUM)
    assert (transition.verdict, transition.after, transition.event) == (Verdict.STALE, before, None)


def test_a_rule_ends_no_order_whose_announcement_is_contradicted() -> None:
    before, _ = told(BAOFOO, a_claim(PAID, pay_type="kuaiqian_002"))
    transition = decide(before, BY_RULE, required=Trust.CAPABILITY)
    assert (transition.verdict, transition.after) == (Verdict.STALE, before)


@pytest.mark.parametrize("trust", [Trust.CAPABILITY, Trust.QUERIED, Trust.OPERATOR])
@pytest.mark.parametrize("minute", [1, 5])
def test_a_trusted_success_corrects_what_a_rule_has_ended_whenever_it_was_stated(trust: Trust, minute: int) -> None:
    order, transitions = told(BAOFOO, BY_RULE, a_claim(PAID, trust, minute))
    assert believed(order) == (PAID, trust, False, "P1")
    assert events(transitions) == [EventType.FAILED, EventType.CORRECTED]


@pytest.mark.parametrize("status", [OrderStatus.INITIAL, OrderStatus.PROCESSING, PAID])
@pytest.mark.parametrize("required", TRUSTS)
def test_what_does_not_correct_the_end_by_a_rule_is_a_reason_to_ask(status: OrderStatus, required: Trust) -> None:
    before, _ = told(BY_RULE, required=required)
    trust = Trust.CHECKSUM if status is PAID else max(required, Trust.CAPABILITY)
    transition = decide(before, a_claim(status, trust, 5), required=required)
    assert (transition.after.status, transition.event, transition.ask) == (FAILED, None, True)


def test_a_trusted_failure_confirms_the_end_by_a_rule_without_an_event() -> None:
    order, transitions = told(BY_RULE, a_claim(FAILED, Trust.QUERIED, 5))
    assert believed(order) == (FAILED, Trust.QUERIED, False, "P1")
    assert events(transitions) == [EventType.FAILED]


# --- properties over all arrivals ---

minutes = st.integers(min_value=0, max_value=6)
answers = st.builds(a_claim, st.sampled_from(TERMINAL), st.just(Trust.QUERIED), minutes)
pay_types = st.sampled_from(["baofoo_001", "kuaiqian_002", ""])
amounts = st.sampled_from([YUAN_100, FEN_100, CENT, None])
any_claim = st.builds(
    a_claim,
    st.sampled_from([*OrderStatus]),
    st.sampled_from(TRUSTS),
    minutes,
    st.sampled_from(["P1", "P2", None]),
    pay_type=pay_types,
    order_type=st.sampled_from(["single_withhold", "refund", ""]),
    amount=amounts,
)
any_announcement = st.builds(Announcement, pay_type=pay_types, amount=amounts, minute=minutes)
identities = st.frozensets(st.sampled_from(IdentityField))


@st.composite
def agreeing_claims(draw: st.DrawFn) -> list[Claim | Announcement]:
    end = draw(st.sampled_from(TERMINAL))
    statuses = st.sampled_from([OrderStatus.INITIAL, OrderStatus.PROCESSING, end])
    payment = {"pay_type": st.sampled_from(["baofoo_001", ""]), "amount": st.sampled_from([YUAN_100, FEN_100, None])}
    one = st.builds(a_claim, statuses, st.sampled_from(TRUSTS), minutes, st.sampled_from(["P1", None]), **payment)
    claims: list[Claim | Announcement] = [*draw(st.lists(one, min_size=1, max_size=4))]
    return claims + draw(st.lists(st.builds(Announcement, minute=minutes, **payment), max_size=1))


def only_announcement(arrivals: Sequence[Claim | Announcement]) -> list[Claim | Announcement]:
    """The arrivals, of whose announcements the first counts: the ledger refuses another one with other values."""
    announced = [one for one in arrivals if isinstance(one, Announcement)][:1]
    return [*announced, *(one for one in arrivals if not isinstance(one, Announcement))]


@settings(max_examples=300)
@given(agreeing_claims(), st.sampled_from(TRUSTS))
def test_claims_that_agree_reach_the_same_state_in_every_order_of_arrival(
    claims: list[Claim | Announcement], required: Trust
) -> None:
    ends = {told(*arrival, required=required)[0] for arrival in permutations(claims)}
    assert len(ends) == 1
    assert not ends.pop().conflicted


@settings(max_examples=300)
@given(st.lists(any_claim, min_size=1, max_size=4), st.sampled_from(TRUSTS), st.data())
def test_terminal_claims_of_equal_trust_reach_the_same_conflicted_flag(
    claims: list[Claim], trust: Trust, data: st.DataObject
) -> None:
    claims = [
        a_claim(
            data.draw(st.sampled_from(TERMINAL)),
            trust,
            (c.stated_at - NOON).seconds // 60,
            c.pay_order_no or "P1",
            pay_type=c.pay_type or "baofoo_001",
        )
        for c in claims
    ]
    assert len({told(*arrival, required=trust)[0].conflicted for arrival in permutations(claims)}) == 1


@settings(max_examples=300)
@given(
    st.lists(any_claim, min_size=1, max_size=3),
    any_announcement,
    st.sampled_from([Trust.CHECKSUM, Trust.CAPABILITY]),
    identities,
)
def test_callbacks_of_equal_trust_and_the_announcement_reach_the_same_conflicted_flag(
    claims: list[Claim], announcement: Announcement, trust: Trust, identity: frozenset[IdentityField]
) -> None:
    claims = [replace(c, trust=trust, status=PAID if c.status is OrderStatus.INITIAL else c.status) for c in claims]
    arrivals: list[Claim | Announcement] = [announcement, *(c for c in claims if c.status and c.status.terminal)]
    flags = {told(*one, required=trust, identity=identity)[0].conflicted for one in permutations(arrivals)}
    assert len(flags) == 1


@settings(max_examples=300)
@given(
    st.lists(any_claim, min_size=1, max_size=3),
    st.lists(any_announcement, max_size=1),
    st.sampled_from(TRUSTS),
    st.sampled_from(TERMINAL),
)
def test_any_claims_reach_the_same_state_once_a_later_question_is_answered(
    claims: list[Claim], announcement: list[Announcement], required: Trust, truth: OrderStatus
) -> None:
    arrivals: list[Claim | Announcement] = [*(replace(c, amount=None) for c in claims), *announcement]
    answers = [
        a_claim(truth, Trust.QUERIED, minute, pay_type="kuaiqian_002", order_type="refund") for minute in (60, 61)
    ]
    ends = {told(*arrival, *answers, required=required)[0] for arrival in permutations(arrivals)}
    assert {(*believed(end), end.pay_type, end.order_type) for end in ends} == {
        (truth, Trust.QUERIED, False, "P1", "kuaiqian_002", "refund")
    }


@settings(max_examples=300)
@given(st.lists(any_claim, min_size=1, max_size=3), st.lists(any_announcement, max_size=1))
def test_any_claims_reach_the_same_verdict_about_the_amount_in_every_order_of_arrival(
    claims: list[Claim], announcement: list[Announcement]
) -> None:
    proven = [replace(c, trust=max(c.trust, Trust.CAPABILITY)) for c in claims]
    arrivals: list[Claim | Announcement] = [*proven, *announcement]
    stated = {one.amount for one in arrivals if one.amount}
    for arrival in permutations(arrivals):
        order, _ = told(*arrival)
        assert ("amount" in dict(order.disputed)) == (len(stated) > 1)
        assert order.conflicted or len(stated) <= 1


@settings(max_examples=500)
@given(st.lists(any_claim | any_announcement, max_size=6), any_claim, st.sampled_from(TRUSTS), identities)
def test_no_event_but_a_conflict_has_a_value_that_its_claim_denies(
    arrivals: list[Claim | Announcement], claim: Claim, required: Trust, identity: frozenset[IdentityField]
) -> None:
    before, _ = told(*only_announcement(arrivals), required=required, identity=identity)
    for trust in (claim.trust, Trust.OPERATOR):
        transition = decide(before, replace(claim, trust=trust), required=required, identity=identity)
        if transition.event not in (None, EventType.CONFLICTED):
            for field in IdentityField:
                assert getattr(claim, field) in (None, "", getattr(transition.after, field))


@settings(max_examples=500)
@given(st.lists(any_claim | any_announcement, max_size=6), st.sampled_from(TRUSTS), identities)
def test_a_conflict_is_open_exactly_while_a_field_is_in_dispute(
    arrivals: list[Claim | Announcement], required: Trust, identity: frozenset[IdentityField]
) -> None:
    _, transitions = told(*only_announcement(arrivals), required=required, identity=identity)
    for transition in transitions:
        order = transition.after
        assert order.conflicted == bool(order.disputed)
        for field, other in order.disputed:
            stands = order.amount.text if field == "amount" and order.amount else getattr(order, field)
            assert stands
            assert stands != other


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


@settings(max_examples=300)
@given(
    st.lists(any_claim, max_size=3),
    st.lists(any_announcement, max_size=1),
    st.sampled_from(TRUSTS),
    st.sampled_from(TERMINAL),
)
def test_a_rule_changes_nothing_in_the_end_whenever_it_comes(
    claims: list[Claim], announcement: list[Announcement], required: Trust, truth: OrderStatus
) -> None:
    arrivals: list[Claim | Announcement] = [BY_RULE, *(replace(c, amount=None) for c in claims), *announcement]
    answers = [
        a_claim(truth, Trust.QUERIED, minute, pay_type="kuaiqian_002", order_type="refund") for minute in (60, 61)
    ]
    ends = {told(*arrival, *answers, required=required)[0] for arrival in permutations(arrivals)}
    assert {(*believed(end), end.pay_type, end.order_type) for end in ends} == {
        (truth, Trust.QUERIED, False, "P1", "kuaiqian_002", "refund")
    }


@settings(max_examples=500)
@given(st.lists(any_claim, max_size=6), st.integers(0, 6), st.sampled_from(TRUSTS))
def test_a_rule_makes_an_event_only_where_nobody_trusted_has_spoken_and_no_second_plain_end(
    claims: list[Claim], place: int, required: Trust
) -> None:
    before, _ = told(*claims[:place], required=required)
    transition = decide(before, BY_RULE, required=required)
    assert (transition.event is EventType.FAILED) == (before.trust is None and not before.conflicted)
    _, transitions = told(*claims[:place], BY_RULE, *claims[place:], BY_RULE, required=required)
    assert len([e for e in events(transitions) if e in (EventType.SUCCEEDED, EventType.FAILED)]) <= 1


@settings(max_examples=300)
@given(st.lists(any_claim, max_size=4), st.sampled_from(TRUSTS), st.sampled_from([Trust.CAPABILITY, Trust.QUERIED]))
def test_a_trusted_success_that_nothing_contradicts_is_never_lost_to_a_rule(
    claims: list[Claim], required: Trust, trust: Trust
) -> None:
    untrusted = [c for c in claims if c.trust < required]
    success = a_claim(PAID, max(trust, required), 9)
    for arrival in permutations([BY_RULE, success, *untrusted]):
        order, _ = told(*arrival, required=required)
        assert (order.status, order.conflicted) == (PAID, False)
