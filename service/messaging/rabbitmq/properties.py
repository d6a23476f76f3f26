"""A message as AMQP properties, and back again."""

import pika
from pika.spec import Basic

from service.messaging.contract import Message


def to_properties(message: Message) -> pika.BasicProperties:
    """The AMQP properties of a message; always persistent."""
    expires = message.expires_after_seconds
    return pika.BasicProperties(
        content_type=message.content_type,
        delivery_mode=pika.DeliveryMode.Persistent.value,
        message_id=message.message_id,
        type=message.type,
        headers=dict(message.headers),
        # In milliseconds, as text.
        expiration=None if expires is None else str(round(expires * 1000)),
    )


def from_delivery(method: Basic.Deliver | Basic.GetOk, properties: pika.BasicProperties, body: bytes) -> Message:
    """The message that the broker handed out; absent properties are "".

    Headers that are no strings (the broker's own `x-death` and `x-delivery-count` among them) are left out, and all of
    them where pika cannot decode one (`unreadable_headers.py`).
    """
    headers = properties.headers or {}
    return Message(
        exchange=method.exchange,
        routing_key=method.routing_key,
        body=body,
        message_id=properties.message_id or "",
        type=properties.type or "",
        content_type=properties.content_type or "",
        headers={name: value for name, value in headers.items() if isinstance(value, str)},
    )
