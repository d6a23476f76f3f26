"""The AMQP sink: publishes events to the topic exchange `payment.status`, to which any service binds its own queue."""

import hashlib
import re

from consumers.sinks.sink import DeliveryFailed
from service.domain.events import CONTENT_TYPE, SerializedEvent
from service.messaging.errors import NotConfirmed
from service.messaging.interface import Message, Publisher
from service.messaging.rabbitmq.topology import STATUS_EXCHANGE
from service.runtime.traceparent import TRACEPARENT
from service.runtime.tracing import NO_TRACING, RABBITMQ, Tracing

# A routing key is words between dots, so a word must have no character that ends it or matches a pattern.
_WORD = re.compile(r"[a-z0-9_-]{1,64}")
_UNKNOWN_WORD = "unknown"
# In AMQP 0-9-1, message-id is a short string.
_MAX_MESSAGE_ID_BYTES = 255
_CLOSE_SECONDS = 2.0


class AmqpSink:
    """Publishes with the broker's confirm. The alternate exchange keeps events for which no queue is bound.

    The sink owns the publisher and closes it.
    """

    def __init__(self, *, publisher: Publisher, timeout_seconds: float, tracing: Tracing = NO_TRACING) -> None:
        self._publisher = publisher
        self._tracing = tracing
        self._timeout_seconds = timeout_seconds

    def send(self, event: SerializedEvent) -> str:
        """Publish the event under `<merchant>.<order_type>.<status>`; see `Sink.send`."""
        try:
            with self._tracing.publish(STATUS_EXCHANGE, event.traceparent, system=RABBITMQ) as span:
                span.set("payment.merchant", event.merchant)
                span.set("cloudevents.event_type", event.type)
                message = Message(
                    exchange=STATUS_EXCHANGE,
                    routing_key=routing_key(event),
                    body=event.body,
                    message_id=_message_id(event.event_id),
                    type=event.type,
                    content_type=CONTENT_TYPE,
                    headers={} if span.traceparent is None else {TRACEPARENT: span.traceparent},
                    expires_after_seconds=event.expires_after_seconds,
                )
                self._publisher.publish(message, timeout_seconds=self._timeout_seconds)
        except NotConfirmed as error:
            raise DeliveryFailed(f"{type(error).__name__}: {error}") from error
        return "the broker confirmed it"

    def close(self) -> None:
        """Close the publisher."""
        self._publisher.close(timeout_seconds=_CLOSE_SECONDS)


def routing_key(event: SerializedEvent) -> str:
    """`<merchant>.<order_type>.<status>`, the order type in lower case.

    An order type that is empty, or has other characters than a-z, 0-9, `_` and `-`, becomes `unknown`: it comes from
    outside, and a dot in it would make it several words.
    """
    order_type = event.order_type.lower()
    return f"{event.merchant}.{order_type if _WORD.fullmatch(order_type) else _UNKNOWN_WORD}.{event.status}"


def _message_id(event_id: str) -> str:
    """The event's id. An id that is too long for AMQP is hashed; the body has all of it."""
    if len(event_id.encode()) <= _MAX_MESSAGE_ID_BYTES:
        return event_id
    return f"sha256:{hashlib.sha256(event_id.encode()).hexdigest()}"
