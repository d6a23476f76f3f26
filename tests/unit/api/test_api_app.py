"""Authentication, scopes, problems and the OpenAPI document of the API."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.api.app import OPEN_ENDPOINTS
from service.api.request_schemas import MAX_BODY_BYTES
from service.contracts.shipped import read_shipped
from tests.support.api import OpenApi
from tests.support.logs import capture_logs


@pytest.fixture
def openapi(anonymous: FlaskClient) -> OpenApi:
    return OpenApi(anonymous.get("/openapi.json").get_json())


def test_every_route_is_in_the_document_and_nothing_else(app: Flask, openapi: OpenApi) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.endpoint not in OPEN_ENDPOINTS
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert openapi.operations == routes
    assert len(routes) == 31


def test_every_parameter_of_a_path_is_described(openapi: OpenApi) -> None:
    paths = openapi.document["paths"].items()
    in_paths = {path: re.findall(r"{(\w+)}", path) for path, _ in paths}
    described = {path: [parameter["name"] for parameter in item.get("parameters", [])] for path, item in paths}
    assert described == in_paths
    assert all(
        parameter["required"] and parameter["schema"]["description"]
        for _, item in paths
        for parameter in item.get("parameters", [])
    )


def test_every_reference_of_the_document_resolves(anonymous: FlaskClient, openapi: OpenApi) -> None:
    references = re.findall(r'"\$ref": "([^"]+)"', anonymous.get("/openapi.json").text)
    assert references
    for reference in references:
        assert openapi.resolve({"$ref": reference})


def test_the_document_is_openapi_3_1_and_requires_a_token(openapi: OpenApi) -> None:
    assert openapi.document["openapi"] == "3.1.0"
    assert openapi.document["security"] == [{"token": []}]


def test_its_metrics_need_no_database(anonymous: FlaskClient) -> None:
    metrics = anonymous.get("/metrics").text
    assert 'payment_callbacks_build_info{role="api"' in metrics
    assert 'payment_callbacks_log_lines_lost_total{reason="full"} 3.0' in metrics
    assert "payment_callbacks_log_lines_escaped_total 1.0" in metrics


@pytest.mark.parametrize(
    ("path", "name"), [("/asyncapi.json", "asyncapi.json"), ("/schemas/payment-event.json", "payment-event.json")]
)
def test_the_event_contracts_are_served_without_a_token_and_unchanged(
    anonymous: FlaskClient, path: str, name: str
) -> None:
    answer = anonymous.get(path)
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
def test_without_a_token_no_response_reveals_which_addresses_exist(
    anonymous: FlaskClient, method: str, path: str
) -> None:
    answer = anonymous.open(path, method=method)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.get_json() == {
        "type": "urn:payment-callbacks:problem:unauthenticated",
        "title": "Unauthenticated.",
        "status": 401,
        "detail": "",
        "errors": [],
    }


def test_every_operation_documents_its_required_scope(openapi: OpenApi) -> None:
    needed = {
        operation["operationId"]: operation["security"]
        for methods in openapi.document["paths"].values()
        for method, operation in methods.items()
        if method != "parameters"
    }
    assert needed == {
        "listOrders": [{"token": ["read"]}],
        "showOrder": [{"token": ["read"]}],
        "readOrderEvents": [{"token": ["read"]}],
        "readEvents": [{"token": ["read"]}],
        "announceOrders": [{"token": ["announce"]}],
        "withhold": [{"token": ["withhold"]}],
        "bindCard": [{"token": ["cards"]}],
        "confirmCard": [{"token": ["cards"]}],
        "inquire": [{"token": ["inquire"]}],
        "resolveOrder": [{"token": ["resolve"]}],
        "listAttention": [{"token": ["read"]}],
        "listDeadLetters": [{"token": ["read"]}],
        "showDeadLetter": [{"token": ["read"]}],
        "settleDeadLetters": [{"token": ["resolve"]}],
        "readReport": [{"token": ["read"]}],
        "acknowledge": [{"token": ["resolve"]}],
        "confirmProposal": [{"token": ["resolve"]}],
        "withdrawProposal": [{"token": ["resolve"]}],
        "listEndpoints": [{"token": ["read"]}],
        "pauseEndpoint": [{"token": ["operate"]}],
        "resumeEndpoint": [{"token": ["operate"]}],
        "testEndpoint": [{"token": ["operate"]}],
        "showEndpointTest": [{"token": ["read"]}],
        "listDeliveries": [{"token": ["read"]}],
        "redeliver": [{"token": ["operate"]}],
        "countReplay": [{"token": ["read"]}],
        "requestReplay": [{"token": ["operate"]}],
        "showReplay": [{"token": ["read"]}],
        "stopReplay": [{"token": ["operate"]}],
        "listInquiries": [{"token": ["read"]}],
        "listChanges": [{"token": ["read"]}],
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
        ("/v1/endpoints/shop/pause", "operate"),
        ("/v1/endpoints/shop/resume", "operate"),
        ("/v1/endpoints/shop/test", "operate"),
        ("/v1/dead-letters/requests", "resolve"),
        ("/v1/endpoints/shop/redeliver", "operate"),
        ("/v1/replays", "operate"),
        ("/v1/replays/1/stop", "operate"),
    ],
)
def test_a_missing_scope_is_named_before_the_body_is_read(
    till: FlaskClient, openapi: OpenApi, path: str, scope: str
) -> None:
    answer = till.post(path, data=b"not even JSON", content_type="text/plain")
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{scope}"'
    assert answer.get_json()["type"] == "urn:payment-callbacks:problem:scope-missing"
    assert answer.get_json()["scope"] == scope
    assert f"`{scope}`" in answer.get_json()["detail"]
    openapi.check_answer("POST", path, status=403, content_type=answer.content_type, value=answer.get_json())


def test_a_token_with_the_scope_is_accepted(till: FlaskClient) -> None:
    assert till.get("/v1/orders").status_code == 503  # its ledger was never made


def test_a_missing_scope_is_logged_with_the_tokens_name(till: FlaskClient) -> None:
    with capture_logs() as logs:
        till.post("/v1/orders/acme/DK1/resolve")
    (entry,) = logs
    assert (entry["event"], entry["caller"], entry["scope"]) == ("api_scope_missing", "till", "resolve")


def test_a_wrong_token_is_not_logged(anonymous: FlaskClient) -> None:
    with capture_logs() as logs:
        anonymous.get("/v1/orders", headers={"Authorization": "Bearer not-quite-the-token"})
    assert [entry["event"] for entry in logs] == ["api_caller_unknown"]
    assert "not-quite-the-token" not in str(logs)


def test_a_body_that_is_too_large_is_refused(shop: FlaskClient) -> None:
    answer = shop.post("/v1/orders", data=b" " * (MAX_BODY_BYTES + 1), content_type="application/json")
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")


def test_a_field_name_with_a_lone_surrogate_is_reported_as_invalid(shop: FlaskClient) -> None:
    answer = shop.post("/v1/orders", json={"orders": [], "\ud800": 1})
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert "\ud800" in [fault["where"] for fault in answer.get_json()["errors"]]


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_time_outside_the_range_of_utc_is_reported_as_invalid(shop: FlaskClient, time: str) -> None:
    answer = shop.get("/v1/orders", query_string={"updated_before": time})
    assert (answer.status_code, [fault["where"] for fault in answer.get_json()["errors"]]) == (422, ["updated_before"])


def test_an_unavailable_ledger_is_a_503_with_retry_after(shop: FlaskClient) -> None:
    answer = shop.post("/v1/orders", json={"orders": [{"merchant": "acme", "biz_order_no": "DK1"}]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.get_json()["type"].endswith(":ledger-unavailable")


def test_responses_may_not_be_cached(shop: FlaskClient) -> None:
    assert shop.get("/v1/orders").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/v1/orders/acme/%FF", "/v1/orders/acme/a%00b", "/v1/orders/acme/" + "x" * 129])
def test_a_path_with_an_invalid_order_number_is_not_found(shop: FlaskClient, path: str) -> None:
    assert shop.get(path).status_code == 404


def test_a_method_that_is_not_allowed_is_answered_with_the_allowed_ones(shop: FlaskClient) -> None:
    answer = shop.delete("/v1/withholds")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
