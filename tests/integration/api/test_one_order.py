"""One order over HTTP: its history, an inquiry, a resolution."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from service.bootstrap.ledger import make_store
from service.config.settings import Settings
from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.money import Money
from service.ledger.database import write
from service.ledger.inquiries import InquiryReason
from service.ledger.inquiry_questions import record_asked
from tests.support.api import ApiCaller, order_path
from tests.support.claims import NOON, a_claim

RESOLUTION = {"status": "succeeded", "sequence": 0, "name": "李四", "reason": "on the bank's statement of 5 January"}
LI = {"name": "Li", "reason": "the payer waits"}
#: Characters that addresses part, decode and mark up by.
ODD = "DK/../1%2F?#&=.单 [1]"


@pytest.fixture
def odd(api: ApiCaller) -> str:
    assert api.announce({"merchant": "acme", "biz_order_no": ODD}).status == 200
    return order_path("acme", ODD)


def test_an_order_with_any_character_is_found_by_its_encoded_number(api: ApiCaller, odd: str) -> None:
    assert api.get(odd).value["order"]["biz_order_no"] == ODD


def test_an_unknown_order_is_not_found(api: ApiCaller) -> None:
    for below, body in (("", None), ("/inquiry", LI), ("/resolve", RESOLUTION)):
        path = order_path("acme", "DK404", below=below)
        answer = api.post(path, body) if below else api.get(path)
        assert (answer.status, answer.value["type"].rpartition(":")[2]) == (404, "unknown-order"), below


def test_the_history_shows_every_claim_with_its_source_trust_and_outcome(
    api: ApiCaller, settings: Settings, engine: Engine
) -> None:
    store = make_store(settings, engine)
    store.record([a_claim(trust=Trust.CHECKSUM), a_claim(OrderStatus.FAILED, trust=Trust.QUERIED, minute=1)])
    claims = api.get(order_path("acme", "DK1")).value["claims"]
    assert [(claim["source"], claim["trust"], claim["verdict"]) for claim in claims] == [
        ("callback", "checksum", "untrusted"),
        ("query", "query", "applied"),
    ]


def test_what_the_channel_said_is_shown_without_personal_data(
    api: ApiCaller, settings: Settings, engine: Engine
) -> None:
    texts: dict[str, Any] = {"channel_response": "card 6222021234567890128", "unknown_fields": {"phone": "13812345678"}}
    make_store(settings, engine).record([a_claim(trust=Trust.QUERIED, **texts)])
    (claim,) = api.get(order_path("acme", "DK1")).value["claims"]
    assert (claim["channel_response"], claim["unknown_fields"]) == ("card 6222****0128", {"phone": "138****5678"})


def test_a_requested_inquiry_is_due_at_once_and_audited(api: ApiCaller, odd: str) -> None:
    before = api.get(odd).value["inquiry"]
    answer = api.post(f"{odd}/inquiry", LI)
    assert answer.status == 202
    assert answer.value["due_at"] < before["due_at"]
    assert answer.value["reasons"] == ["overdue", "operator"]
    (change,) = api.get("/v1/audit").value["changes"]
    assert (change["action"], change["subject"]) == ("inquire", f"acme/{ODD}")
    assert (change["changed_by"], change["reason"]) == ("Li (API token shop)", LI["reason"])


@pytest.mark.parametrize("field", ["name", "reason"])
def test_an_inquiry_needs_a_name_and_a_reason(api: ApiCaller, odd: str, field: str) -> None:
    answer = api.post(f"{odd}/inquiry", {**LI, field: " "})
    assert (answer.status, [error["where"] for error in answer.value["errors"]]) == (422, [field])
    assert api.get(odd).value["inquiry"]["reasons"] == ["overdue"]
    assert api.get("/v1/audit").value["changes"] == []


def test_a_gateway_that_cannot_be_asked_is_named(api: ApiCaller) -> None:
    api.announce({"merchant": "mute", "biz_order_no": "DK1"})
    answer = api.post(order_path("mute", "DK1", below="/inquiry"), LI)
    assert (answer.status, answer.value["detail"]) == (
        409,
        "There is no [merchants.mute.gateway] in the settings of this service.",
    )


def test_a_resolution_decides_an_order_and_stays_in_its_history(api: ApiCaller, odd: str) -> None:
    answer = api.post(f"{odd}/resolve", RESOLUTION)
    assert (answer.status, answer.value["verdict"], answer.value["order"]["trust"]) == (200, "applied", "operator")
    history = api.get(odd).value
    (claim,) = history["claims"]
    assert (claim["stated_by"], claim["reason"]) == ("李四 (API token shop)", RESOLUTION["reason"])
    assert [event["type"] for event in history["events"]] == ["payment.succeeded"]


def test_a_disputed_order_shows_both_values_and_a_resolution_settles_it_with_its_own(
    api: ApiCaller, settings: Settings, engine: Engine
) -> None:
    api.announce({"merchant": "acme", "biz_order_no": "DK1", "amount": "100.00", "pay_type": "baofoo_001"})
    make_store(settings, engine).record([a_claim(trust=Trust.QUERIED, pay_type="", amount=Money("0.01", "yuan"))])
    shown = api.get(order_path("acme", "DK1")).value
    assert shown["order"]["disputed"] == {"amount": {"stands": "100.00", "other": "0.01"}}
    assert [(claim["amount"], claim["amount_unit"]) for claim in shown["claims"]] == [("0.01", "yuan")]
    settled = api.post(
        order_path("acme", "DK1", below="/resolve"),
        {**RESOLUTION, "amount": "0.01", "sequence": shown["order"]["sequence"]},
    ).value["order"]
    assert (settled["amount"], settled["announced_amount"], settled["disputed"]) == ("0.01", "100.00", {})
    assert (settled["pay_type"], settled["announced_pay_type"]) == ("baofoo_001", "baofoo_001")


def test_a_resolution_of_an_order_that_has_changed_meanwhile_does_nothing_and_names_its_sequence(
    api: ApiCaller, odd: str
) -> None:
    assert api.post(f"{odd}/resolve", RESOLUTION).status == 200
    answer = api.post(f"{odd}/resolve", {**RESOLUTION, "status": "failed"})
    assert (answer.status, answer.value["type"].rpartition(":")[2]) == (409, "order-changed")
    assert "Its `sequence` is 1 now" in answer.value["detail"]
    history = api.get(odd).value
    assert (history["order"]["status"], len(history["claims"])) == ("succeeded", 1)
    assert api.post(f"{odd}/resolve", {**RESOLUTION, "status": "failed", "sequence": 1}).value["verdict"] == "corrected"


def test_a_resolution_without_a_name_a_reason_or_a_valid_status_is_refused(api: ApiCaller, odd: str) -> None:
    refused: Sequence[tuple[dict[str, str | None], str]] = (
        ({"amount": "1e2"}, "amount"),
        ({"pay_type": "other"}, "pay_type"),
        ({"sequence": "0"}, "sequence"),
        ({"sequence": None}, "sequence"),
        ({"name": " "}, "name"),
        ({"reason": "two\nlines"}, "reason"),
        ({"status": "initial"}, "status"),
        ({"status": "paid"}, "status"),
        ({"paid_at": "2026-01-05"}, "paid_at"),
    )
    for changes, where in refused:
        answer = api.post(f"{odd}/resolve", {**RESOLUTION, **changes})
        assert (answer.status, [error["where"] for error in answer.value["errors"]]) == (422, [where]), changes
    assert api.get(odd).value["claims"] == []


def test_the_history_shows_every_query_and_its_outcome(api: ApiCaller, odd: str, engine: Engine) -> None:
    def ask(connection: Connection) -> None:
        record_asked(connection, [(OrderKey("acme", ODD), 1, InquiryReason.OVERDUE)], now=NOON)

    write(engine, ask)
    (question,) = api.get(odd).value["questions"]
    assert (question["reasons"], question["outcome"], question["asked_at"]) == (["overdue"], None, NOON.isoformat())


def test_many_forged_claims_hide_none_that_counted_and_are_counted(
    api: ApiCaller, settings: Settings, engine: Engine
) -> None:
    store = make_store(settings, engine)
    store.record([a_claim(OrderStatus.PROCESSING, trust=Trust.QUERIED)])
    store.record([a_claim(trust=Trust.CHECKSUM, pay_order_no=f"FORGED{number}") for number in range(250)])
    store.record([a_claim(OrderStatus.FAILED, trust=Trust.QUERIED, minute=1)])
    history = api.get(order_path("acme", "DK1")).value
    trusted = [claim["status"] for claim in history["claims"] if claim["trust"] == "query"]
    forged = [claim for claim in history["claims"] if claim["trust"] == "checksum"]
    assert (trusted, len(forged), history["claims_left_out"]) == (["processing", "failed"], 200, 50)
    assert history["claims"][0]["status"] == "processing"
    assert api.post(order_path("acme", "DK1", below="/inquiry"), LI).status == 202


def test_orders_are_found_by_number_amount_and_time(api: ApiCaller) -> None:
    for number, amount in (("DK1", "100.00"), ("DK2", "250.00")):
        assert api.announce({"merchant": "acme", "biz_order_no": number, "amount": amount}).status == 200

    def found(query: str) -> Sequence[str]:
        return [order["biz_order_no"] for order in api.get(f"/v1/orders?{query}").value["orders"]]

    assert found("number=DK2") == ["DK2"]
    assert found("number=DK3") == []
    assert found("amount=100") == ["DK1"]
    assert found("updated_since=2999-01-01T00:00:00Z") == []
    assert api.get("/v1/orders?number=DK1&status=failed").status == 422
    assert api.get("/v1/orders?amount=1e2").status == 422
