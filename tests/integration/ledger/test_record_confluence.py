"""The state machine's properties hold with the database too, for any claims in any batches."""

from itertools import count as numbers

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import OrderState, decide
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim

TRUSTS = [Trust.CHECKSUM, Trust.CAPABILITY, Trust.QUERIED]
fresh = numbers()

minutes = st.integers(min_value=0, max_value=6)
any_claim = st.builds(
    a_claim,
    st.sampled_from([*OrderStatus]),
    st.sampled_from(TRUSTS),
    minute=minutes,
    pay_order_no=st.sampled_from(["P1", "P2", None]),
)
# One database for all examples; each takes order numbers of its own.
modest = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@st.composite
def agreeing_claims(draw: st.DrawFn) -> list[Claim]:
    end = draw(st.sampled_from([OrderStatus.SUCCEEDED, OrderStatus.FAILED]))
    statuses = st.sampled_from([OrderStatus.INITIAL, OrderStatus.PROCESSING, end])
    one = st.builds(a_claim, statuses, st.sampled_from(TRUSTS), minute=minutes)
    return draw(st.lists(one, min_size=1, max_size=6))


def told(store: LedgerStore, arrivals: list[list[Claim]]) -> OrderKey:
    """Record batches about an order that nobody has heard of."""
    number = f"DK{next(fresh)}"
    for batch in arrivals:
        store.record([a_claim_about(number, claim) for claim in batch])
    return OrderKey("acme", number)


def a_claim_about(number: str, claim: Claim) -> Claim:
    return a_claim(
        claim.status,
        claim.trust,
        order=number,
        stated_at=claim.stated_at,
        pay_order_no=claim.pay_order_no,
    )


def in_batches(claims: list[Claim], cut: int) -> list[list[Claim]]:
    return [claims[:cut], claims[cut:]]


def state_of(store: LedgerStore, key: OrderKey) -> OrderState:
    order = store.load_order(key)
    return OrderState() if order is None else order.state


@modest
@given(agreeing_claims(), st.randoms(use_true_random=False), st.integers(0, 6))
def test_claims_that_agree_reach_the_same_belief_in_every_order_of_arrival(
    store: LedgerStore, claims: list[Claim], chance: object, cut: int
) -> None:
    # A repeat keeps the time of the first arrival, so `as_of` alone may differ.
    shuffled = list(claims)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = told(store, in_batches(claims, cut)), told(store, [[claim] for claim in shuffled])
    ends = [state_of(store, key) for key in (one, other)]
    assert ends[0].status is ends[1].status
    assert ends[0].trust is ends[1].trust
    assert ends[0].pay_order_no == ends[1].pay_order_no
    assert not ends[0].conflicted
    assert not ends[1].conflicted


@modest
@given(st.lists(any_claim, min_size=1, max_size=6, unique_by=lambda c: (c.digest, c.trust)), st.integers(0, 6))
def test_the_database_holds_what_the_pure_table_says(store: LedgerStore, claims: list[Claim], cut: int) -> None:
    key = told(store, in_batches(claims, cut))
    expected = OrderState()
    for claim in claims:
        expected = decide(expected, claim, required=Trust.CAPABILITY).after
    assert state_of(store, key) == expected


@modest
@given(st.lists(any_claim, min_size=1, max_size=8), st.integers(0, 8))
def test_at_most_one_plain_end_goes_out_and_sequences_have_no_gaps(
    store: LedgerStore, claims: list[Claim], cut: int
) -> None:
    events = store.order_history(told(store, in_batches(claims, cut))).events
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert sum(event.type in (EventType.SUCCEEDED, EventType.FAILED) for event in events) <= 1
