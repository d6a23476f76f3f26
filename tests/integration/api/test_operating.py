"""What operators do over HTTP: endpoints, deliveries, replays, inquiries, and the audit of it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from consumers.maintenance import replaying
from service.bootstrap.dispatcher_role import sending_endpoint_tests
from service.bootstrap.ledger import make_store
from service.config.endpoints import WebhookSettings
from service.config.secrets import Secret
from service.config.settings import Settings
from service.domain.claims import OrderStatus, Trust
from service.ledger.outbox import DueDelivery, FailedDelivery, Outbox
from service.ledger.replays import Replays
from service.ledger.store import LedgerStore
from tests.support.api import Answer, ApiCaller
from tests.support.claims import a_claim
from tests.support.downstream import WEBHOOK_SECRET
from tests.support.waiting import eventually

LI_LEI = {"name": "李雷", "reason": "they lost a day"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With the endpoint shop."""
    shop = WebhookSettings(name="shop", url="http://127.0.0.1:9/", secrets=[Secret(WEBHOOK_SECRET)])
    return replace(settings, endpoints=(shop,))


@pytest.fixture
def store(settings: Settings, engine: Engine) -> LedgerStore:
    return make_store(settings, engine)


@pytest.fixture
def outbox(store: LedgerStore, engine: Engine) -> Outbox:
    """Three orders paid: one event delivered, one parked, one open."""
    outbox = Outbox(engine=engine)
    for order in ("DELIVERED", "PARKED", "OPEN"):
        store.record([a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, order=order)])
        if order == "DELIVERED":
            outbox.settle_delivered(lease(outbox))
        elif order == "PARKED":
            (due,) = lease(outbox)
            outbox.settle_failed([FailedDelivery(delivery=due, error="it answered 500", wait_seconds=None)])
    return outbox


def lease(outbox: Outbox) -> list[DueDelivery]:
    return list(outbox.lease_due(endpoint="shop", limit=10, lease_seconds=60))


def due(outbox: Outbox) -> list[str]:
    return sorted(delivery.event_id for delivery in lease(outbox))


def kind(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.value["type"].rpartition(":")[2]


def test_endpoints_are_listed_with_what_waits_for_them(api: ApiCaller, outbox: Outbox) -> None:
    (shop,) = api.get("/v1/endpoints").value["endpoints"]
    shown = {name: shop[name] for name in ("endpoint", "configured", "pause", "open", "parked", "last_error")}
    assert shown == {
        "endpoint": "shop",
        "configured": True,
        "pause": None,
        "open": 1,
        "parked": 1,
        "last_error": "it answered 500",
    }


def test_a_pause_holds_until_it_is_resumed_and_both_are_in_the_audit(api: ApiCaller, outbox: Outbox) -> None:
    paused = api.post("/v1/endpoints/shop/pause", LI_LEI).value["pause"]
    assert (paused["paused_by"], paused["reason"]) == ("李雷 (API token shop)", "they lost a day")
    assert due(outbox) == []
    assert api.get("/v1/endpoints").value["endpoints"][0]["pause"] == paused
    assert api.post("/v1/endpoints/shop/resume", {**LI_LEI, "reason": "repaired"}).value["pause"] == paused
    assert due(outbox) == ["acme/OPEN/1"]
    assert api.post("/v1/endpoints/shop/resume", LI_LEI).value["pause"] is None
    changes = api.get("/v1/audit").value["changes"]
    assert [(change["action"], change["changed_by"], change["subject"], change["reason"]) for change in changes] == [
        ("resume", "李雷 (API token shop)", "shop", "repaired"),
        ("pause", "李雷 (API token shop)", "shop", "they lost a day"),
    ]
    assert api.get(f"/v1/audit?limit=1&before={changes[0]['id']}").value["changes"] == changes[1:]


def test_a_test_is_sent_by_a_dispatcher_and_its_outcome_can_be_read(
    api: ApiCaller, settings: Settings, engine: Engine
) -> None:
    requested = api.post("/v1/endpoints/shop/test", LI_LEI)
    assert (requested.status, requested.value["state"]) == (202, "requested")
    path = f"/v1/endpoint-tests/{requested.value['id']}"
    assert api.get(path).value == requested.value
    with sending_endpoint_tests(settings, engine):
        eventually(lambda: api.get(path).value["state"] == "failed")
    outcome = api.get(path).value
    assert outcome["answer"].startswith("no connection: NewConnectionError")
    assert outcome["seconds"] >= 0
    assert outcome["requested_by"] == "李雷 (API token shop)"
    (change,) = api.get("/v1/audit").value["changes"]
    assert (change["action"], change["subject"], change["reason"]) == ("test-endpoint", "shop", "they lost a day")
    assert kind(api.get("/v1/endpoint-tests/77")) == (404, "unknown-endpoint-test")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=open", ["acme/OPEN/1"]),
        ("state=parked", ["acme/PARKED/1"]),
        ("state=parked&endpoint=shop", ["acme/PARKED/1"]),
        ("state=parked&endpoint=books", []),
        ("merchant=acme&biz_order_no=DELIVERED", ["acme/DELIVERED/1"]),
        ("merchant=acme&biz_order_no=DELIVERED&state=open", []),
        ("event_id=acme/DELIVERED/1", ["acme/DELIVERED/1"]),
        ("event_id=acme/NONE/1", []),
    ],
)
def test_deliveries_are_listed_by_endpoint_state_order_and_event(
    api: ApiCaller, outbox: Outbox, query: str, expected: list[str]
) -> None:
    page = api.get(f"/v1/deliveries?{query}").value
    assert [delivery["event_id"] for delivery in page["deliveries"]] == expected
    assert page["next"] is None


