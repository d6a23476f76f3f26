"""The examples of docs/consumers-guide.md, as their readers run them: against the real service, repeats, forgeries."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
from standardwebhooks import Webhook

from service.domain.claims import OrderStatus, Trust
from service.domain.events import CONTENT_TYPE, EndpointTest, EventType, PaymentEvent, write_event, write_test
from service.messaging.interface import Message
from service.messaging.rabbitmq.session import BrokerSession
from service.messaging.rabbitmq.topology import STATUS_EXCHANGE, declare
from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import (
    WEBHOOK_SECRET,
    Downstream,
    QueueExample,
    WebhookExample,
    event_validator,
    shipped_asyncapi,
)
from tests.support.messages import rabbit_publisher
from tests.support.processes import Processes
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

_ALL_TYPES = json.dumps([type_.value for type_ in EventType])
_QUEUE_ENDPOINT = f"""
[[endpoints]]
name = "queues"
kind = "amqp"
types = {_ALL_TYPES}
timeout_seconds = 2.0
"""
_WEBHOOK_ENDPOINT = f"""
[[endpoints]]
name = "books"
kind = "webhook"
url = "{{url}}"
secrets = ["{WEBHOOK_SECRET}"]
types = {_ALL_TYPES}
timeout_seconds = 2.0
initial_retry_seconds = 0.1
max_retry_seconds = 0.5
"""


def add_endpoint(deployment: Deployment, table: str) -> None:
    with deployment.settings_file.open("a") as settings:
        settings.write(table)


def an_event(sequence: int, status: OrderStatus, *, type_: EventType | None = None) -> PaymentEvent:
    return PaymentEvent(
        type=type_ or EventType(f"payment.{status.value}"),
        merchant="acme",
        biz_order_no="DK.单/1",
        sequence=sequence,
        status=status,
        previous_status=OrderStatus.INITIAL,
        pay_order_no="P1",
        order_type="single_withhold",
        pay_type="baofoo_001",
        paid_at=None,
        amount="100.00",
        amount_unit="yuan",
        channel_response="交易成功",
        trust=Trust.QUERIED,
        observed_at=datetime(2026, 1, 5, tzinfo=UTC),
    )


PROCESSING = an_event(1, OrderStatus.PROCESSING)
SUCCEEDED = an_event(2, OrderStatus.SUCCEEDED)
FAILED = an_event(3, OrderStatus.FAILED, type_=EventType.CORRECTED)


def test_both_examples_book_a_payment_once_hold_still_in_a_dispute_and_take_it_back(
    deploy: Callable[..., Deployment],
    servers: Place,
    own_shop: Downstream,
    processes: Processes,
    tmp_path: Path,
    order: str,
) -> None:
    declare([servers.amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
    queue = QueueExample(processes=processes, amqp_url=servers.amqp_url, folder=tmp_path)
    webhook = WebhookExample(processes=processes, folder=tmp_path)
    deployment = deploy(servers)
    # It has an endpoint of this kind already, for the usual types: so all but the conflict is published twice.
    add_endpoint(deployment, _QUEUE_ENDPOINT)
    add_endpoint(deployment, _WEBHOOK_ENDPOINT.format(url=webhook.url))
    queue.wait_until_ready()
    webhook.wait_until_ready()
    both = (queue, webhook)
    deployment.start(*ROLES)
    deployment.wait_until_receiving()

    for status in ("pending", "success"):
        assert deployment.sender.send(deployment.callback(order, pay_status=status)).acknowledged
    eventually(lambda: all(one.bookings == [(order, 1)] for one in both), why=processes.describe)

    assert deployment.sender.send(deployment.callback(order, pay_status="fail")).acknowledged
    eventually(lambda: all(one.count("disputed") for one in both), why=processes.describe)
    assert all(one.bookings == [(order, 1)] for one in both)

    decided = ("failed", "--by", "Li Lei", "--reason", "the bank says so", "--yes")
    done = deployment.command("orders", "resolve", "acme", order, *decided)
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(
        lambda: all(one.bookings == [(order, 1), (order, -1)] for one in both),
        why=processes.describe,
    )
    eventually(lambda: queue.count("seen before") >= 3, why=processes.describe)

    for endpoint in ("books", "queues"):
        done = deployment.command("endpoints", "test", endpoint)
        assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: webhook.count("a test"), why=processes.describe)

    headers = shipped_asyncapi()["components"]["schemas"]["WebhookHeaders"]
    for told in own_shop.received:
        event_validator(closed=True).validate(told.envelope)
        assert set(headers["required"]) <= set(told.headers)


def test_the_python_example_is_not_misled_by_repeats_late_events_rubbish_or_its_own_death(
    amqp_url: str, processes: Processes, tmp_path: Path
) -> None:
    declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
    example = QueueExample(processes=processes, amqp_url=amqp_url, folder=tmp_path)
    example.wait_until_ready()
    a_test = EndpointTest(endpoint="bus", number="1", sent_at=datetime(2026, 1, 5, tzinfo=UTC))
    _publish(amqp_url, write_event(SUCCEEDED), write_event(PROCESSING), write_event(SUCCEEDED), b"rubbish")
    _publish(amqp_url, write_test(a_test))
    eventually(lambda: example.count("late") and example.count("seen before"), why=example.process.describe)
    eventually(lambda: _depth(amqp_url, "shop.payments.dead") == 1, why=example.process.describe)
    eventually(lambda: example.count("a test"), why=example.process.describe)
    assert example.bookings == [("DK.单/1", 1)]

    example.process.kill()
    _publish(amqp_url, write_event(SUCCEEDED), write_event(FAILED))
    example.process.start()
    eventually(lambda: len(example.bookings) == 2, why=example.process.describe)
    assert example.bookings == [("DK.单/1", 1), ("DK.单/1", -1)]


def test_the_node_example_is_not_misled_by_repeats_late_events_or_its_own_death(
    processes: Processes, tmp_path: Path
) -> None:
    example = WebhookExample(processes=processes, folder=tmp_path)
    example.wait_until_ready()
    for event in (SUCCEEDED, PROCESSING, SUCCEEDED):
        assert _post(example, event) == 204
    assert (example.count("late"), example.count("seen before")) == (1, 1)
    assert example.bookings == [("DK.单/1", 1)]

    example.process.kill()
    with example.journal.open("a") as journal:
        journal.write('{"id":"acme/DK')  # it was killed in the middle of a line
    example.process.start()
    example.wait_until_ready()
    assert [_post(example, event) for event in (SUCCEEDED, FAILED)] == [204, 204]
    assert example.bookings == [("DK.单/1", 1), ("DK.单/1", -1)]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"secret": f"whsec_{'B' * 40}"}, 401),
        ({"age": timedelta(minutes=6)}, 401),
        ({"age": timedelta(minutes=-6)}, 401),
        ({"headers": {"webhook-signature": "v1,"}}, 401),
        ({"headers": {"webhook-timestamp": "soon"}}, 401),
        ({"headers": {"webhook-id": "acme/another/1"}}, 401),
        ({"body": b'{"id":"acme/1/1"}'}, 400),
        ({"body": b"rubbish"}, 400),
        ({"body": b" " * (256 * 1024 + 1)}, 413),
    ],
)
def test_the_node_example_refuses_what_is_forged_stale_or_no_event(
    webhook_example: WebhookExample, changes: Mapping[str, Any], status: int
) -> None:
    assert _post(webhook_example, SUCCEEDED, **changes) == status
    assert webhook_example.bookings == []
    assert webhook_example.process.running


@pytest.fixture(scope="module")
def webhook_example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebhookExample]:
    folder = tmp_path_factory.mktemp("webhook-example")
    processes = Processes(folder=folder)
    example = WebhookExample(processes=processes, folder=folder)
    example.wait_until_ready()
    yield example
    processes.kill_all()


def _publish(url: str, *bodies: bytes) -> None:
    publisher = rabbit_publisher(url, connection_name="test")
    try:
        for body in bodies:
            message = Message(
                exchange=STATUS_EXCHANGE,
                routing_key="acme.single_withhold.succeeded",
                body=body,
                message_id="test",
                type="payment.succeeded",
                content_type=CONTENT_TYPE,
            )
            publisher.publish(message, timeout_seconds=HANGS_AFTER_SECONDS)
    finally:
        publisher.close(timeout_seconds=5)


def _depth(url: str, queue: str) -> int:
    with BrokerSession(urls=[url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        return session.count(queue)


def _post(
    example: WebhookExample,
    event: PaymentEvent,
    *,
    secret: str = WEBHOOK_SECRET,
    age: timedelta = timedelta(0),
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> int:
    """The status that it answers to a webhook, signed by another implementation than its own."""
    content = write_event(event) if body is None else body
    sent_at = datetime.now(UTC) - age
    signature = Webhook(secret).sign(event.id, sent_at, content.decode())
    signed = {
        "content-type": CONTENT_TYPE,
        "webhook-id": event.id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": signature,
    }
    answer = urllib3.request("POST", example.url, body=content, headers={**signed, **(headers or {})}, retries=False)
    return answer.status
