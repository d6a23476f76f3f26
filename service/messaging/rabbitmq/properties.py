"""A message as AMQP properties and back, and a cure for headers that pika cannot decode."""

import struct
from typing import Any

import pika
import pika.data
from pika.exceptions import InvalidFieldTypeException
from pika.spec import Basic

from service.messaging.interface import Message

_LENGTH_BYTES = 4

_decode_table = pika.data.decode_table


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
    """The message that the broker delivered; absent properties are "".

    Headers that are not strings, such as the broker's own `x-death` and `x-delivery-count`, are left out. Where pika
    cannot decode one header, all are left out (`tolerate_unreadable_headers`).
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


def tolerate_unreadable_headers() -> None:
    """From now on, in this process, read a table of headers that pika cannot decode as empty. Safe to repeat.

    pika raises in the middle of reading from the socket, which costs the connection. One such message (a timestamp in
    milliseconds is enough) would keep every consumer from all messages behind it, use up the delivery limit of its
    neighbours, and could not even be listed among the dead letters. Replacing pika's function is the only remedy.
    """
    pika.data.decode_table = _decode_readable_table


def _decode_readable_table(encoded: bytes, offset: int) -> tuple[dict[Any, Any], int]:
    try:
        return _decode_table(encoded, offset)
    except (ValueError, OverflowError, OSError, RecursionError, struct.error, InvalidFieldTypeException):
        (length,) = struct.unpack_from(">I", encoded, offset)
        return {}, offset + _LENGTH_BYTES + length
