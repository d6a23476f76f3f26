"""A resolution that needs a second person is a proposal: it changes nothing before another person confirms it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import Engine

from service.domain.claims import ClaimSource, OrderKey, OrderStatus, Trust
from service.domain.money import Money
from service.domain.order_state import Verdict
from service.ledger.announcements import Announcement
from service.ledger.audit import Action, Author, list_changes
from service.ledger.claims import Resolution
from service.ledger.errors import (
    IdentityMissing,
    LedgerError,
    OrderChanged,
    OrderUnknown,
    ProposalClosed,
    ProposalOpen,
    ProposalUnknown,
    SamePerson,
)
from service.ledger.proposals import ProposalRecord, ProposalState
from service.ledger.store import LedgerStore
from service.ledger.tables import claims, events, orders, proposals
from tests.support.claims import NOON, a_claim
from tests.support.ledger import Clock, Count, MakeStore

on_every_database = pytest.mark.parametrize("ledger_url", ["postgresql", "pooled", "sqlite"], indirect=True)

KEY = OrderKey("acme", "DK1")
PAID = Resolution(
    order=KEY, status=OrderStatus.SUCCEEDED, stated_by="Li (command line)", reason="the bank has it", identity="li"
)
FAILED = replace(PAID, status=OrderStatus.FAILED)
LI = Author(name="Li (API token desk of li)", reason="", identity="li")
WANG = Author(name="Wang (command line)", reason="a slip of the pen", identity="wang")

_Result = TypeVar("_Result")


@pytest.fixture
def store(make_store: MakeStore) -> LedgerStore:
    """A ledger whose merchant requires a second person above 100 yuan."""
    return make_store(second_person_above="100.00")


def announce(store: LedgerStore, amount: str | None = "100.01") -> None:
    unit = None if amount is None else "yuan"
    store.announce(Announcement(merchant="acme", biz_order_no="DK1", amount=amount, amount_unit=unit))


def propose(store: LedgerStore, resolution: Resolution = PAID) -> ProposalRecord:
    proposal = store.resolve(resolution)
    assert isinstance(proposal, ProposalRecord)
    return proposal


def outcome(call: Callable[[], _Result]) -> _Result | type[LedgerError]:
    try:
        return call()
    except LedgerError as error:
        return type(error)


def state_of(store: LedgerStore) -> ProposalState:
    return store.order_history(KEY).proposals[-1].state


@pytest.mark.parametrize(
    ("announced", "status", "stated", "proposed"),
    [
        ("100.00", OrderStatus.FAILED, None, False),
        ("100.01", OrderStatus.FAILED, None, True),
        ("100.00", OrderStatus.PROCESSING, None, False),
        ("100.00", OrderStatus.SUCCEEDED, None, True),
        ("100.00", OrderStatus.FAILED, Money("10001", "fen"), True),
        ("100.01", OrderStatus.FAILED, Money("1.00", "yuan"), True),
        (None, OrderStatus.FAILED, None, True),
        (None, OrderStatus.FAILED, Money("1.00", "yuan"), True),
    ],
)
def test_success_a_large_amount_and_an_unknown_one_need_a_second_person(
    store: LedgerStore, announced: str | None, status: OrderStatus, stated: Money | None, proposed: bool
) -> None:
    announce(store, announced)
    result = store.resolve(replace(PAID, status=status, amount=stated))
    assert isinstance(result, ProposalRecord) is proposed


def test_an_amount_in_dispute_counts_like_the_one_that_stands(store: LedgerStore) -> None:
    announce(store, "1.00")
    store.record([a_claim(OrderStatus.SUCCEEDED, pay_type="", amount=Money("500.00", "yuan"))])
    assert isinstance(store.resolve(FAILED), ProposalRecord)


def test_without_the_setting_one_person_resolves_any_order(make_store: MakeStore) -> None:
    store = make_store()
    announce(store)
    assert store.resolve(PAID) is Verdict.APPLIED


def test_a_proposal_changes_nothing_and_is_in_the_history(store: LedgerStore, count: Count) -> None:
    announce(store)
    before = store.order_history(KEY)
    stated = replace(
        PAID, pay_order_no="P1", pay_type="baofoo_001", amount=Money("100.01", "yuan"), paid_at=NOON, seen_sequence=0
    )
    proposal = propose(store, stated)
    assert store.order_history(KEY) == replace(before, proposals=[proposal])
    assert count(claims) == 0
    assert (proposal.status, proposal.pay_order_no, proposal.pay_type, proposal.amount, proposal.amount_unit) == (
        *(OrderStatus.SUCCEEDED, "P1", "baofoo_001", "100.01", "yuan"),
    )
    assert (proposal.paid_at, proposal.sequence, proposal.proposer, proposal.proposed_by, proposal.reason) == (
        *(NOON, 0, "li", PAID.stated_by, PAID.reason),
    )
    assert (proposal.state, proposal.decided_by, proposal.decided_at) == (ProposalState.OPEN, "", None)


def test_another_person_confirms_it_and_the_claim_names_both(store: LedgerStore, clock: Clock) -> None:
    announce(store)
    proposal = propose(store, replace(PAID, pay_order_no="P1", amount=Money("99.99", "yuan"), paid_at=NOON))
    clock.forward(60)
    assert store.confirm(KEY, proposal.id, author=WANG) is Verdict.APPLIED
    history = store.order_history(KEY)
    [claim] = history.claims
    assert (claim.source, claim.trust) == (ClaimSource.OPERATOR, Trust.OPERATOR)
    assert claim.stated_by == "Li (command line), confirmed by Wang (command line)"
    assert (claim.reason, claim.pay_order_no, claim.amount, claim.paid_at) == (PAID.reason, "P1", "99.99", NOON)
    assert history.order is not None
    assert (history.order.state.status, history.order.paid_at) == (OrderStatus.SUCCEEDED, NOON)
    [settled] = history.proposals
    assert (settled.state, settled.decided_by, settled.decided_at) == (
        *(ProposalState.CONFIRMED, WANG.name, NOON + timedelta(seconds=60)),
    )


def test_the_same_person_cannot_confirm_by_whatever_interface(store: LedgerStore) -> None:
    announce(store)
    proposal = propose(store)
    with pytest.raises(SamePerson, match=f"li has made proposal {proposal.id}: another person has to confirm it"):
        store.confirm(KEY, proposal.id, author=LI)
    assert state_of(store) is ProposalState.OPEN
    assert store.order_history(KEY).claims == []


def test_who_cannot_be_identified_neither_proposes_nor_confirms(store: LedgerStore) -> None:
    announce(store)
    with pytest.raises(IdentityMissing):
        store.resolve(replace(PAID, identity=""))
    assert store.order_history(KEY).proposals == []
    proposal = propose(store)
    with pytest.raises(IdentityMissing):
        store.confirm(KEY, proposal.id, author=replace(WANG, identity=""))
    assert state_of(store) is ProposalState.OPEN


def test_an_open_proposal_keeps_every_other_resolution_out_until_it_is_withdrawn(store: LedgerStore) -> None:
    announce(store, "1.00")
    proposal = propose(store)
    for other in (PAID, FAILED):
        with pytest.raises(ProposalOpen, match=f"proposal {proposal.id} about the order is open: run `orders confirm`"):
            store.resolve(other)
    withdrawn = store.withdraw(KEY, proposal.id, author=WANG)
    assert (withdrawn.state, withdrawn.decided_by, withdrawn.decision_reason) == (
        *(ProposalState.WITHDRAWN, WANG.name, WANG.reason),
    )
    with pytest.raises(ProposalClosed, match="is withdrawn"):
        store.confirm(KEY, proposal.id, author=WANG)
    with pytest.raises(ProposalClosed, match="is withdrawn"):
        store.withdraw(KEY, proposal.id, author=LI)
    assert store.resolve(FAILED) is Verdict.APPLIED


def test_a_proposal_lapses_when_the_order_changes_and_a_new_one_takes_its_place(store: LedgerStore) -> None:
    announce(store)
    first = propose(store)
    store.record([a_claim(OrderStatus.PROCESSING)])
    assert state_of(store) is ProposalState.LAPSED
    with pytest.raises(ProposalClosed, match=f"proposal {first.id} is lapsed"):
        store.confirm(KEY, first.id, author=WANG)
    with pytest.raises(ProposalClosed, match="is lapsed"):
        store.withdraw(KEY, first.id, author=WANG)
    assert [claim.source for claim in store.order_history(KEY).claims] == [ClaimSource.CALLBACK]
    second = propose(store)
    assert (second.id, second.sequence) != (first.id, first.sequence)
    assert [one.state for one in store.order_history(KEY).proposals] == [ProposalState.LAPSED, ProposalState.OPEN]
    assert store.confirm(KEY, second.id, author=WANG) is Verdict.APPLIED


def test_a_proposal_about_a_sequence_that_has_passed_is_refused(store: LedgerStore) -> None:
    announce(store)
    store.record([a_claim(OrderStatus.PROCESSING)])
    with pytest.raises(OrderChanged) as caught:
        store.resolve(replace(PAID, seen_sequence=0))
    assert caught.value.sequence == 1
    assert store.order_history(KEY).proposals == []


def test_a_proposal_is_found_only_by_its_own_order_and_id(store: LedgerStore) -> None:
    announce(store)
    proposal = propose(store)
    with pytest.raises(ProposalUnknown):
        store.confirm(OrderKey("acme", "DK2"), proposal.id, author=WANG)
    with pytest.raises(ProposalUnknown):
        store.withdraw(KEY, proposal.id + 1, author=WANG)


def test_nothing_is_proposed_about_an_unknown_order(store: LedgerStore) -> None:
    with pytest.raises(OrderUnknown):
        store.resolve(PAID)


def test_an_order_that_nobody_believes_in_needs_a_second_person_and_exists_once_confirmed(
    store: LedgerStore, count: Count
) -> None:
    store.record([a_claim(trust=Trust.CHECKSUM)])
    proposal = propose(store, FAILED)
    assert (proposal.sequence, count(orders)) == (0, 0)
    assert store.confirm(KEY, proposal.id, author=WANG) is Verdict.APPLIED
    assert count(orders) == 1


def test_every_decision_is_in_the_audit_once_and_in_the_history_as_before(
    store: LedgerStore, ledger_engine: Engine, clock: Clock
) -> None:
    announce(store)
    store.withdraw(KEY, propose(store).id, author=WANG)
    store.confirm(KEY, propose(store, FAILED).id, author=WANG)
    clock.forward(60)
    store.announce(Announcement(merchant="acme", biz_order_no="DK2", amount="1.00", amount_unit="yuan"))
    other = replace(FAILED, order=OrderKey("acme", "DK2"))
    assert [store.resolve(other), store.resolve(other)] == [Verdict.APPLIED, Verdict.DUPLICATE]
    changes = list_changes(ledger_engine, limit=10)
    assert [(one.action, one.subject, one.changed_by, one.reason) for one in changes] == [
        (Action.RESOLVE, "acme/DK2: failed", FAILED.stated_by, FAILED.reason),
        (Action.RESOLVE, "acme/DK2: failed", FAILED.stated_by, FAILED.reason),
        (Action.CONFIRM, "acme/DK1: failed", WANG.name, WANG.reason),
        (Action.PROPOSE, "acme/DK1: failed", FAILED.stated_by, FAILED.reason),
        (Action.WITHDRAW, "acme/DK1: succeeded", WANG.name, WANG.reason),
        (Action.PROPOSE, "acme/DK1: succeeded", PAID.stated_by, PAID.reason),
    ]
    assert [(one.merchant, one.biz_order_no) for one in changes] == [("acme", "DK2")] * 2 + [KEY] * 4
    assert [one.changed_at for one in changes] == [NOON + timedelta(seconds=60)] * 2 + [NOON] * 4
    assert store.order_history(KEY).changes == []


def test_a_decision_that_is_refused_is_not_in_the_audit(store: LedgerStore, ledger_engine: Engine) -> None:
    announce(store, "1.00")
    proposal = propose(store)
    before = list_changes(ledger_engine, limit=10)
    refused: Sequence[Callable[[], object]] = [
        partial(store.resolve, FAILED),
        partial(store.confirm, KEY, proposal.id, author=LI),
        partial(store.confirm, KEY, proposal.id, author=replace(WANG, identity="")),
    ]
    assert [outcome(call) for call in refused] == [ProposalOpen, SamePerson, IdentityMissing]
    store.record([a_claim(OrderStatus.PROCESSING, pay_type="", amount=Money("1.00", "yuan"))])
    refused = [
        partial(store.confirm, KEY, proposal.id, author=WANG),
        partial(store.withdraw, KEY, proposal.id, author=WANG),
        partial(store.resolve, replace(FAILED, seen_sequence=0)),
        partial(store.resolve, replace(PAID, identity="")),
        partial(store.resolve, replace(PAID, seen_sequence=0)),
    ]
    assert [outcome(call) for call in refused] == [
        *(ProposalClosed, ProposalClosed, OrderChanged, IdentityMissing, OrderChanged),
    ]
    assert list_changes(ledger_engine, limit=10) == before


def at_once(calls: Sequence[Callable[[], _Result]]) -> list[_Result | type[LedgerError]]:
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(outcome, calls))


def people(number: int) -> list[Author]:
    return [Author(name=f"person {n}", reason="", identity=f"person-{n}") for n in range(number)]


@on_every_database
@pytest.mark.parametrize("known", [True, False], ids=["an announced order", "an order without a row"])
def test_of_many_who_confirm_at_once_one_does(
    store: LedgerStore, ledger_engine: Engine, count: Count, known: bool
) -> None:
    if known:
        announce(store)
    else:
        store.record([a_claim(trust=Trust.CHECKSUM)])
    proposal = propose(store)
    before = count(claims)
    results = at_once([partial(store.confirm, KEY, proposal.id, author=who) for who in people(8)])
    assert results.count(Verdict.APPLIED) == 1
    assert results.count(ProposalClosed) == 7
    assert (count(claims) - before, count(events)) == (1, 1)
    [settled] = store.order_history(KEY).proposals
    assert settled.state is ProposalState.CONFIRMED
    assert store.order_history(KEY).claims[-1].stated_by.endswith(f"confirmed by {settled.decided_by}")
    assert [(change.action, change.changed_by) for change in list_changes(ledger_engine, limit=10)] == [
        (Action.CONFIRM, settled.decided_by),
        (Action.PROPOSE, PAID.stated_by),
    ]


@on_every_database
@pytest.mark.parametrize("known", [True, False], ids=["an announced order", "an order without a row"])
def test_of_many_who_propose_at_once_one_does(store: LedgerStore, count: Count, known: bool) -> None:
    if known:
        announce(store)
    else:
        store.record([a_claim(trust=Trust.CHECKSUM)])
    results = at_once([partial(store.resolve, PAID)] * 8)
    assert results.count(ProposalOpen) == 7
    assert count(proposals) == 1


@on_every_database
def test_a_confirmation_and_a_claim_at_once_never_overrule_what_nobody_has_seen(make_store: MakeStore) -> None:
    store = make_store(second_person_above="100.00")
    for number in range(20):
        key = OrderKey("acme", f"DK{number}")
        store.announce(Announcement(merchant="acme", biz_order_no=key.biz_order_no))
        proposal = propose(store, replace(PAID, order=key))
        with ThreadPoolExecutor(2) as threads:
            confirmation = threads.submit(outcome, partial(store.confirm, key, proposal.id, author=WANG))
            threads.submit(store.record, [a_claim(OrderStatus.FAILED, order=key.biz_order_no)])
        history = store.order_history(key)
        if confirmation.result() is ProposalClosed:
            assert [one.source for one in history.claims] == [ClaimSource.CALLBACK]
            assert history.proposals[0].state is ProposalState.LAPSED
        else:
            assert confirmation.result() is Verdict.APPLIED
            assert [one.source for one in history.claims] == [ClaimSource.OPERATOR, ClaimSource.CALLBACK]
            assert history.proposals[0].state is ProposalState.CONFIRMED