def test_a_delivery_is_shown_with_its_tries_and_its_last_error(api: ApiCaller, outbox: Outbox) -> None:
    (parked,) = api.get("/v1/deliveries?event_id=acme/PARKED/1").value["deliveries"]
    shown = {name: parked[name] for name in ("endpoint", "state", "attempts", "last_error", "type", "status")}
    assert shown == {
        "endpoint": "shop",
        "state": "parked",
        "attempts": 1,
        "last_error": "it answered 500",
        "type": "payment.succeeded",
        "status": "succeeded",
    }
    assert parked["settled_at"] is not None
    assert parked["log"] == [{"at": parked["settled_at"], "kind": "failed", "detail": "it answered 500"}]


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("", "state"),
        ("endpoint=shop", "state"),
        ("state=delivered", "state"),
        ("state=lost", "state"),
        ("merchant=acme", "biz_order_no"),
        ("state=open&biz_order_no=DK1", "merchant"),
        ("state=open&after=x", "after"),
        ("state=open&limit=0", "limit"),
        ("state=open&colour=red", "colour"),
    ],
)
def test_a_filter_of_deliveries_that_cannot_be_used_is_named(api: ApiCaller, query: str, where: str) -> None:
    answer = api.get(f"/v1/deliveries?{query}")
    assert (answer.status, [error["where"] for error in answer.value["errors"]]) == (422, [where])


def test_pages_of_deliveries_have_each_once(api: ApiCaller, store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, order=f"DK{n}") for n in range(5)])
    path, found = "/v1/deliveries?state=open&limit=2", []
    after = ""
    while after is not None:
        page = api.get(f"{path}&after={after}" if after else path).value
        found += [delivery["event_id"] for delivery in page["deliveries"]]
        after = page["next"]
    assert found == [f"acme/DK{n}/1" for n in range(5)]


def test_named_or_all_parked_events_are_delivered_again(api: ApiCaller, outbox: Outbox) -> None:
    lease(outbox)
    named = {**LI_LEI, "event_ids": ["acme/DELIVERED/1", "acme/NONE/1"]}
    assert api.post("/v1/endpoints/shop/redeliver", named).value == {"due_again": 1}
    assert due(outbox) == ["acme/DELIVERED/1"]
    assert api.post("/v1/endpoints/shop/redeliver", LI_LEI).value == {"due_again": 1}
    assert due(outbox) == ["acme/PARKED/1"]
    subjects = [change["subject"] for change in api.get("/v1/audit").value["changes"]]
    assert subjects == [
        "shop: 1 events (all that were parked)",
        "shop: 1 events (acme/DELIVERED/1, acme/NONE/1)",
    ]


