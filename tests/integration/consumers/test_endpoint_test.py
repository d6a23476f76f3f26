"""Tests of endpoints: sent as events are, by hand and on request, and the answer is shown."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from consumers.endpoint_test import EndpointTestOutcome, send_test_event
from consumers.sinks.sink import Sink
from service.bootstrap.dispatcher_role import make_sink, sending_endpoint_tests
from service.config.endpoints import AmqpSettings, AnyEndpoint, WebhookSettings
from service.config.secrets import Secret
from service.config.settings import BrokerSettings, Settings
from service.domain.events import EventType
from service.ledger.audit import list_changes
from service.ledger.endpoint_tests import EndpointTestRecord, EndpointTests, EndpointTestState
from service.messaging.rabbitmq.session import BrokerSession
from service.messaging.rabbitmq.topology import STATUS_EXCHANGE, UNROUTED_STATUS, declare
from service.runtime.clock import now
from tests.support.claims import AUTHOR
from tests.support.downstream import WEBHOOK_SECRET, Downstream, payload_validator, shipped_asyncapi
from tests.support.messages import count_messages
from tests.support.processes import find_free_port
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

TryWebhook = Callable[..., EndpointTestOutcome]


@pytest.fixture
def shop() -> Iterator[Downstream]:
    with Downstream() as downstream:
        yield downstream


@pytest.fixture
def try_webhook(tmp_path: Path) -> TryWebhook:
    def go(url: str, *, timeout_seconds: float = 30.0) -> EndpointTestOutcome:
        endpoint = WebhookSettings(
            name="shop", url=url, secrets=[Secret(WEBHOOK_SECRET)], timeout_seconds=timeout_seconds
        )
        return _try(make_sink(Settings(merchants={}, data_directory=tmp_path), endpoint))

    return go


@pytest.fixture
def try_bus(amqp_url: str, tmp_path: Path) -> Callable[[], EndpointTestOutcome]:
    def go() -> EndpointTestOutcome:
        settings = Settings(merchants={}, data_directory=tmp_path, broker=BrokerSettings(urls=[Secret(amqp_url)]))
        return _try(make_sink(settings, AmqpSettings(name="shop")))

    return go


def _try(sink: Sink) -> EndpointTestOutcome:
    try:
        return send_test_event(sink, endpoint="shop", clock=now)
    finally:
        sink.close()


def test_a_webhook_gets_a_signed_test_that_the_contract_knows_and_that_is_no_payment(
    shop: Downstream, try_webhook: TryWebhook
) -> None:
    outcome = try_webhook(shop.url)
    assert (outcome.accepted, outcome.answer) == (True, "the endpoint answered 204")
    (told,) = shop.received  # they are verified
    assert told.id == told.envelope["id"] == outcome.event_id
    payload_validator(shipped_asyncapi(), "webhook", "paymentTest").validate(told.envelope)
    assert told.type not in [type_.value for type_ in EventType]


def test_two_tests_are_two(shop: Downstream, try_webhook: TryWebhook) -> None:
    assert try_webhook(shop.url).event_id != try_webhook(shop.url).event_id


def test_the_answer_of_a_webhook_is_reported(shop: Downstream, try_webhook: TryWebhook) -> None:
    shop.fail(500)
    assert (try_webhook(shop.url).accepted, try_webhook(shop.url).answer) == (False, "the endpoint answered 500")
    shop.fail(410)
    assert (try_webhook(shop.url).accepted, try_webhook(shop.url).answer) == (False, "the endpoint answered 410 Gone")


def test_a_webhook_that_nobody_listens_at_is_reported(try_webhook: TryWebhook) -> None:
    outcome = try_webhook(f"http://127.0.0.1:{find_free_port()}/")
    assert not outcome.accepted
    assert outcome.answer.startswith("no connection: NewConnectionError")


def test_a_webhook_that_hangs_is_reported_within_its_time_limit(shop: Downstream, try_webhook: TryWebhook) -> None:
    shop.hang()
    outcome = try_webhook(shop.url, timeout_seconds=1.0)
    assert not outcome.accepted
    assert outcome.answer.startswith("no answer in time: ReadTimeoutError")


def test_a_queue_that_is_bound_to_tests_gets_one_and_one_that_is_bound_to_merchants_does_not(
    amqp_url: str, try_bus: Callable[[], EndpointTestOutcome]
) -> None:
    declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
    with BrokerSession(urls=[amqp_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        for name, key in (("tests", "_test.#"), ("everything", "#"), ("payments", "acme.*.*")):
            session.declare_queue(name, arguments={"x-queue-type": "quorum"})
            session.bind_queue(name, exchange=STATUS_EXCHANGE, routing_key=key)
    outcome = try_bus()
    assert (outcome.accepted, outcome.answer) == (True, "the broker confirmed it")
    eventually(lambda: [count_messages(amqp_url, name) for name in ("tests", "everything")] == [1, 1])
    assert count_messages(amqp_url, "payments") == 0
    with BrokerSession(urls=[amqp_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        fetched = session.fetch("tests")
        assert fetched is not None
    assert (fetched.message.message_id, fetched.message.type) == (outcome.event_id, "payment.test")
    assert fetched.message.routing_key == "_test.shop.test"
    payload_validator(shipped_asyncapi(), "test", "paymentTest").validate(json.loads(fetched.message.body))


def test_a_test_that_nobody_is_bound_for_is_soon_gone_from_where_lost_events_are_kept(
    amqp_url: str, try_bus: Callable[[], EndpointTestOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
    with monkeypatch.context() as patched:
        patched.setattr("consumers.endpoint_test._EXPIRES_SECONDS", 0.5)
        assert try_bus().accepted
    later = try_bus()
    assert later.accepted
    eventually(lambda: first_of(amqp_url, UNROUTED_STATUS) == later.event_id)


def first_of(url: str, queue: str) -> str | None:
    """The id of the queue's first message, which stays there."""
    with BrokerSession(urls=[url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        fetched = session.fetch(queue)
    return None if fetched is None else fetched.message.message_id


def test_a_broker_without_the_exchange_is_reported(try_bus: Callable[[], EndpointTestOutcome]) -> None:
    outcome = try_bus()
    assert not outcome.accepted
    assert "payment.status" in outcome.answer


# On request, through the ledger.


@pytest.fixture
def tests(ledger_engine: Engine) -> EndpointTests:
    return EndpointTests(engine=ledger_engine)


@pytest.fixture
def settings(shop: Downstream, tmp_path: Path, ledger_engine: Engine, request: pytest.FixtureRequest) -> Settings:
    """With the shop's webhook and, on RabbitMQ beside PostgreSQL, the exchange."""
    endpoints: list[AnyEndpoint] = [WebhookSettings(name="shop", url=shop.url, secrets=[Secret(WEBHOOK_SECRET)])]
    broker = BrokerSettings()
    if ledger_engine.dialect.name == "postgresql":
        broker = BrokerSettings(urls=[Secret(request.getfixturevalue("declared_url"))])
        endpoints.append(AmqpSettings(name="bus"))
    return Settings(merchants={}, data_directory=tmp_path, broker=broker, endpoints=endpoints)


def await_outcome(tests: EndpointTests, test: EndpointTestRecord) -> EndpointTestRecord:
    def settled() -> EndpointTestRecord | None:
        found = tests.load(test.id)
        assert found is not None
        return None if found.seconds is None else found

    found = eventually(settled)
    assert found is not None
    return found


def test_a_requested_test_is_sent_and_its_outcome_is_kept_and_audited(
    tests: EndpointTests, settings: Settings, shop: Downstream, ledger_engine: Engine
) -> None:
    requested = tests.request("shop", author=AUTHOR)
    assert (requested.state, requested.sent_at) == (EndpointTestState.REQUESTED, None)
    with sending_endpoint_tests(settings, ledger_engine):
        outcome = await_outcome(tests, requested)
    assert (outcome.state, outcome.answer) == (EndpointTestState.ACCEPTED, "the endpoint answered 204")
    assert outcome.sent_at is not None
    assert [told.id for told in shop.received] == [outcome.event_id]
    (change,) = list_changes(ledger_engine, limit=10)
    assert (change.action, change.subject) == ("test-endpoint", "shop")
    assert (change.changed_by, change.reason) == (AUTHOR.name, AUTHOR.reason)


def test_the_error_of_a_requested_test_is_kept(
    tests: EndpointTests, settings: Settings, shop: Downstream, ledger_engine: Engine
) -> None:
    shop.fail(500)
    with sending_endpoint_tests(settings, ledger_engine):
        outcome = await_outcome(tests, tests.request("shop", author=AUTHOR))
    assert (outcome.state, outcome.answer) == (EndpointTestState.FAILED, "the endpoint answered 500")


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_test_of_the_exchange_is_sent_on_request_too(
    tests: EndpointTests, settings: Settings, ledger_engine: Engine
) -> None:
    with sending_endpoint_tests(settings, ledger_engine):
        outcome = await_outcome(tests, tests.request("bus", author=AUTHOR))
    assert (outcome.state, outcome.answer) == (EndpointTestState.ACCEPTED, "the broker confirmed it")


def test_each_test_is_taken_once_and_only_for_endpoints_that_are_known(tests: EndpointTests) -> None:
    first, second = (tests.request("shop", author=AUTHOR) for _ in range(2))
    other = tests.request("books", author=AUTHOR)
    taken = [tests.take(["shop"]) for _ in range(3)]
    assert [test.id if test else None for test in taken] == [first.id, second.id, None]
    found = tests.load(other.id)
    assert found is not None
    assert found.state is EndpointTestState.REQUESTED
