"""Counts of refused callbacks as queue messages, and back again; versioned as claims are (`claim_codec.py`)."""

import uuid
from collections.abc import Sequence

from service.domain.refusals import RefusalCount
from service.messaging.bodies import BodyFields, parse_body, write_body
from service.messaging.contract import Message
from service.messaging.errors import UndecodableMessage
from service.messaging.rabbitmq.topology import CALLBACKS_EXCHANGE

#: The type of every message that `encode_refusals` makes.
REFUSALS_V1 = "payment-callbacks.refusals.v1"
# No merchant's: a slug has no dot.
_ROUTING_KEY = "receiver.refusals"


def encode_refusals(counts: Sequence[RefusalCount]) -> Message:
    """The message that carries these counts, with a new random message id."""
    body = {
        "counts": [
            {
                "merchant": count.merchant,
                "day": count.day.isoformat(),
                "reason": count.reason,
                "process": count.process,
                "callbacks": count.callbacks,
            }
            for count in counts
        ]
    }
    return Message(
        exchange=CALLBACKS_EXCHANGE,
        routing_key=_ROUTING_KEY,
        body=write_body(body),
        message_id=uuid.uuid4().hex,
        type=REFUSALS_V1,
    )


def decode_refusals(message: Message) -> Sequence[RefusalCount]:
    """The counts that a message carries. Raises `UndecodableMessage` as `decode_claim` does."""
    if message.type != REFUSALS_V1:
        raise UndecodableMessage(f"type is {message.type!r}; this release reads {REFUSALS_V1!r}")
    return [
        RefusalCount(
            merchant=fields.text("merchant"),
            day=fields.day("day"),
            reason=fields.filled_text("reason"),
            process=fields.filled_text("process"),
            callbacks=fields.count("callbacks"),
        )
        for fields in BodyFields(parse_body(message.body)).each("counts")
    ]
