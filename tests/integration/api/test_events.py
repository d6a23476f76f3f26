"""The event feed over HTTP: pages, filters, waiting, and cursors that do not fit."""

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, QueuePool, delete

from service.bootstrap.ledger import make_store
from service.config.settings import Settings
from service.domain.claims import OrderStatus, Trust
from service.ledger.store import LedgerStore
from service.ledger.tables import deliveries, events
from tests.support.api import Answer, ApiCaller, order_path
from tests.support.claims import a_claim
from tests.support.downstream import event_validator
from tests.support.waiting import eventually


@pytest.fixture
def store(settings: Settings, engine: Engine) -> LedgerStore:
    return make_store(settings, engine)


def pay(store: LedgerStore, order: str, status: OrderStatus = OrderStatus.SUCCEEDED, **more: Any) -> None:
    store.record([a_claim(status, Trust.QUERIED, order=order, **more)])


def told(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.value
    return [event["id"] for event in answer.value["events"]]


def test_a_consumer_reads_on_with_next_until_there_is_no_more(api: ApiCaller, store: LedgerStore) -> None:
    for order in ("DK1", "DK2", "DK3"):
        pay(store, order)
    first = api.get("/v1/events?limit=2")
    second = api.get(f"/v1/events?limit=2&after={first.value['next']}")
    assert (told(first), told(second)) == (["acme/DK1/1", "acme/DK2/1"], ["acme/DK3/1"])
    assert (first.value["more"], second.value["more"]) == (True, False)
    pay(store, "DK4")
    assert told(api.get(f"/v1/events?after={second.value['next']}")) == ["acme/DK4/1"]


def test_an_event_is_the_one_that_the_contract_describes(api: ApiCaller, store: LedgerStore) -> None:
    pay(store, "DK1", channel_response="余额不足")
    (event,) = api.get("/v1/events").value["events"]
    event_validator(closed=True).validate(event)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("merchant=acme&status=failed", ["acme/DK2/1"]),
        ("type=payment.succeeded", ["acme/DK1/1", "away/DK3/1"]),
        ("merchant=away", ["away/DK3/1"]),
        ("order_type=refund", []),
    ],
)
def test_filters_choose_events(api: ApiCaller, store: LedgerStore, query: str, expected: list[str]) -> None:
    pay(store, "DK1")
    pay(store, "DK2", OrderStatus.FAILED)
    pay(store, "DK3", merchant="away")
    assert told(api.get(f"/v1/events?{query}")) == expected


def test_latest_leaves_out_what_is_there(api: ApiCaller, store: LedgerStore) -> None:
    pay(store, "DK1")
    start = api.get("/v1/events?after=latest")
    assert told(start) == []
    pay(store, "DK2")
    assert told(api.get(f"/v1/events?after={start.value['next']}")) == ["acme/DK2/1"]


class Waits:
    """The pauses of waiting requests: the threads that have made any, and the connections in use at each."""

    def __init__(self, engine: Engine) -> None:
        assert isinstance(engine.pool, QueuePool)
        self._pool = engine.pool
        self.threads: set[int] = set()
        self.connections: list[int] = []

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.connections.append(self._pool.checkedout())
        self.threads.add(threading.get_ident())
        time.sleep(seconds)


@pytest.fixture
def waits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Waits:
    waits = Waits(engine)
    monkeypatch.setattr("service.api.events.time", waits)
    return waits


def test_a_waiting_request_is_answered_with_the_next_event_and_holds_no_connection(
    api: ApiCaller, store: LedgerStore, waits: Waits
) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(api.get, "/v1/events?wait_seconds=30")
        eventually(lambda: waits.threads)
        assert set(waits.connections) == {0}
        pay(store, "DK1")
        assert told(waiting.result()) == ["acme/DK1/1"]


def test_waiting_ends_without_an_event_when_the_time_is_up(api: ApiCaller) -> None:
    answer = api.get("/v1/events?wait_seconds=1")
    assert (told(answer), answer.value["more"]) == ([], False)


def test_more_requests_than_may_wait_are_told_to_come_back(
    api: ApiCaller, api_url: str, store: LedgerStore, waits: Waits
) -> None:
    callers = [ApiCaller(url=api_url) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(caller.get, "/v1/events?wait_seconds=30") for caller in callers]
        eventually(lambda: len(waits.threads) == 2)
        refused = api.get("/v1/events?wait_seconds=1")
        assert (refused.status, refused.value["type"].rpartition(":")[2]) == (503, "too-many-wait")
        assert told(api.get("/v1/events")) == []
        pay(store, "DK1")
        assert [told(one.result()) for one in waiting] == [["acme/DK1/1"]] * 2
    for caller in callers:
        caller.close()


def cursor(*place: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def test_a_query_that_cannot_be_meant_names_its_parameter(api: ApiCaller) -> None:
    for query, where in (
        ("after=nonsense", "after"),
        (f"after={cursor('2026-01-05T12:00:00+00:00', 'acme', 'DK1')}", "after"),
        (f"after={cursor(2**63, 'acme', 'DK1', 1)}", "after"),
        (f"after={cursor(1, 'acme', chr(0), 1)}", "after"),
        (f"after={cursor(True, 'acme', 'DK1', 1)}", "after"),
        ("limit=0", "limit"),
        ("wait_seconds=31", "wait_seconds"),
        ("type=payment.test", "type"),
        ("status=paid", "status"),
        ("colour=red", "colour"),
    ):
        answer = api.get(f"/v1/events?{query}")
        assert (answer.status, [error["where"] for error in answer.value["errors"]]) == (422, [where]), query


def test_a_cursor_whose_event_is_gone_says_how_to_start_from_the_orders(
    api: ApiCaller, store: LedgerStore, engine: Engine
) -> None:
    pay(store, "DK1")
    old = api.get("/v1/events").value["next"]
    with engine.begin() as connection:
        connection.execute(delete(deliveries))
        connection.execute(delete(events))
    answer = api.get(f"/v1/events?after={old}")
    assert (answer.status, answer.value["type"].rpartition(":")[2]) == (410, "cursor-expired")
    assert "/v1/events?after=latest" in answer.value["detail"]
    assert "/v1/orders" in answer.value["detail"]


def test_an_orders_history_is_its_state_and_its_events_in_sequence(api: ApiCaller, store: LedgerStore) -> None:
    pay(store, "DK/1", OrderStatus.PROCESSING)
    pay(store, "DK/1", minute=1)
    found = api.get(order_path("acme", "DK/1", below="/history")).value
    assert [event["data"]["status"] for event in found["events"]] == ["processing", "succeeded"]
    assert (found["order"]["status"], found["order"]["sequence"]) == ("succeeded", 2)


def test_an_order_that_nobody_trusted_has_named_has_no_history(api: ApiCaller, store: LedgerStore) -> None:
    store.record([a_claim(trust=Trust.CHECKSUM)])
    answer = api.get(order_path("acme", "DK1", below="/history"))
    assert (answer.status, answer.value["type"].rpartition(":")[2]) == (404, "unknown-order")
