"""A consumer that lost its database builds its book again from the feed, while live events go on arriving."""

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from service.bootstrap.ledger import make_store
from service.config.endpoints import WebhookSettings
from service.config.secrets import Secret
from service.config.settings import Settings
from service.domain.claims import OrderStatus, Trust
from service.domain.events import EventType
from service.ledger.orders import OrderFilter
from service.ledger.outbox import Outbox
from service.ledger.store import LedgerStore
from tests.support.api import ApiCaller
from tests.support.claims import a_claim
from tests.support.downstream import WEBHOOK_SECRET


class Book:
    """A consumer's database, kept by the rules of the consumer's guide. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        #: Sequence and status of each order.
        self.orders: dict[str, tuple[int, str]] = {}

    def apply(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            if event["id"] in self._seen:
                return
            self._seen.add(event["id"])
            data = event["data"]
            if data["sequence"] > self.orders.get(event["subject"], (0, ""))[0]:
                self.orders[event["subject"]] = (data["sequence"], data["status"])


@pytest.fixture
def store(settings: Settings, engine: Engine) -> LedgerStore:
    shop = WebhookSettings(
        name="shop",
        url="http://127.0.0.1:9/",
        secrets=[Secret(WEBHOOK_SECRET)],
        types=frozenset(EventType),
    )
    return make_store(replace(settings, endpoints=(shop,)), engine)


def truth(store: LedgerStore) -> dict[str, tuple[int, str]]:
    orders = store.list_orders(OrderFilter(), limit=500)
    return {order.biz_order_no: (order.sequence, order.state.status.value) for order in orders}


def deliver(outbox: Outbox, book: Book) -> list[str]:
    due = outbox.lease_due(endpoint="shop", limit=20, lease_seconds=60)
    for delivery in due:
        book.apply(json.loads(delivery.body))
    assert outbox.settle_delivered(due) == []
    return [delivery.event_id for delivery in due]


def trade(store: LedgerStore, kind: str, count: int) -> None:
    """Orders that succeed, fail, stay open, and are corrected after they had succeeded."""
    for number in range(count):
        order = f"{kind}{number}"
        store.record([a_claim(OrderStatus.PROCESSING, Trust.QUERIED, order=order)])
        if number % 4:
            store.record([a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, order=order, minute=1)])
        if number % 4 == 1:
            store.record([a_claim(OrderStatus.FAILED, Trust.OPERATOR, order=order, minute=2)])


def test_a_wiped_consumer_rebuilds_its_book_to_equal_the_ledger_while_live_events_arrive(
    api: ApiCaller, store: LedgerStore, engine: Engine
) -> None:
    outbox, lost, book = Outbox(engine=engine), Book(), Book()
    trade(store, "old", 24)
    while deliver(outbox, lost):
        pass
    assert lost.orders == truth(store)
    traded = threading.Event()
    live: list[str] = []

    def rebuild() -> None:
        path, more = "/v1/events?limit=10", True
        while more or not traded.is_set():
            ended = traded.is_set()
            page = api.get(path).value
            for event in page["events"]:
                book.apply(event)
            path, more = f"/v1/events?limit=10&after={page['next']}", page["more"] or not ended

    def receive() -> None:
        while True:
            ended = traded.is_set()
            sent = deliver(outbox, book)
            live.extend(sent)
            if ended and not sent:
                return

    with ThreadPoolExecutor(5) as threads:
        rebuilding, receiving = threads.submit(rebuild), threads.submit(receive)
        for trading in [threads.submit(trade, store, kind, 12) for kind in ("a", "b", "c")]:
            trading.result()
        traded.set()
        rebuilding.result()
        receiving.result()
    assert book.orders == truth(store)
    assert len(book.orders) == 24 + 3 * 12
    # Each new event reached the endpoint once, while the old ones were read again.
    assert (
        len(live)
        == len(set(live))
        == sum(sequence for sequence, _ in book.orders.values()) - sum(sequence for sequence, _ in lost.orders.values())
    )


def test_a_consumer_whose_cursor_has_expired_starts_from_the_list_of_orders(api: ApiCaller, store: LedgerStore) -> None:
    trade(store, "old", 12)
    book: dict[str, int] = {}
    cursor = api.get("/v1/events?after=latest").value["next"]
    trade(store, "meanwhile", 4)
    page = "/v1/orders?limit=5"
    while page:
        listed = api.get(page).value
        book |= {order["biz_order_no"]: order["sequence"] for order in listed["orders"]}
        page = f"/v1/orders?limit=5&after={listed['next']}" if listed["next"] else ""
    trade(store, "later", 4)
    for event in api.get(f"/v1/events?limit=500&after={cursor}").value["events"]:
        book[event["subject"]] = max(event["data"]["sequence"], book.get(event["subject"], 0))
    assert book == {order: sequence for order, (sequence, _) in truth(store).items()}
