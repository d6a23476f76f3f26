"""Forged orders are removed in time, and nothing else."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text, update

from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.domain.order_state import Verdict
from service.ledger.announcements import Announcement, record_announcement
from service.ledger.claims import Resolution
from service.ledger.decisions import MerchantRules
from service.ledger.errors import LedgerContended
from service.ledger.forgeries import Forgeries, Removed
from service.ledger.inquiries import InquiryReason, InquiryState
from service.ledger.inquiry_questions import DueInquiry, QuestionOutcome, QuestionResult
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.store import LedgerStore
from service.ledger.tables import asked_questions, claims, inquiries, orders, proposals
from tests.support.claims import NOON, a_claim
from tests.support.ledger import Count, MakeInquiryQueue, MakeStore
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

KEY = OrderKey("acme", "DK1")
LATER = timedelta(days=40)
NOT_FOUND = QuestionResult(outcome=QuestionOutcome.NOT_FOUND, request_id="", seconds=0.0)
ANSWERED = QuestionResult(outcome=QuestionOutcome.ANSWERED, request_id="", seconds=0.0)
RULES = MerchantRules(
    required_trust=Trust.QUERIED, can_ask=True, answer_due_seconds=600, inquiry_horizon_seconds=86_400
)
on_postgresql = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)


@pytest.fixture
def store(make_store: MakeStore) -> LedgerStore:
    """It believes only what the gateway answers."""
    return make_store(required=Trust.QUERIED)


@pytest.fixture
def queue(make_inquiry_queue: MakeInquiryQueue, store: LedgerStore) -> InquiryQueue:
    return make_inquiry_queue(store)


@pytest.fixture
def forgeries(ledger_engine: Engine) -> Forgeries:
    return Forgeries(engine=ledger_engine)


def forged(order: str = "DK1", **more: Any) -> Claim:
    return a_claim(trust=Trust.CHECKSUM, order=order, **more)


def ask_until_over(queue: InquiryQueue, clock: Any, engine: Engine) -> None:
    """The gateway knows none of the orders."""
    while _any_open(engine):
        for inquiry in queue.lease_due("acme", limit=100, lease_seconds=60):
            queue.settle(inquiry, NOT_FOUND)
        clock.forward(600)


def _any_open(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.execute(text("SELECT 1 FROM inquiries WHERE state IN ('open', 'asking')")).first() is not None


@pytest.fixture
def forge(store: LedgerStore, queue: InquiryQueue, clock: Any, ledger_engine: Engine) -> Callable[..., datetime]:
    """Makes forged orders whose inquiries are over; answers a time by which they are old."""

    def make(*names: str) -> datetime:
        store.record([forged(name) for name in names or ("DK1",)])
        ask_until_over(queue, clock, ledger_engine)
        clock.forward(LATER.total_seconds())
        old: datetime = clock() - timedelta(days=30)
        return old

    return make


# What is removed.


@pytest.mark.parametrize(
    "said",
    [*({"status": status} for status in OrderStatus), {"status": None, "quarantine": "unknown pay_status"}],
    ids=lambda said: str(said["status"]),
)
def test_of_a_forged_order_nothing_stays_once_it_is_old(
    store: LedgerStore,
    queue: InquiryQueue,
    forgeries: Forgeries,
    clock: Any,
    ledger_engine: Engine,
    count: Count,
    said: dict[str, Any],
) -> None:
    store.record([forged(**said), forged(pay_order_no="P2", **said)])
    ask_until_over(queue, clock, ledger_engine)
    assert forgeries.remove(before=clock() - timedelta(days=30)) == Removed()
    assert store.knows(KEY)
    clock.forward(LATER.total_seconds())
    assert forgeries.remove(before=clock() - timedelta(days=30)) == Removed(orders=1, claims=2)
    assert [count(table) for table in (claims, inquiries, asked_questions, orders)] == [0, 0, 0, 0]
    assert not store.knows(KEY)


def test_the_prune_command_removes_them_too(store: LedgerStore, forge: Callable[..., datetime], count: Count) -> None:
    old = forge()
    assert store.prune(before=old) == 1
    assert count(claims) == 0


def test_a_removed_order_that_comes_again_is_a_new_one(
    store: LedgerStore, queue: InquiryQueue, forgeries: Forgeries, forge: Callable[..., datetime], clock: Any
) -> None:
    forgeries.remove(before=forge())
    assert store.record([forged()]) == [Verdict.UNTRUSTED]
    (asked,) = queue.lease_due("acme", limit=10, lease_seconds=60)
    queue.settle(asked, ANSWERED, claim=a_claim(trust=Trust.QUERIED, stated_at=clock()))
    history = store.order_history(KEY)
    assert history.order is not None
    assert history.order.state.status is OrderStatus.SUCCEEDED
    assert [question.outcome for question in history.questions] == [QuestionOutcome.ANSWERED]


def test_replayed_forgeries_cost_no_more_questions_than_the_share_for_doubts(
    store: LedgerStore,
    make_inquiry_queue: MakeInquiryQueue,
    forgeries: Forgeries,
    forge: Callable[..., datetime],
    clock: Any,
) -> None:
    names = [f"DK{number}" for number in range(50)]
    forgeries.remove(before=forge(*names))
    slow = make_inquiry_queue(store, max_per_minute=60)
    store.record([forged(name) for name in names])
    asked = 0
    for _ in range(60):
        asked += len(slow.lease_due("acme", limit=100, lease_seconds=60))
        clock.forward(1)
    # A minute's share, and what one burst may have left of the minute before.
    assert 25 <= asked <= 32


def test_an_order_of_which_a_stranger_said_very_much_goes_in_small_pieces(
    store: LedgerStore, queue: InquiryQueue, forgeries: Forgeries, clock: Any, ledger_engine: Engine
) -> None:
    store.record([forged(pay_order_no=f"P{number}") for number in range(2500)])
    ask_until_over(queue, clock, ledger_engine)
    clock.forward(LATER.total_seconds())
    removed: list[int] = []

    @event.listens_for(ledger_engine, "after_cursor_execute")
    def see(_connection: Any, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM claims"):
            removed.append(cursor.rowcount)

    assert forgeries.remove(before=clock()) == Removed(orders=1, claims=2500)
    assert removed == [1000, 1000, 500]


# What is kept.


def test_an_order_stays_while_its_question_is_open(
    store: LedgerStore, queue: InquiryQueue, forgeries: Forgeries, clock: Any, count: Count
) -> None:
    store.record([forged(), forged("DK2")])
    queue.lease_due("acme", limit=1, lease_seconds=10**9)
    clock.forward(LATER.total_seconds())
    assert forgeries.remove(before=clock(), max_kept=0) == Removed()
    assert count(claims) == 2


def test_an_order_that_was_given_up_and_waits_for_a_person_stays(
    store: LedgerStore,
    queue: InquiryQueue,
    forgeries: Forgeries,
    clock: Any,
    count: Count,
    parked_inquiries: Callable[[], int],
) -> None:
    store.record([forged()])
    while (asked := queue.lease_due("acme", limit=1, lease_seconds=60)) or not parked_inquiries():
        for inquiry in asked:
            queue.settle(inquiry, QuestionResult(outcome=QuestionOutcome.NO_ANSWER, request_id="", seconds=0.0))
        clock.forward(3600)
    clock.forward(LATER.total_seconds())
    assert forgeries.remove(before=clock(), max_kept=0) == Removed()
    assert count(claims) == 1


def test_an_order_that_became_real_keeps_all_of_its_claims(
    store: LedgerStore, forgeries: Forgeries, forge: Callable[..., datetime], clock: Any, count: Count
) -> None:
    forge("DK1", "DK2")
    store.announce(Announcement(merchant="acme", biz_order_no="DK1"))
    store.record([a_claim(trust=Trust.QUERIED, order="DK2", stated_at=clock())])
    clock.forward(LATER.total_seconds())
    assert forgeries.remove(before=clock(), max_kept=0) == Removed()
    assert (count(claims), count(orders)) == (3, 2)


def test_an_order_that_became_real_while_nobody_could_be_asked_is_kept_and_not_looked_at_again(
    make_store: MakeStore, forgeries: Forgeries, forge: Callable[..., datetime], count: Count
) -> None:
    old = forge()
    unable = make_store(required=Trust.QUERIED, can_ask=False)
    unable.announce(Announcement(merchant="acme", biz_order_no="DK1"))
    assert count(inquiries, inquiries.c.unknown_since.is_not(None)) == 1
    assert forgeries.remove(before=old) == Removed()
    assert count(inquiries, inquiries.c.unknown_since.is_not(None)) == 0
    assert (count(claims), count(inquiries), count(orders)) == (1, 1, 1)


def test_a_settled_order_that_the_gateway_has_forgotten_stays(
    store: LedgerStore, queue: InquiryQueue, forgeries: Forgeries, clock: Any, ledger_engine: Engine, count: Count
) -> None:
    store.record([a_claim(trust=Trust.QUERIED, stated_at=clock())])
    store.record([forged(status=OrderStatus.FAILED)])
    ask_until_over(queue, clock, ledger_engine)
    clock.forward(LATER.total_seconds())
    assert count(inquiries, inquiries.c.state == InquiryState.NOT_FOUND.value) == 1
    assert forgeries.remove(before=clock(), max_kept=0) == Removed()
    assert (count(claims), count(orders)) == (2, 1)


def test_an_order_of_which_someone_spoke_by_its_token_stays(
    store: LedgerStore, forgeries: Forgeries, forge: Callable[..., datetime], ledger_engine: Engine, count: Count
) -> None:
    old = forge()
    with ledger_engine.begin() as connection:
        connection.execute(update(claims).values(trust=int(Trust.CAPABILITY)))
    assert forgeries.remove(before=old, max_kept=0) == Removed()
    assert (count(claims), count(inquiries)) == (1, 1)


def test_an_order_about_which_a_person_has_made_a_proposal_stays(
    make_store: MakeStore, forgeries: Forgeries, forge: Callable[..., datetime], count: Count
) -> None:
    before = forge()
    paid = Resolution(order=KEY, status=OrderStatus.SUCCEEDED, stated_by="Li", reason="the bank has it", identity="li")
    make_store(required=Trust.QUERIED, second_person_above="0").resolve(paid)
    assert forgeries.remove(before=before) == Removed()
    assert (count(claims), count(proposals)) == (1, 1)


def test_an_order_counts_as_old_from_the_last_word_about_it(
    make_store: MakeStore, forgeries: Forgeries, forge: Callable[..., datetime], clock: Any, count: Count
) -> None:
    old = forge()
    # It opens no question: the merchant's gateway was taken out of the settings.
    make_store(required=Trust.QUERIED, can_ask=False).record([forged(pay_order_no="P2")])
    assert forgeries.remove(before=old, max_kept=0) == Removed(orders=1, claims=2)


# The cap.


def test_of_more_than_the_cap_the_oldest_that_are_over_go_early(
    store: LedgerStore, queue: InquiryQueue, forgeries: Forgeries, clock: Any, ledger_engine: Engine
) -> None:
    for number in range(5):
        store.record([forged(f"DK{number}")])
        ask_until_over(queue, clock, ledger_engine)
    store.record([forged(f"OPEN{number}") for number in range(10)])
    store.announce(Announcement(merchant="acme", biz_order_no="ANNOUNCED"))
    assert forgeries.remove(before=NOON, max_kept=2) == Removed(orders=3, claims=3)
    kept = [name for name in ("DK0", "DK1", "DK2", "DK3", "DK4") if store.knows(OrderKey("acme", name))]
    assert kept == ["DK3", "DK4"]
    assert all(store.knows(OrderKey("acme", f"OPEN{number}")) for number in range(10))
    assert forgeries.remove(before=NOON, max_kept=2) == Removed()


def test_removal_stops_between_two_orders_when_asked(
    forgeries: Forgeries, forge: Callable[..., datetime], count: Count
) -> None:
    old = forge("DK1", "DK2", "DK3")
    asked = iter([False, True])
    assert forgeries.remove(before=old, stop=lambda: next(asked)) == Removed(orders=1, claims=1)
    assert count(claims) == 2


@pytest.mark.parametrize("max_kept", [None, 1000])
def test_what_is_to_be_removed_is_found_by_an_index(
    store: LedgerStore, forgeries: Forgeries, ledger_engine: Engine, max_kept: int | None
) -> None:
    plans: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if ledger_engine.dialect.name == "sqlite" else "EXPLAIN "
    with ledger_engine.begin() as connection:
        connection.execute(
            text("INSERT INTO inquiry_rates VALUES ('acme', :at, :at)"), {"at": "2026-01-05 12:00:00+00"}
        )

    @event.listens_for(ledger_engine, "before_cursor_execute")
    def see(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if "unknown_since" in statement and not statement.startswith("EXPLAIN"):
            if ledger_engine.dialect.name != "sqlite":
                cursor.execute("SET LOCAL enable_seqscan = off")
                cursor.execute("SET LOCAL enable_bitmapscan = off")
            cursor.execute(explain + statement, parameters)
            plans.append(str(cursor.fetchall()))

    forgeries.remove(before=NOON, max_kept=max_kept)
    assert plans
    assert all("ix_inquiries_unknown" in plan for plan in plans)
    assert not any("Sort" in plan or "TEMP B-TREE" in plan for plan in plans)


# Races, on two connections.


@contextmanager
def paused_before(engine: Engine, statement: str) -> Iterator[threading.Event]:
    """Holds the removal inside its transaction right before a statement, until the event is set."""
    reached, go_on = threading.Event(), threading.Event()
    remover: list[int] = []

    @event.listens_for(engine, "before_cursor_execute")
    def hold(_connection: Any, _cursor: Any, sent: str, *_: object) -> None:
        if sent.startswith(statement) and not remover:
            remover.append(threading.get_ident())
            reached.set()
            assert go_on.wait(HANGS_AFTER_SECONDS)

    go_on.reached = reached  # type: ignore[attr-defined]
    try:
        yield go_on
    finally:
        go_on.set()
        event.remove(engine, "before_cursor_execute", hold)


def waiting(engine: Engine) -> int:
    """How many transactions wait for a lock."""
    with engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return int(connection.execute(text(query)).scalar_one())


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


Change = Callable[[LedgerStore], object]


def announce(store: LedgerStore) -> object:
    return store.announce(Announcement(merchant="acme", biz_order_no="DK1"))


def record_answer(store: LedgerStore) -> object:
    return store.record([a_claim(OrderStatus.PROCESSING, Trust.QUERIED)])


def record_news(store: LedgerStore) -> object:
    return store.record([forged(pay_order_no="P2")])


def record_repeat(store: LedgerStore) -> object:
    return store.record([forged()])


def have_it_asked(store: LedgerStore) -> object:
    return store.inquire(KEY, InquiryReason.OPERATOR)


@on_postgresql
@pytest.mark.parametrize("change", [announce, record_answer, record_news, record_repeat, have_it_asked])
def test_what_comes_while_an_order_is_removed_waits_and_is_as_if_it_came_after(
    ledger_engine: Engine,
    store: LedgerStore,
    forgeries: Forgeries,
    forge: Callable[..., datetime],
    threads: ThreadPoolExecutor,
    count: Count,
    change: Change,
) -> None:
    old = forge()
    with paused_before(ledger_engine, "DELETE FROM inquiries") as go_on:
        removing = threads.submit(forgeries.remove, before=old)
        assert go_on.reached.wait(HANGS_AFTER_SECONDS)  # type: ignore[attr-defined]
        changing = threads.submit(change, store)
        eventually(lambda: waiting(ledger_engine) == 1)
        go_on.set()
        assert removing.result() == Removed(orders=1, claims=1)
        changing.result()
    inquiry = store.load_inquiry(KEY)
    assert inquiry is not None
    assert inquiry.state is InquiryState.OPEN
    assert count(orders) == (1 if change in (announce, record_answer) else 0)
    assert count(claims) == (0 if change in (announce, have_it_asked) else 1)
    assert forgeries.remove(before=old, max_kept=0) == Removed()


@on_postgresql
@pytest.mark.parametrize("change", [announce, record_answer, record_news, have_it_asked])
def test_an_order_is_left_alone_while_anybody_works_on_it(
    ledger_engine: Engine,
    store: LedgerStore,
    forgeries: Forgeries,
    forge: Callable[..., datetime],
    threads: ThreadPoolExecutor,
    count: Count,
    change: Change,
) -> None:
    old = forge("DK1", "DK2")
    statement = "INSERT INTO inquiries"  # its last one
    with paused_before(ledger_engine, statement) as go_on:
        # It holds the order's row, or the inquiry's.
        changing: Future[object]
        if change in (announce, record_answer):
            changing = threads.submit(change, store)
            assert go_on.reached.wait(HANGS_AFTER_SECONDS)  # type: ignore[attr-defined]
            assert forgeries.remove(before=old) == Removed(orders=1, claims=1)
            go_on.set()
            changing.result()
    if change not in (announce, record_answer):
        with ledger_engine.begin() as holder:
            holder.execute(text("SELECT 1 FROM inquiries WHERE biz_order_no = 'DK1' FOR UPDATE"))
            assert forgeries.remove(before=old) == Removed(orders=1, claims=1)
        change(store)
    inquiry = store.load_inquiry(KEY)
    assert inquiry is not None
    assert inquiry.state is InquiryState.OPEN
    assert forgeries.remove(before=old, max_kept=0) == Removed()
    assert count(claims) == (2 if change in (record_answer, record_news) else 1)


@on_postgresql
def test_an_announcement_that_is_taken_back_leaves_a_forged_order_that_is_removed_later(
    ledger_engine: Engine, forgeries: Forgeries, forge: Callable[..., datetime]
) -> None:
    old = forge()
    with ledger_engine.connect() as holder:
        announcement = Announcement(merchant="acme", biz_order_no="DK1")
        record_announcement(holder, announcement, merchant=RULES, endpoints=(), now=NOON)
        assert forgeries.remove(before=old) == Removed()
        holder.rollback()
    assert forgeries.remove(before=old) == Removed(orders=1, claims=1)


@on_postgresql
def test_an_inquiry_that_is_opened_and_leased_meanwhile_is_not_removed(
    ledger_engine: Engine,
    store: LedgerStore,
    queue: InquiryQueue,
    forgeries: Forgeries,
    forge: Callable[..., datetime],
    threads: ThreadPoolExecutor,
) -> None:
    old = forge()
    # It has found the order, and has no lock yet.
    with paused_before(ledger_engine, "INSERT INTO orders") as go_on:
        removing = threads.submit(forgeries.remove, before=old)
        assert go_on.reached.wait(HANGS_AFTER_SECONDS)  # type: ignore[attr-defined]
        have_it_asked(store)
        (asked,) = queue.lease_due("acme", limit=1, lease_seconds=60)
        go_on.set()
        assert removing.result() == Removed()
    assert queue.settle(asked, NOT_FOUND).state is InquiryState.OPEN


def test_two_that_remove_at_once_remove_each_order_once(
    ledger_engine: Engine, forgeries: Forgeries, forge: Callable[..., datetime], count: Count
) -> None:
    old = forge(*(f"DK{number}" for number in range(40)))
    with ThreadPoolExecutor(4) as pool:
        removed = list(pool.map(lambda _: forgeries.remove(before=old), range(4)))
    assert sum(one.claims for one in removed) == 40
    assert sum(one.orders for one in removed) == 40
    assert (count(claims), count(inquiries), count(orders)) == (0, 0, 0)


def test_whatever_comes_while_orders_are_removed_is_kept_and_asked_about(
    store: LedgerStore, forgeries: Forgeries, forge: Callable[..., datetime], count: Callable[..., int]
) -> None:
    names = [f"DK{number}" for number in range(30)]
    old = forge(*names)

    def change(name: str) -> None:
        number = int(name[2:]) % 3
        if number == 0:
            store.announce(Announcement(merchant="acme", biz_order_no=name))
        elif number == 1:
            store.record([a_claim(OrderStatus.PROCESSING, Trust.QUERIED, order=name)])
        else:
            store.record([forged(name, pay_order_no="P2")])

    def insist(name: str) -> None:
        def once() -> bool:
            try:
                change(name)
            except LedgerContended:
                return False
            return True

        eventually(once)

    with ThreadPoolExecutor(6) as pool:
        removing = [pool.submit(forgeries.remove, before=old) for _ in range(3)]
        list(pool.map(insist, reversed(names)))
        for one in removing:
            one.result()
    assert count(orders) == 20
    for name in names:
        inquiry = store.load_inquiry(OrderKey("acme", name))
        assert inquiry is not None
        assert inquiry.state is InquiryState.OPEN
        history = store.order_history(OrderKey("acme", name))
        others = [claim for claim in history.claims if claim.trust is Trust.QUERIED or claim.pay_order_no == "P2"]
        assert len(others) == (0 if int(name[2:]) % 3 == 0 else 1)


# Who was asking.


def _lose_lease(store: LedgerStore, queue: InquiryQueue, clock: Any, engine: Engine) -> DueInquiry:
    """An asker that is frozen until its order was given up by others."""
    store.record([forged()])
    (lost,) = queue.lease_due("acme", limit=1, lease_seconds=1)
    clock.forward(100)
    ask_until_over(queue, clock, engine)
    clock.forward(LATER.total_seconds())
    return lost


@pytest.mark.parametrize("claim", [None, OrderStatus.SUCCEEDED, OrderStatus.PROCESSING])
def test_an_answer_that_comes_after_the_order_was_removed_counts(
    store: LedgerStore,
    queue: InquiryQueue,
    forgeries: Forgeries,
    clock: Any,
    ledger_engine: Engine,
    claim: OrderStatus | None,
) -> None:
    lost = _lose_lease(store, queue, clock, ledger_engine)
    assert forgeries.remove(before=clock()).orders == 1
    if claim is None:
        assert queue.settle(lost, NOT_FOUND).state is InquiryState.NOT_FOUND
        assert not store.knows(KEY)
        return
    settled = queue.settle(lost, ANSWERED, claim=a_claim(claim, Trust.QUERIED, stated_at=NOON))
    assert settled.verdict is Verdict.APPLIED
    assert settled.state is (InquiryState.ANSWERED if claim.terminal else InquiryState.OPEN)
    order = store.load_order(KEY)
    assert order is not None
    assert order.state.status is claim


def test_a_late_reply_settles_nothing_of_an_order_that_was_removed_and_came_again(
    store: LedgerStore, queue: InquiryQueue, forgeries: Forgeries, clock: Any, ledger_engine: Engine
) -> None:
    lost = _lose_lease(store, queue, clock, ledger_engine)
    forgeries.remove(before=clock())
    store.record([forged()])
    (again,) = queue.lease_due("acme", limit=1, lease_seconds=60)
    assert again.fence == lost.fence
    assert queue.settle(lost, NOT_FOUND).state is InquiryState.ASKING
    (question,) = store.order_history(KEY).questions
    assert question.outcome is None
    assert queue.settle(again, NOT_FOUND).state is InquiryState.OPEN
