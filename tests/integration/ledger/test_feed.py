"""The event feed: nothing that commits is ever passed over, whoever writes at the same time."""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, delete, update

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.events import EventType
from service.ledger.errors import CursorExpired, FeedBehind
from service.ledger.feed import BEGINNING, EventFeed, FeedFilter, FeedPlace
from service.ledger.outbox import Outbox
from service.ledger.schema import migrate
from service.ledger.store import LedgerStore
from service.ledger.tables import deliveries, events
from tests.support.claims import a_claim
from tests.support.ledger import MakeStore

ALL = FeedFilter()
on_postgresql = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
on_every_database = pytest.mark.parametrize("ledger_url", ["postgresql", "pooled", "sqlite"], indirect=True)


@pytest.fixture
def feed(ledger_engine: Engine) -> EventFeed:
    return EventFeed(engine=ledger_engine)


def told(bodies: Sequence[bytes]) -> list[tuple[str, int]]:
    """The order and the sequence of each event."""
    found = [json.loads(body)["data"] for body in bodies]
    return [(data["biz_order_no"], data["sequence"]) for data in found]


def read_all(feed: EventFeed, *, after: FeedPlace = BEGINNING, limit: int = 3, chosen: FeedFilter = ALL) -> list[bytes]:
    found: list[bytes] = []
    more = True
    while more:
        page = feed.read(after, chosen, limit=limit)
        found += page.bodies
        after, more = page.next, page.more
    return found


@on_every_database
def test_the_pages_have_every_event_once_and_each_orders_events_in_sequence(
    store: LedgerStore, feed: EventFeed
) -> None:
    orders = [f"DK{number}" for number in range(10)]
    for status in (OrderStatus.PROCESSING, OrderStatus.SUCCEEDED):
        store.record([a_claim(status, order=order) for order in orders])
    found = told(read_all(feed))
    assert sorted(found) == sorted((order, sequence) for order in orders for sequence in (1, 2))
    assert [sequence for _, sequence in found] == [1] * 10 + [2] * 10


@on_postgresql
def test_the_feed_ends_before_an_event_that_a_running_transaction_may_still_commit(
    store: LedgerStore, feed: EventFeed, ledger_engine: Engine
) -> None:
    store.record([a_claim(order="before")])
    start = feed.latest()
    with ledger_engine.connect() as held:
        with held.begin():
            store.apply(held, a_claim(order="slow"))
            store.record([a_claim(order="quick")])
            waiting = feed.read(start, ALL, limit=10)
            assert (waiting.bodies, waiting.next, feed.latest()) == ([], start, start)
        ended = feed.read(waiting.next, ALL, limit=10)
    assert told(ended.bodies) == [("slow", 1), ("quick", 1)]


@on_postgresql
def test_a_transaction_that_is_rolled_back_leaves_no_hole_to_wait_for(
    store: LedgerStore, feed: EventFeed, ledger_engine: Engine
) -> None:
    with ledger_engine.connect() as held, held.begin() as transaction:
        store.apply(held, a_claim(order="undone"))
        store.record([a_claim(order="quick")])
        transaction.rollback()
    assert told(feed.read(BEGINNING, ALL, limit=10).bodies) == [("quick", 1)]