@pytest.fixture
def window(outbox: Outbox) -> dict[str, str]:
    until = datetime.now(UTC)
    times = {"since": (until - timedelta(hours=1)).isoformat(), "until": until.isoformat()}
    return {"endpoint": "shop", **times}


def query(window: dict[str, str]) -> str:
    return "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in window.items())


@pytest.fixture
def dispatcher(engine: Engine) -> Iterator[None]:
    with replaying(Replays(engine=engine), every_seconds=0.01):
        yield


def test_a_window_is_counted_and_then_delivered_again(
    api: ApiCaller, outbox: Outbox, window: dict[str, str], dispatcher: None
) -> None:
    lease(outbox)
    count = api.get(f"/v1/replays/count?{query(window)}").value["events"]
    assert count == 3
    made = api.post("/v1/replays", {**window, **LI_LEI, "expected": count})
    assert (made.status, made.value["total"], made.value["requested_by"]) == (202, 3, "李雷 (API token shop)")
    path = f"/v1/replays/{made.value['id']}"
    eventually(lambda: api.get(path).value["state"] == "done")
    assert api.get(path).value["done"] == 3
    # The one that is open is delivered all the same.
    assert due(outbox) == ["acme/DELIVERED/1", "acme/PARKED/1"]


def test_a_window_with_another_number_of_events_is_not_delivered_again(
    api: ApiCaller, outbox: Outbox, window: dict[str, str]
) -> None:
    answer = api.post("/v1/replays", {**window, **LI_LEI, "expected": 2})
    assert kind(answer) == (409, "replay-count-differs")
    assert "It has 3 now" in answer.value["detail"]


def test_a_stopped_replay_says_so(api: ApiCaller, window: dict[str, str]) -> None:
    made = api.post("/v1/replays", {**window, **LI_LEI, "expected": 3}).value
    assert api.post(f"/v1/replays/{made['id']}/stop", LI_LEI).value["state"] == "stopped"
    assert kind(api.post("/v1/replays/77/stop", LI_LEI)) == (404, "unknown-replay")
    assert kind(api.get("/v1/replays/77")) == (404, "unknown-replay")
    assert kind(api.get(f"/v1/replays/{2**63 - 1}")) == (404, "unknown-replay")


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"since": "2026-01-05T00:00:00Z", "until": "2026-01-05T00:00:00Z"}, "since"),
        ({"until": "2999-01-01T00:00:00Z"}, "until"),
        ({"since": "2026-01-05T00:00:00"}, "since"),
        ({"status": "paid"}, "status"),
        ({"per_second": 0}, "per_second"),
        ({"expected": "3"}, "expected"),
        ({"reason": ""}, "reason"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_replay_that_cannot_be_meant_names_its_field(
    api: ApiCaller, window: dict[str, str], changes: dict[str, object], where: str
) -> None:
    answer = api.post("/v1/replays", {**window, **LI_LEI, "expected": 3, **changes})
    assert answer.status == 422
    assert where in [error["where"] for error in answer.value["errors"]]


@pytest.mark.parametrize("below", ["pause", "redeliver", "test"])
def test_an_endpoint_that_is_not_in_the_settings_is_named(api: ApiCaller, below: str) -> None:
    answer = api.post(f"/v1/endpoints/shp/{below}", LI_LEI)
    assert kind(answer) == (404, "unknown-endpoint")
    assert "shop" in answer.value["detail"]


def test_inquiries_are_listed_by_state(api: ApiCaller) -> None:
    for order in ("DK2", "DK1", "DK3"):
        api.announce({"merchant": "acme", "biz_order_no": order})
    first = api.get("/v1/inquiries?merchant=acme&state=open&limit=2").value
    assert [inquiry["biz_order_no"] for inquiry in first["inquiries"]] == ["DK1", "DK2"]
    rest = api.get(f"/v1/inquiries?merchant=acme&state=open&limit=2&after={first['next']}").value
    assert [(inquiry["biz_order_no"], inquiry["reasons"]) for inquiry in rest["inquiries"]] == [("DK3", ["overdue"])]
    assert rest["next"] is None
    assert api.get("/v1/inquiries?merchant=acme&state=parked").value["inquiries"] == []
    assert kind(api.get("/v1/inquiries?merchant=nobody&state=open")) == (404, "unknown-merchant")
