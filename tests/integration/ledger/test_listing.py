"""Lists of orders, page by page, by what people search for; an order by either number; and lists of deliveries."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from service.domain.claims import OrderStatus, Trust
from service.domain.money import Money
from service.ledger.announcements import Announcement
from service.ledger.dead_letters import DeadLetterRecord, DeadLetterStore
from service.ledger.endpoints import list_last_delivered
from service.ledger.errors import ClaimUnstorable
from service.ledger.orders import OrderFilter
from service.ledger.outbox import Outbox
from service.ledger.store import LedgerStore
from tests.support.claims import NOON, a_claim
from tests.support.ledger import Clock, MakeStore


def numbers(store: LedgerStore, **chosen: object) -> list[str]:
    """The numbers of the listed orders, sorted."""
    return sorted(order.biz_order_no for order in store.list_orders(OrderFilter(**chosen), limit=100))  # type: ignore[arg-type]


def test_pages_hold_every_order_once_though_a_batch_gives_all_of_them_one_time(store: LedgerStore) -> None:
    batch = {f"DK{number}" for number in range(25)}
    store.record([a_claim(order=number) for number in batch])
    found: list[str] = []
    after = None
    while page := store.list_orders(OrderFilter(merchant="acme", after=after), limit=4):
        found += [order.biz_order_no for order in page]
        after = page[-1].place
    assert len(found) == len(batch)
    assert set(found) == batch


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("100", ["DK1", "DK2", "DK3", "DK4"]),
        ("100.0", ["DK1", "DK2", "DK3", "DK4"]),
        ("100.00", ["DK1", "DK2", "DK3", "DK4"]),
        ("100.000", ["DK1", "DK2", "DK3", "DK4"]),
        ("100.5", ["DK5"]),
        ("100.50", ["DK5"]),
        ("100.05", ["DK6"]),
        ("10", []),
        ("1000", []),
        ("", []),
    ],
)
def test_an_amount_is_found_however_it_is_written(store: LedgerStore, asked: str, found: list[str]) -> None:
    for number, amount in enumerate(["100", "100.0", "100.00", "100.00", "100.50", "100.05"], start=1):
        store.record([a_claim(order=f"DK{number}", amount=Money(amount, "fen" if number == 4 else "yuan"))])
    store.record([a_claim(order="DK7")])
    assert numbers(store, amount=asked) == found


def test_an_announced_amount_is_found_before_any_claim(store: LedgerStore) -> None:
    store.announce(Announcement(merchant="acme", biz_order_no="DK1", amount="100.00", amount_unit="yuan"))
    assert numbers(store, amount="100") == ["DK1"]
    assert numbers(store, amount="100", status=OrderStatus.FAILED) == []


def test_a_window_of_time_has_its_beginning_and_not_its_end(store: LedgerStore, clock: Clock) -> None:
    store.record([a_claim(order="DK1")])
    first = clock()
    clock.forward(60)
    store.record([a_claim(order="DK2")])
    second = clock()
    assert numbers(store, updated_since=first, updated_before=second) == ["DK1"]
    assert numbers(store, updated_since=first) == ["DK1", "DK2"]
    assert numbers(store, updated_since=first + timedelta(microseconds=1)) == ["DK2"]
    assert numbers(store, updated_since=second, updated_before=second) == []


def test_an_order_is_found_by_its_own_number_and_by_the_gateways(store: LedgerStore, clock: Clock) -> None:
    store.record([a_claim(order="DK1", pay_order_no="P-1"), a_claim(order="DK2", pay_order_no="P-2")])
    clock.forward(60)
    # Somebody has chosen the gateway's number of another order.
    store.record([a_claim(order="P-1", pay_order_no="P-3")])
    assert [order.biz_order_no for order in store.find_orders("DK2", limit=10)] == ["DK2"]
    assert [order.biz_order_no for order in store.find_orders("P-2", limit=10)] == ["DK2"]
    # The last changed first.
    assert [order.biz_order_no for order in store.find_orders("P-1", limit=10)] == ["P-1", "DK1"]
    assert len(store.find_orders("P-1", limit=1)) == 1
    for unknown in ("", "dk1", "DK", "DK1 ", "DK%"):
        assert store.find_orders(unknown, limit=10) == []


def test_the_number_of_an_order_of_every_merchant_is_found(make_store: MakeStore) -> None:
    store = make_store(merchants=["acme", "globex"])
    store.record([a_claim(order="DK1"), a_claim(order="DK1", merchant="globex")])
    assert sorted(order.merchant for order in store.find_orders("DK1", limit=10)) == ["acme", "globex"]


def test_a_number_that_is_not_believed_finds_nothing(store: LedgerStore) -> None:
    store.record([a_claim(order="DK1", pay_order_no="P-1", trust=Trust.CHECKSUM)])
    assert store.find_orders("P-1", limit=10) == []


@pytest.mark.parametrize("number", ["DK\0", "DK\ud800"])
def test_a_number_that_no_order_can_have_is_refused(store: LedgerStore, number: str) -> None:
    with pytest.raises(ClaimUnstorable):
        store.find_orders(number, limit=10)


def test_the_last_delivered_events_come_first(
    store: LedgerStore, outbox: Outbox, ledger_engine: Engine, clock: Clock
) -> None:
    store.record([a_claim(order=f"DK{number}") for number in range(4)])
    for delivery in outbox.lease_due(endpoint="books", limit=3, lease_seconds=60):
        clock.forward(1)
        outbox.settle_delivered([delivery])
    listed = list_last_delivered(ledger_engine, "books", limit=2)
    assert [delivery.settled_at for delivery in listed] == [clock(), clock() - timedelta(seconds=1)]
    assert [delivery.state for delivery in listed] == ["delivered", "delivered"]
    assert list_last_delivered(ledger_engine, "warehouse", limit=2) == []


def test_pages_of_dead_letters_hold_every_letter_once(ledger_engine: Engine) -> None:
    letters = DeadLetterStore(engine=ledger_engine)
    ids = [f"m/{number}" for number in range(7)]
    letters.record([DeadLetterRecord(id=name, reason="broken", died_at=NOON, body="{}") for name in ids])
    found: list[str] = []
    after = None
    while page := letters.load_open(limit=2, after=after):
        found += [letter.id for letter in page]
        after = page[-1].place
    assert found == ids
