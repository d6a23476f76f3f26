"""What the API tells whom: nothing to strangers, the place of every fault to callers, and a document of all it does."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from service.api.app import OPEN_ENDPOINTS
from service.api.request_schemas import MAX_BODY_BYTES
from service.contracts.shipped import read_shipped
from tests.support.openapi import OpenApi


@pytest.fixture
def openapi(stranger: FlaskClient) -> OpenApi:
    return OpenApi(stranger.get("/openapi.json").json)


def test_every_route_is_in_the_document_and_nothing_else(app: Flask, openapi: OpenApi) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.endpoint not in OPEN_ENDPOINTS
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert openapi.operations == routes
    assert len(routes) == 8


def test_every_reference_of_the_document_leads_somewhere(stranger: FlaskClient, openapi: OpenApi) -> None:
    references = re.findall(r'"\$ref": "([^"]+)"', stranger.get("/openapi.json").text)
    assert references
    for reference in references:
        assert openapi.resolve({"$ref": reference})


def test_the_document_is_of_openapi_3_1_and_wants_a_token(openapi: OpenApi) -> None:
    assert openapi.document["openapi"] == "3.1.0"
    assert openapi.document["security"] == [{"token": []}]


def test_its_metrics_need_no_database(stranger: FlaskClient) -> None:
    metrics = stranger.get("/metrics").text
    assert 'payment_callbacks_build_info{role="api"' in metrics
    assert 'payment_callbacks_log_lines_lost_total{reason="full"} 3.0' in metrics
    assert "payment_callbacks_log_lines_escaped_total 1.0" in metrics


@pytest.mark.parametrize(
    ("path", "name"), [("/asyncapi.json", "asyncapi.json"), ("/schemas/payment-event.json", "payment-event.json")]
)
def test_the_contracts_of_events_are_served_to_everyone_as_they_are_shipped(
    stranger: FlaskClient, path: str, name: str
) -> None:
    answer = stranger.get(path)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.data == read_shipped(name)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/schemas/order.json"),
        ("GET", "/v1/orders"),
        ("POST", "/v1/orders"),
        ("GET", "/v1/orders/acme/DK1"),
        ("GET", "/v1/orders/nobody/DK1"),
        ("POST", "/v1/withholds"),
        ("GET", "/v1/withholds"),
        ("GET", "/no/such/address"),
    ],
)
def test_strangers_learn_nothing_not_even_which_addresses_exist(stranger: FlaskClient, method: str, path: str) -> None:
    answer = stranger.open(path, method=method)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json == {
        "type": "urn:payment-callbacks:problem:unauthenticated",
        "title": "Unauthenticated.",
        "status": 401,
        "detail": "",
        "errors": [],
    }


def test_every_operation_names_the_scope_that_it_needs(openapi: OpenApi) -> None:
    needed = {
        operation["operationId"]: operation["security"]
        for methods in openapi.document["paths"].values()
        for method, operation in methods.items()
        if method != "parameters"
    }
    assert needed == {
        "listOrders": [{"token": ["read"]}],
        "showOrder": [{"token": ["read"]}],
        "announceOrders": [{"token": ["announce"]}],
        "withhold": [{"token": ["withhold"]}],
        "bindCard": [{"token": ["cards"]}],
        "confirmCard": [{"token": ["cards"]}],
        "inquire": [{"token": ["inquire"]}],
        "resolveOrder": [{"token": ["resolve"]}],
    }


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v1/orders", "announce"),
        ("/v1/withholds", "withhold"),
        ("/v1/cards", "cards"),
        ("/v1/cards/confirm", "cards"),
        ("/v1/orders/acme/DK1/inquiry", "inquire"),
        ("/v1/orders/acme/DK1/resolve", "resolve"),
    ],
)
def test_a_token_without_the_scope_is_told_which_it_needs_before_anything_is_read(
    till: FlaskClient, openapi: OpenApi, path: str, scope: str
) -> None:
    answer = till.post(path, data=b"not even JSON", content_type="text/plain")
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{scope}"'
    assert answer.json["type"] == "urn:payment-callbacks:problem:scope-missing"
    assert answer.json["scope"] == scope
    assert f"`{scope}`" in answer.json["detail"]
    openapi.check_answer("POST", path, status=403, content_type=answer.content_type, value=answer.json)


def test_a_token_with_the_scope_is_let_in(till: FlaskClient) -> None:
    assert till.get("/v1/orders").status_code == 503  # its ledger was never made


def test_what_a_token_may_not_do_is_logged_with_its_name(till: FlaskClient) -> None:
    with capture_logs() as logs:
        till.post("/v1/orders/acme/DK1/resolve")
    (entry,) = logs
    assert (entry["event"], entry["caller"], entry["scope"]) == ("api_scope_missing", "till", "resolve")


def test_a_wrong_token_is_not_logged(stranger: FlaskClient) -> None:
    with capture_logs() as logs:
        stranger.get("/v1/orders", headers={"Authorization": "Bearer not-quite-the-token"})
    assert [entry["event"] for entry in logs] == ["api_caller_unknown"]
    assert "not-quite-the-token" not in str(logs)


def test_a_body_that_is_too_large_is_refused(shop: FlaskClient) -> None:
    answer = shop.post("/v1/orders", data=b" " * (MAX_BODY_BYTES + 1), content_type="application/json")
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")


def test_a_name_that_no_encoding_can_hold_is_a_fault_like_any_other(shop: FlaskClient) -> None:
    answer = shop.post("/v1/orders", json={"orders": [], "\ud800": 1})
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert "\ud800" in [fault["where"] for fault in answer.json["errors"]]


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_time_beyond_the_calendar_is_a_fault_like_any_other(shop: FlaskClient, time: str) -> None:
    answer = shop.get("/v1/orders", query_string={"updated_before": time})
    assert (answer.status_code, [fault["where"] for fault in answer.json["errors"]]) == (422, ["updated_before"])


def test_a_ledger_that_cannot_be_used_is_trouble_and_no_fault_of_the_callers(shop: FlaskClient) -> None:
    answer = shop.post("/v1/orders", json={"orders": [{"merchant": "acme", "biz_order_no": "DK1"}]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json["type"].endswith(":ledger-unavailable")


def test_answers_are_kept_by_no_proxy(shop: FlaskClient) -> None:
    assert shop.get("/v1/orders").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/v1/orders/acme/%FF", "/v1/orders/acme/a%00b", "/v1/orders/acme/" + "x" * 129])
def test_what_is_no_order_number_is_no_address(shop: FlaskClient, path: str) -> None:
    assert shop.get(path).status_code == 404


def test_a_method_that_an_address_does_not_have_is_told_with_those_it_has(shop: FlaskClient) -> None:
    answer = shop.delete("/v1/withholds")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
