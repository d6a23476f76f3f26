"""Events on RabbitMQ, for services that would rather have a queue than a webhook."""

import json
from collections.abc import Callable

from service.messaging.interface import Message
from service.messaging.rabbitmq.session import BrokerSession
from service.messaging.rabbitmq.topology import STATUS_EXCHANGE, UNROUTED_STATUS
from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import Downstream
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


def _fetch(url: str, queue: str) -> Message | None:
    with BrokerSession(urls=[url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        fetched = session.fetch(queue)
        if fetched is None:
            return None
        session.acknowledge(fetched)
        return fetched.message


def test_a_queue_bound_to_payment_status_gets_what_the_webhook_gets(
    deploy: Callable[..., Deployment], servers: Place, own_shop: Downstream, order: str
) -> None:
    deployment = deploy(servers)
    assert deployment.command("topology", "declare").returncode == 0
    with BrokerSession(urls=[servers.amqp_url], connection_name="test", timeout_seconds=HANGS_AFTER_SECONDS) as session:
        session.declare_queue("books", arguments={"x-queue-type": "quorum"})
        session.bind_queue("books", exchange=STATUS_EXCHANGE, routing_key="acme.*.succeeded")
    deployment.start(*ROLES)
    deployment.wait_until_receiving()

    for status in ("pending", "success"):
        assert deployment.sender.send(deployment.callback(order, pay_status=status)).acknowledged

    message = eventually(lambda: _fetch(servers.amqp_url, "books"))
    assert message is not None
    eventually(lambda: len(own_shop.about(order)) == 2)
    told = own_shop.about(order)[-1]
    assert json.loads(message.body) == told.envelope
    assert message.headers["traceparent"] == told.headers["traceparent"] == told.envelope["traceparent"]
    assert message.message_id == told.id
    assert (message.type, message.content_type) == ("payment.succeeded", "application/cloudevents+json")
    assert message.routing_key == "acme.single_withhold.succeeded"
    assert _fetch(servers.amqp_url, "books") is None
    unrouted = _fetch(servers.amqp_url, UNROUTED_STATUS)
    assert unrouted is not None, "what nobody has bound a queue for is kept"
    assert unrouted.routing_key == "acme.single_withhold.processing"