@on_every_database
def test_a_reader_beside_many_writers_misses_no_event_and_gets_none_twice(store: LedgerStore, feed: EventFeed) -> None:
    written = threading.Event()

    def follow() -> list[bytes]:
        found: list[bytes] = []
        after = BEGINNING
        while True:
            ended = written.is_set()
            page = feed.read(after, ALL, limit=7)
            found += page.bodies
            after = page.next
            if ended and not page.more:
                return found

    with ThreadPoolExecutor(9) as threads:
        reading = threads.submit(follow)
        batches = [[a_claim(order=f"DK{writer}-{n}") for n in range(5)] for writer in range(60)]
        list(threads.map(store.record, batches))
        written.set()
        found = told(reading.result())
    assert len(found) == len(set(found)) == 300


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (FeedFilter(merchant="other"), [("DK2", 1)]),
        (FeedFilter(type=EventType.FAILED), [("DK3", 2)]),
        (FeedFilter(status=OrderStatus.SUCCEEDED), [("DK1", 1), ("DK2", 1)]),
        (FeedFilter(order_type="refund"), [("DK4", 1)]),
        (FeedFilter(merchant="acme", type=EventType.PROCESSING), [("DK3", 1), ("DK4", 1)]),
        (FeedFilter(merchant="nobody"), []),
    ],
)
def test_a_filter_lets_pass_what_it_names_and_the_place_moves_on_all_the_same(
    make_store: MakeStore, feed: EventFeed, chosen: FeedFilter, expected: list[tuple[str, int]]
) -> None:
    store = make_store(merchants=["acme", "other"])
    for claim in (
        a_claim(order="DK1"),
        a_claim(order="DK2", merchant="other"),
        a_claim(OrderStatus.PROCESSING, order="DK3"),
        a_claim(OrderStatus.FAILED, order="DK3", minute=1),
        a_claim(OrderStatus.PROCESSING, order="DK4", order_type="refund"),
    ):
        store.record([claim])
    page = feed.read(BEGINNING, chosen, limit=10)
    assert (told(page.bodies), page.next, page.more) == (expected, feed.latest(), False)


def test_after_the_latest_place_come_only_later_events(store: LedgerStore, feed: EventFeed) -> None:
    assert feed.latest() == BEGINNING
    store.record([a_claim(order="DK1")])
    after = feed.latest()
    store.record([a_claim(order="DK2")])
    assert told(feed.read(after, ALL, limit=10).bodies) == [("DK2", 1)]


def test_the_body_is_what_is_delivered(store: LedgerStore, feed: EventFeed, outbox: Outbox) -> None:
    store.record([a_claim(channel_response="余额不足")])
    (due,) = outbox.lease_due(endpoint="books", limit=1, lease_seconds=60)
    assert list(feed.read(BEGINNING, ALL, limit=1).bodies) == [due.body]


def test_a_place_whose_event_the_ledger_does_not_have_has_expired(
    store: LedgerStore, feed: EventFeed, ledger_engine: Engine
) -> None:
    store.record([a_claim()])
    place = feed.latest()
    for other in (place._replace(txid=place.txid + 1), place._replace(sequence=2), place._replace(merchant="other")):
        with pytest.raises(CursorExpired):
            feed.read(other, ALL, limit=10)
    with ledger_engine.begin() as connection:
        connection.execute(delete(deliveries))
        connection.execute(delete(events))
    with pytest.raises(CursorExpired):
        feed.read(place, ALL, limit=10)


@on_postgresql
def test_after_a_restore_from_a_dump_the_feed_is_refused_until_migrate_begins_it_anew(
    store: LedgerStore, feed: EventFeed, ledger_engine: Engine
) -> None:
    store.record([a_claim(order="DK1")])
    place = feed.latest()
    with ledger_engine.begin() as connection:
        connection.execute(update(events).values(txid=2**40))
    for read in (lambda: feed.read(BEGINNING, ALL, limit=10), feed.latest):
        with pytest.raises(FeedBehind):
            read()
    migrate(ledger_engine)
    store.record([a_claim(order="DK2")])
    assert told(read_all(feed)) == [("DK1", 1), ("DK2", 1)]
    with pytest.raises(CursorExpired):
        feed.read(place, ALL, limit=10)


def test_an_orders_own_events_are_in_sequence(store: LedgerStore, feed: EventFeed) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim(minute=1), a_claim(order="DK2")])
    found = feed.of_order(OrderKey("acme", "DK1"))
    assert found is not None
    assert (told(found.bodies), found.order.sequence) == ([("DK1", 1), ("DK1", 2)], 2)


def test_an_order_that_only_untrusted_claims_name_has_no_events(store: LedgerStore, feed: EventFeed) -> None:
    store.record([a_claim(trust=Trust.CHECKSUM)])
    assert feed.of_order(OrderKey("acme", "DK1")) is None
