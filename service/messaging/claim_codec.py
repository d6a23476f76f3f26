"""Claims as queue messages, and back again.

The version is in the message's type, not in its body. A field may be added to a version: older releases pass over it.
Whatever changes the meaning of a field makes a new version, which is read beside the old one for a release.
"""

import random

from service.domain.claims import Claim, ClaimSource, OrderStatus
from service.messaging.bodies import BodyFields, parse_body, write_body
from service.messaging.contract import Message
from service.messaging.errors import UndecodableMessage
from service.messaging.rabbitmq.topology import CALLBACKS_EXCHANGE
from service.runtime.traceparent import TRACEPARENT

#: The type of every message that `encode_claim` makes.
CLAIM_V1 = "payment-callbacks.claim.v1"


def encode_claim(claim: Claim) -> Message:
    """The message that carries one claim, with a new random message id."""
    body: dict[str, object] = {
        "merchant": claim.merchant,
        "biz_order_no": claim.biz_order_no,
        "trust": claim.trust.word,
        "source": claim.source.value,
        "status": None if claim.status is None else claim.status.value,
        "pay_order_no": claim.pay_order_no,
        "order_type": claim.order_type,
        "pay_type": claim.pay_type,
        "paid_at": None if claim.paid_at is None else claim.paid_at.isoformat(),
        "channel_response": claim.channel_response,
        "stated_at": claim.stated_at.isoformat(),
        "digest": claim.digest,
        "quarantine": claim.quarantine,
        "unknown_fields": dict(claim.unknown_fields),
        "stated_by": claim.stated_by,
        "reason": claim.reason,
    }
    if claim.missing_fields:
        body["missing_fields"] = list(claim.missing_fields)
    return Message(
        exchange=CALLBACKS_EXCHANGE,
        routing_key=claim.merchant,
        body=write_body(body),
        # Unlike any other, and no secret: `uuid4` asks the system for each.
        message_id=f"{random.getrandbits(128):032x}",
        type=CLAIM_V1,
        headers={} if claim.traceparent is None else {TRACEPARENT: claim.traceparent},
    )


def decode_claim(message: Message) -> Claim:
    """The claim that a message carries.

    Raises `UndecodableMessage`, which names the field and what was wrong with it, for any body that `encode_claim` of
    this or a neighbouring release would not have made.
    """
    if message.type != CLAIM_V1:
        raise UndecodableMessage(f"type is {message.type!r}; this release reads {CLAIM_V1!r}")
    fields = BodyFields(parse_body(message.body))
    return Claim(
        merchant=fields.filled_text("merchant"),
        biz_order_no=fields.filled_text("biz_order_no"),
        trust=fields.trust("trust"),
        source=fields.member("source", ClaimSource),
        status=fields.optional_member("status", OrderStatus),
        pay_order_no=fields.optional_text("pay_order_no"),
        order_type=fields.text("order_type"),
        pay_type=fields.text("pay_type"),
        paid_at=fields.optional_moment("paid_at"),
        channel_response=fields.text("channel_response"),
        stated_at=fields.moment("stated_at"),
        digest=fields.filled_text("digest"),
        quarantine=fields.optional_text("quarantine"),
        unknown_fields=fields.texts("unknown_fields"),
        # Not in messages of older releases, nor where nothing is missing.
        missing_fields=fields.names("missing_fields"),
        traceparent=message.headers.get(TRACEPARENT),
        stated_by=fields.text("stated_by"),
        reason=fields.text("reason"),
    )
