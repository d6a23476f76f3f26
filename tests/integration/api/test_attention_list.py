"""The attention list over HTTP."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from service.bootstrap.ledger import make_store
from service.config.settings import Settings
from service.domain.claims import OrderStatus, Trust
from service.ledger.attention import GROUPED_FROM
from service.ledger.dead_letters import DeadLetterRecord, DeadLetterStore
from service.ledger.store import LedgerStore
from tests.support.api import ApiCaller
from tests.support.claims import NOON, a_claim

ACKNOWLEDGEMENTS = "/v1/attention/acknowledgements"


@pytest.fixture
def store(settings: Settings, engine: Engine) -> LedgerStore:
    return make_store(settings, engine)


def quarantine(store: LedgerStore, order: str) -> None:
    store.record(
        [a_claim(None, trust=Trust.QUERIED, order=order, quarantine="pay_status: unknown word 6222021234561236")]
    )


def test_what_waits_is_listed_with_cause_and_next_command(api: ApiCaller, store: LedgerStore) -> None:
    quarantine(store, "1745678901234567897")
    (item,) = api.get("/v1/attention").value["items"]
    assert (item["kind"], item["merchant"], item["biz_order_no"]) == (
        "quarantined-claim",
        "acme",
        "1745678901234567897",
    )
    assert item["next_step"] == "payment-callbacks orders show acme 1745678901234567897"
    assert item["detail"] == "pay_status: unknown word 6222****1236"
    assert item["cause"]
    assert item["acknowledged_at"] is None


def test_pages_hold_each_item_once(api: ApiCaller, store: LedgerStore) -> None:
    for number in range(5):
        quarantine(store, f"DK{number}")
    seen: list[str] = []
    page = api.get("/v1/attention?limit=2").value
    while page["next"]:
        seen += [item["biz_order_no"] for item in page["items"]]
        page = api.get(f"/v1/attention?limit=2&after={page['next']}").value
    seen += [item["biz_order_no"] for item in page["items"]]
    assert sorted(seen) == [f"DK{number}" for number in range(5)]


def test_an_acknowledged_item_is_listed_on_request_only(api: ApiCaller, store: LedgerStore) -> None:
    quarantine(store, "DK1")
    (item,) = api.get("/v1/attention").value["items"]
    answer = api.post(ACKNOWLEDGEMENTS, {"id": item["id"], "name": "李四", "note": "the gateway's staff is asked"})
    assert (answer.status, answer.value["acknowledged_by"]) == (200, "李四 (API token shop)")
    assert api.get("/v1/attention").value["items"] == []
    assert api.get("/v1/attention?acknowledged=true").value["items"] == [answer.value]


def test_the_list_is_filtered_by_kind_and_merchant(api: ApiCaller, store: LedgerStore) -> None:
    quarantine(store, "DK1")
    assert len(api.get("/v1/attention?kind=quarantined-claim&merchant=acme").value["items"]) == 1
    assert api.get("/v1/attention?kind=conflict").value["items"] == []
    assert api.get("/v1/attention?merchant=sand").value["items"] == []


def test_a_group_of_conflicts_is_one_item_and_its_orders_are_listed_on_request(
    api: ApiCaller, store: LedgerStore
) -> None:
    for number in range(GROUPED_FROM):
        order = f"DK{number}"
        store.record(
            [
                a_claim(order=order, trust=Trust.QUERIED),
                a_claim(OrderStatus.FAILED, order=order, trust=Trust.QUERIED),
            ]
        )
    (group,) = api.get("/v1/attention").value["items"]
    assert (group["id"], group["orders"], group["biz_order_no"]) == ("disputed-field/acme/status", GROUPED_FROM, "")
    api.post(ACKNOWLEDGEMENTS, {"id": group["id"], "name": "Li", "note": "the gateway's staff is asked"})
    assert api.get("/v1/attention").value["items"] == []
    members = api.get(f"/v1/attention?group={group['id']}").value["items"]
    assert {item["biz_order_no"] for item in members} == {f"DK{number}" for number in range(GROUPED_FROM)}


def test_what_does_not_wait_cannot_be_acknowledged(api: ApiCaller) -> None:
    answer = api.post(ACKNOWLEDGEMENTS, {"id": "conflict/acme/DK404", "name": "Li", "note": "?"})
    assert (answer.status, answer.value["type"].rpartition(":")[2]) == (404, "unknown-item")


@pytest.mark.parametrize("field", ["name", "note"])
def test_an_acknowledgement_needs_a_name_and_a_note(api: ApiCaller, store: LedgerStore, field: str) -> None:
    quarantine(store, "DK1")
    body = {"id": "quarantined-claim/acme/DK1", "name": "Li", "note": "asked"}
    answer = api.post(ACKNOWLEDGEMENTS, {**body, field: " "})
    assert (answer.status, [error["where"] for error in answer.value["errors"]]) == (422, [field])
    assert len(api.get("/v1/attention").value["items"]) == 1


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("kind=lost", "kind"),
        ("after=x", "after"),
        ("limit=0", "limit"),
        ("since=1", "since"),
        ("group=conflict/acme/DK1", "group"),
    ],
)
def test_a_filter_that_cannot_be_used_is_named(api: ApiCaller, query: str, where: str) -> None:
    answer = api.get(f"/v1/attention?{query}")
    assert (answer.status, [error["where"] for error in answer.value["errors"]]) == (422, [where])


def test_the_report_names_what_is_not_final(api: ApiCaller, store: LedgerStore) -> None:
    quarantine(store, "DK1")
    api.announce({"merchant": "acme", "biz_order_no": "DK2", "amount": "100.00"})
    today = datetime.now(ZoneInfo("Asia/Shanghai")).date()
    report = api.get(f"/v1/report?since={today}&merchant=acme").value
    day = report["days"][-1]
    assert (day["merchant"], day["announced"]) == ("acme", 1)
    assert day["statuses"] == [{"status": "initial", "orders": 1, "amount": "100.00", "amount_unit": "yuan"}]
    assert [order["biz_order_no"] for order in day["open_orders"]] == ["DK2"]
    assert report["attention"] == api.get("/v1/attention").value["items"]
    assert not report["explained"]


def test_a_report_without_a_window_is_of_yesterday_and_of_every_merchant(api: ApiCaller) -> None:
    report = api.get("/v1/report").value
    assert [day["merchant"] for day in report["days"]] == ["acme", "away", "mute", "sand", "wrong"]
    assert report["explained"]


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("since=2026-01-05&until=2026-01-04", "until"),
        ("since=2025-01-05&until=2026-01-04", "since"),
        ("since=yesterday", "since"),
        ("since=9999-12-31", "since"),
        ("day=2026-01-05", "day"),
    ],
)
def test_a_window_that_cannot_be_reported_is_named(api: ApiCaller, query: str, where: str) -> None:
    answer = api.get(f"/v1/report?{query}")
    assert (answer.status, [error["where"] for error in answer.value["errors"]]) == (422, [where])


def test_a_report_of_an_unknown_merchant_is_not_found(api: ApiCaller) -> None:
    assert api.get("/v1/report?merchant=nobody").status == 404


def test_dead_letters_are_listed_and_replayed_on_request(api: ApiCaller, engine: Engine) -> None:
    letter = DeadLetterRecord(id="m1", reason="UndecodableMessage", died_at=NOON, body="card 6222021234561236")
    DeadLetterStore(engine=engine).record([letter])
    (listed,) = api.get("/v1/dead-letters").value["dead_letters"]
    assert (listed["id"], listed["body"], listed["requested"]) == ("m1", "card 6222****1236", None)
    request = {"ids": ["m1"], "action": "replay", "name": "Li", "reason": "the cause is mended"}
    answer = api.post("/v1/dead-letters/requests", request)
    assert answer.status == 202
    assert [(one["requested"], one["requested_by"]) for one in answer.value["dead_letters"]] == [
        ("replay", "Li (API token shop)")
    ]
    assert api.get("/v1/dead-letters/m1").value == answer.value["dead_letters"][0]
    assert api.get("/v1/dead-letters/m404").status == 404
    (change,) = api.get("/v1/audit").value["changes"]
    assert (change["action"], change["changed_by"]) == ("replay-dead-letters", "Li (API token shop)")
    assert api.post("/v1/dead-letters/requests", {**request, "ids": ["m1", "m404"]}).status == 404
    assert api.post("/v1/dead-letters/requests", {**request, "action": "burn"}).status == 422
