"""Many ledgers at once, and ledgers that die: nothing is recorded twice or in part, and nothing is lost."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, event, text

from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.domain.order_state import Verdict
from service.ledger.claims import IncomingClaim, insert_claims
from service.ledger.errors import LedgerContended, LedgerUnavailable
from service.ledger.orders import OrderRecord, insert_missing
from service.ledger.store import LedgerStore
from service.ledger.tables import claims, deliveries, events, inquiries, orders
from tests.support.claims import NOON, a_claim
from tests.support.ledger import Count
from tests.support.processes import run_module
from tests.support.waiting import eventually

on_every_database = pytest.mark.parametrize("ledger_url", ["postgresql", "pooled", "sqlite"], indirect=True)

KEY = OrderKey("acme", "DK1")


def record_as_a_consumer_does(store: LedgerStore, batch: Sequence[Claim]) -> Sequence[Verdict]:
    """Held back by the database, it tries again."""

    def try_once() -> Sequence[Verdict] | None:
        try:
            return store.record(batch)
        except LedgerContended:
            return None

    return eventually(try_once) or []


def record_at_once(store: LedgerStore, batches: Sequence[Sequence[Claim]]) -> list[Verdict]:
    with ThreadPoolExecutor(16) as threads:
        answers = threads.map(lambda batch: record_as_a_consumer_does(store, batch), batches)
        return [verdict for verdicts in answers for verdict in verdicts]


@on_every_database
def test_a_thousand_identical_callbacks_at_once_give_one_claim_and_one_event(store: LedgerStore, count: Count) -> None:
    batches = [[a_claim(minute=n / 60)] for n in range(200)]
    batches += [[a_claim(minute=n / 60)] * 8 for n in range(100)]
    verdicts = record_at_once(store, batches)
    assert len(verdicts) == 1000
    assert verdicts.count(Verdict.APPLIED) == 1
    assert verdicts.count(Verdict.DUPLICATE) == 999
    assert (count(claims), count(events), count(deliveries)) == (1, 1, 1)


def test_forged_copies_at_once_are_one_row_and_do_not_swallow_the_true_one(store: LedgerStore, count: Count) -> None:
    forged = [[a_claim(trust=Trust.CHECKSUM)] for _ in range(100)]
    verdicts = record_at_once(store, [*forged[:50], [a_claim()], *forged[50:]])
    assert verdicts.count(Verdict.APPLIED) == 1
    assert (count(claims), count(events)) == (2, 1)


def opposite_batches(trust: Trust) -> list[list[Claim]]:
    """Batches that name the same new orders, each with several claims, in opposite order."""
    statuses = [OrderStatus.PROCESSING, OrderStatus.SUCCEEDED]
    forwards = [a_claim(status, trust, order=f"DK{n}") for n in range(40) for status in statuses]
    return [forwards, forwards[::-1]] * 8


@pytest.mark.parametrize("trust", [Trust.CHECKSUM, Trust.CAPABILITY])
def test_batches_that_name_the_same_orders_in_opposite_order_all_get_through(
    store: LedgerStore, count: Count, trust: Trust
) -> None:
    record_at_once(store, opposite_batches(trust))
    assert count(claims) == 80


def waiting(engine: Engine) -> int:
    """How many transactions wait for a lock."""
    with engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return int(connection.execute(text(query)).scalar_one())


@pytest.mark.parametrize("trust", [Trust.CHECKSUM, Trust.CAPABILITY])
@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_batches_take_their_locks_in_one_order_and_never_deadlock(
    ledger_engine: Engine, store: LedgerStore, trust: Trust
) -> None:
    errors: list[object] = []
    event.listen(ledger_engine, "handle_error", lambda context: errors.append(context.original_exception))
    forwards = [a_claim(trust=trust, order=f"DK{n}") for n in range(10, 40)]
    middle = a_claim(trust=trust, order="DK25")
    with ThreadPoolExecutor(2) as threads, ledger_engine.connect() as holder:
        # Both batches get as far as they can before this; each would then hold what the other needs next.
        blank = OrderRecord(merchant="acme", biz_order_no="DK25", created_at=NOON, updated_at=NOON)
        insert_missing(holder, [blank])
        entry = IncomingClaim(position=0, claim=middle, counted=trust >= Trust.CAPABILITY)
        insert_claims(holder, [entry], [Verdict.STALE], now=NOON)
        batches = [threads.submit(store.record, batch) for batch in (forwards, forwards[::-1])]
        eventually(lambda: waiting(ledger_engine) == 2)
        holder.rollback()
        verdicts = [list(batch.result()) for batch in batches]
    assert errors == []
    assert sorted(of_one.count(Verdict.DUPLICATE) for of_one in verdicts) == [0, 30]


@on_every_database
def test_sequences_have_no_gaps_however_many_ledgers_write_at_once(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.PROCESSING)])
    told = [a_claim(), a_claim(OrderStatus.FAILED, minute=1)]
    corrections = [
        a_claim(status, Trust.QUERIED, minute=n)
        for n, status in enumerate([OrderStatus.FAILED, OrderStatus.SUCCEEDED] * 10, start=2)
    ]
    record_at_once(store, [[claim] for claim in told + corrections])
    history = store.order_history(KEY)
    assert history.order is not None
    assert [event.sequence for event in history.events] == list(range(1, history.order.sequence + 1))
    assert history.order.sequence >= 2


@on_every_database
@pytest.mark.parametrize("statement", ["INSERT INTO claims", "INSERT INTO events", "INSERT INTO inquiries"])
def test_a_ledger_killed_inside_its_transaction_leaves_nothing_half(
    ledger_url: str, pooled: bool, ledger_engine: Engine, store: LedgerStore, count: Count, statement: str
) -> None:
    arguments = ["ledger", ledger_url, statement, *(["pooled"] if pooled else [])]
    died = run_module("tests.support.faulty_roles", *arguments, environment=os.environ)
    assert died.returncode == -9, died.stderr
    assert [count(table) for table in (claims, orders, events, deliveries, inquiries)] == [0] * 5
    assert record_as_a_consumer_does(store, [a_claim()]) == [Verdict.APPLIED]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_connection_cut_inside_the_transaction_leaves_nothing_half(
    ledger_engine: Engine, store: LedgerStore, count: Count
) -> None:
    @event.listens_for(ledger_engine, "after_cursor_execute", once=True)
    def cut_all_others(*_: object) -> None:
        with ledger_engine.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    with pytest.raises(LedgerUnavailable):
        store.record([a_claim()])
    assert count(claims) == 0
    assert store.record([a_claim()]) == [Verdict.APPLIED]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_no_plan_that_looks_for_orders_or_inquiries_is_kept(ledger_engine: Engine, store: LedgerStore) -> None:
    """A plan made while the table was small may read all of it for each key, and is kept however large it grows."""
    for minute in range(12):
        store.record([a_claim(OrderStatus.PROCESSING, order=f"DK{minute}"), a_claim(order="DK1", minute=minute)])
        store.record([a_claim(order=f"DK{minute}")])
    with ledger_engine.connect() as connection:
        kept = connection.execute(text("SELECT statement FROM pg_prepared_statements")).scalars().all()
    assert any(statement.startswith("INSERT INTO claims") for statement in kept)
    assert [statement for statement in kept if "jsonb" in statement and not statement.startswith("INSERT")] == []
