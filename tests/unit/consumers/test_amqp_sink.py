"""How an event is published to the broker."""

from dataclasses import replace

import pytest

from consumers.sinks.amqp import AmqpSink, routing_key
from consumers.sinks.sink import DeliveryFailed
from service.domain.events import EventType, SerializedEvent
from service.messaging.errors import ConfirmTimeout
from service.messaging.interface import Message

EVENT = SerializedEvent(
    event_id="acme/20260301-7/2",
    type=EventType.SUCCEEDED.value,
    merchant="acme",
    order_type="withhold",
    status="succeeded",
    body=b'{"specversion":"1.0"}',
)


class RecordingPublisher:
    def __init__(self, *, error: Exception | None = None) -> None:
        self._error = error
        self.published: list[Message] = []
        self.closed = False

    def publish(self, message: Message, *, timeout_seconds: float) -> None:
        if self._error:
            raise self._error
        self.published.append(message)

    def close(self, *, timeout_seconds: float) -> None:
        self.closed = True


def test_the_stored_bytes_are_published_under_the_events_id() -> None:
    publisher = RecordingPublisher()
    AmqpSink(publisher=publisher, timeout_seconds=1).send(EVENT)
    assert publisher.published == [
        Message(
            exchange="payment.status",
            routing_key="acme.withhold.succeeded",
            body=EVENT.body,
            message_id=EVENT.event_id,
            type="payment.succeeded",
            content_type="application/cloudevents+json",
        )
    ]


@pytest.mark.parametrize(
    ("order_type", "word"),
    [
        ("withhold", "withhold"),
        ("Single-Withhold_2", "single-withhold_2"),
        ("", "unknown"),
        ("a.b", "unknown"),
        ("#", "unknown"),
        ("*", "unknown"),
        ("代扣", "unknown"),
        ("withhold\n", "unknown"),
        ("x" * 65, "unknown"),
    ],
)
def test_an_order_type_is_one_word_of_the_routing_key_whatever_it_says(order_type: str, word: str) -> None:
    assert routing_key(replace(EVENT, order_type=order_type)) == f"acme.{word}.succeeded"


def test_an_id_that_amqp_has_no_room_for_is_hashed() -> None:
    publisher = RecordingPublisher()
    AmqpSink(publisher=publisher, timeout_seconds=1).send(replace(EVENT, event_id="acme/" + "%E4" * 128 + "/1"))
    [message] = publisher.published
    assert message.message_id.startswith("sha256:")
    assert len(message.message_id) == len("sha256:") + 64


def test_an_unconfirmed_event_is_a_failed_delivery() -> None:
    sink = AmqpSink(publisher=RecordingPublisher(error=ConfirmTimeout("no confirm within 1 s")), timeout_seconds=1)
    with pytest.raises(DeliveryFailed, match="ConfirmTimeout: no confirm"):
        sink.send(EVENT)


def test_the_publisher_is_closed_with_the_sink() -> None:
    publisher = RecordingPublisher()
    AmqpSink(publisher=publisher, timeout_seconds=1).close()
    assert publisher.closed
