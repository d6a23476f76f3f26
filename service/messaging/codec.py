"""Claims as queue messages, and back again.

The version is in the message's type, not in its body. A field may be added to a version: older releases pass over it.
Whatever changes the meaning of a field makes a new version, which is read beside the old one for a release.
"""

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from service.claims import Claim, ClaimSource, OrderStatus, Trust
from service.messaging.contract import Message
from service.messaging.errors import UndecodableMessage
from service.messaging.topology import CALLBACKS_EXCHANGE
from service.traceparent import TRACEPARENT

#: The type of every message that `encode_claim` makes.
CLAIM_V1 = "payment-callbacks.claim.v1"

_Member = TypeVar("_Member", bound=StrEnum)


def encode_claim(claim: Claim) -> Message:
    """The message that carries one claim, with a new random message id.

    The body is JSON in ASCII, so that no character of a callback (a lone surrogate, say) can keep it from the queue.
    """
    body = {
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
    return Message(
        exchange=CALLBACKS_EXCHANGE,
        routing_key=claim.merchant,
        body=json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii"),
        message_id=uuid.uuid4().hex,
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
    fields = _Fields(_parse(message.body))
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
        traceparent=message.headers.get(TRACEPARENT),
        stated_by=fields.text("stated_by"),
        reason=fields.text("reason"),
    )


def _parse(body: bytes) -> Mapping[str, object]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UndecodableMessage(f"body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise UndecodableMessage(f"body is a JSON {type(parsed).__name__}; it must be an object")
    return parsed


class _Fields:
    """The fields of a decoded body, each read as exactly one type."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        value = self._value(name)
        if not isinstance(value, str):
            raise _wrong(name, "a string", value)
        return value

    def filled_text(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise _wrong(name, "a string that is not empty", value)
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._value(name) is None else self.text(name)

    def texts(self, name: str) -> Mapping[str, str]:
        value = self._value(name)
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise _wrong(name, "an object of strings", value)
        return value

    def moment(self, name: str) -> datetime:
        text = self.text(name)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise _wrong(name, "an ISO 8601 time", text) from error
        if moment.utcoffset() is None:
            raise _wrong(name, "a time with its offset from UTC", text)
        return moment

    def optional_moment(self, name: str) -> datetime | None:
        return None if self._value(name) is None else self.moment(name)

    def member(self, name: str, kind: type[_Member]) -> _Member:
        text = self.text(name)
        try:
            return kind(text)
        except ValueError as error:
            raise _wrong(name, f"one of {', '.join(kind)}", text) from error

    def optional_member(self, name: str, kind: type[_Member]) -> _Member | None:
        return None if self._value(name) is None else self.member(name, kind)

    def trust(self, name: str) -> Trust:
        levels = {trust.word: trust for trust in Trust}
        text = self.text(name)
        if text not in levels:
            raise _wrong(name, f"one of {', '.join(levels)}", text)
        return levels[text]

    def _value(self, name: str) -> object:
        try:
            return self._values[name]
        except KeyError as error:
            raise UndecodableMessage(f"field {name!r} is missing") from error


def _wrong(name: str, expected: str, found: object) -> UndecodableMessage:
    # The kind and not the value: this reason is logged and stored, and values may be personal.
    if found is None:
        kind = "null"
    elif isinstance(found, str):
        kind = "another string" if found else "an empty string"
    else:
        kind = f"a JSON {type(found).__name__}"
    return UndecodableMessage(f"field {name!r} must be {expected}; found {kind}")
