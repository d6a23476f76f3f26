"""Lists of orders, page by page."""

from service.ledger.orders import OrderFilter
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim


def test_pages_hold_every_order_once_though_a_batch_gives_all_of_them_one_time(store: LedgerStore) -> None:
    numbers = {f"DK{number}" for number in range(25)}
    store.record([a_claim(order=number) for number in numbers])
    found: list[str] = []
    after = None
    while page := store.list_orders(OrderFilter(merchant="acme", after=after), limit=4):
        found += [order.biz_order_no for order in page]
        after = page[-1].place
    assert len(found) == len(numbers)
    assert set(found) == numbers
