"""The AsyncAPI document: good by AsyncAPI's own rules, and true of the exchange and of the sinks."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from consumers.sinks.amqp import routing_key
from service.cli.main import main
from service.contracts.shipped import ASYNCAPI, PAYMENT_EVENT, read_shipped
from service.domain.claims import OrderStatus, Trust
from service.domain.events import (
    CONTENT_TYPE,
    EndpointTest,
    EventType,
    PaymentEvent,
    SerializedEvent,
    write_event,
    write_test,
)
from service.messaging.rabbitmq.topology import EXCHANGES, STATUS_EXCHANGE
from tests.support.downstream import asyncapi_faults, event_validator, payload_validator, shipped_asyncapi

MESSAGES = {
    "paymentProcessing": EventType.PROCESSING,
    "paymentSucceeded": EventType.SUCCEEDED,
    "paymentFailed": EventType.FAILED,
    "paymentCorrected": EventType.CORRECTED,
    "paymentConflicted": EventType.CONFLICTED,
}
_STATUSES = {
    EventType.PROCESSING: (OrderStatus.INITIAL, OrderStatus.PROCESSING),
    EventType.SUCCEEDED: (OrderStatus.PROCESSING, OrderStatus.SUCCEEDED),
    EventType.FAILED: (OrderStatus.PROCESSING, OrderStatus.FAILED),
    EventType.CORRECTED: (OrderStatus.SUCCEEDED, OrderStatus.FAILED),
    EventType.CONFLICTED: (OrderStatus.SUCCEEDED, OrderStatus.SUCCEEDED),
}


@pytest.fixture(scope="module")
def document() -> Any:
    return shipped_asyncapi()


def an_event(type_: EventType, *, order_type: str = "single_withhold") -> SerializedEvent:
    previous, status = _STATUSES[type_]
    event = PaymentEvent(
        type=type_,
        merchant="acme",
        biz_order_no="DK/1",
        sequence=1,
        status=status,
        previous_status=previous,
        pay_order_no=None,
        order_type=order_type,
        pay_type="",
        paid_at=None,
        amount=None,
        amount_unit=None,
        channel_response="",
        trust=Trust.QUERIED,
        observed_at=datetime(2026, 1, 5, tzinfo=UTC),
    )
    return SerializedEvent(
        event_id=event.id,
        type=type_.value,
        merchant=event.merchant,
        order_type=order_type,
        status=status.value,
        body=write_event(event),
    )


@pytest.mark.parametrize("name", [ASYNCAPI, PAYMENT_EVENT])
def test_what_the_package_ships_is_what_the_code_says(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["schemas", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_bytes() == read_shipped(name), "run: payment-callbacks schemas service/contracts"


def test_the_document_is_good_by_asyncapis_own_schema(document: Any) -> None:
    assert asyncapi_faults(document) == []
    assert asyncapi_faults({**document, "channels": {"webhook": {"adress": ""}}}) != []


def test_every_reference_of_the_document_leads_somewhere(document: Any) -> None:
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert references
    for reference in references:
        found = document
        for part in reference.split("/"):
            found = found[part]


def a_test() -> Any:
    test = EndpointTest(endpoint="shop", number="5d0c3a1e9b7f4c52", sent_at=datetime(2026, 1, 5, tzinfo=UTC))
    return json.loads(write_test(test))


@pytest.mark.parametrize(("channel", "more"), [("webhook", ["paymentTest"]), ("status", [])])
@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_takes_events_of_its_own_type_alone(
    document: Any, channel: str, more: list[str], message: str
) -> None:
    assert list(document["channels"][channel]["messages"]) == [*MESSAGES, *more]
    validator = payload_validator(document, channel, message)
    taken = {type_ for type_ in EventType if validator.is_valid(json.loads(an_event(type_).body))}
    assert taken == {MESSAGES[message]}
    assert not validator.is_valid(a_test())


@pytest.mark.parametrize("channel", ["webhook", "test"])
def test_the_message_of_tests_takes_tests_and_no_event(document: Any, channel: str) -> None:
    validator = payload_validator(document, channel, "paymentTest")
    validator.validate(a_test())
    assert validator.is_valid({**a_test(), "new": "field"})
    for type_ in EventType:
        assert not validator.is_valid(json.loads(an_event(type_).body))


def test_no_consumer_that_holds_events_to_their_schema_takes_a_test_for_one() -> None:
    assert not event_validator().is_valid(a_test())
    assert {"merchant", "biz_order_no", "status", "sequence"}.isdisjoint(a_test()["data"])


def test_the_documents_exchange_is_the_one_that_is_declared(document: Any) -> None:
    channel = document["channels"]["status"]
    (declared,) = (exchange for exchange in EXCHANGES if exchange.name == STATUS_EXCHANGE)
    told = channel["bindings"]["amqp"]["exchange"]
    assert (told["name"], told["type"], told["durable"]) == (declared.name, declared.type, True)
    assert str(declared.arguments["alternate-exchange"]) in channel["description"]
    assert document["defaultContentType"] == CONTENT_TYPE


@pytest.mark.parametrize("order_type", ["single_withhold", "Refund-2", "", "a.b", "退款"])
def test_routing_keys_are_of_the_address_that_the_document_names(document: Any, order_type: str) -> None:
    channel = document["channels"]["status"]
    key = routing_key(an_event(EventType.SUCCEEDED, order_type=order_type))
    words = re.findall(r"{(\w+)}", channel["address"])
    assert words == list(channel["parameters"])
    assert len(key.split(".")) == len(words)
