"""Claims, counts of refusals and depths of spools as queue messages, and back.

The version is in the message's type, not in its body. A version may gain fields, which older releases ignore. A change
to the meaning of a field makes a new version, which is read beside the old one for one release.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from enum import StrEnum
from typing import TypeVar

from service.domain.claims import Claim, ClaimSource, OrderStatus, Trust
from service.domain.depths import DepthReport
from service.domain.money import UNITS, Money, read_money
from service.domain.refusals import RefusalCount
from service.messaging.errors import UndecodableMessage
from service.messaging.interface import Message
from service.messaging.rabbitmq.topology import CALLBACKS_EXCHANGE
from service.runtime.traceparent import TRACEPARENT

#: The type of every message that `encode_claim` makes.
CLAIM_V1 = "payment-callbacks.claim.v1"
#: The type of every message that `encode_refusals` makes.
REFUSALS_V1 = "payment-callbacks.refusals.v1"
#: The type of every message that `encode_depth` makes.
DEPTH_V1 = "payment-callbacks.depth.v1"
# Not merchants' routing keys: a slug has no dot.
_REFUSALS_ROUTING_KEY = "receiver.refusals"
_DEPTH_ROUTING_KEY = "receiver.depth"

_TRUSTS = {trust.word: trust for trust in Trust}
# The largest integer that every database can store.
_MAX_COUNT = 2**63 - 1

_NO_HEADERS: Mapping[str, str] = {}
_Member = TypeVar("_Member", bound=StrEnum)
_write_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


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
    if claim.amount is not None:
        body |= {"amount": claim.amount.text, "amount_unit": claim.amount.unit}
    if claim.digest_without_amount is not None:
        body["digest_without_amount"] = claim.digest_without_amount
    if claim.missing_fields:
        body["missing_fields"] = list(claim.missing_fields)
    headers = {} if claim.traceparent is None else {TRACEPARENT: claim.traceparent}
    return _make_message(body, routing_key=claim.merchant, type_=CLAIM_V1, headers=headers)


def decode_claim(message: Message) -> Claim:
    """The claim that a message carries.

    Raises `UndecodableMessage` for any body that `encode_claim` of this or a neighbouring release would not have made.
    The error names the field and what was wrong with it, and quotes no value.
    """
    fields = _parse_body(message, version=CLAIM_V1)
    return Claim(
        merchant=fields.filled_text("merchant"),
        biz_order_no=fields.filled_text("biz_order_no"),
        trust=fields.trust("trust"),
        source=fields.member("source", ClaimSource),
        status=None if fields.is_null("status") else fields.member("status", OrderStatus),
        pay_order_no=fields.optional_text("pay_order_no"),
        order_type=fields.text("order_type"),
        pay_type=fields.text("pay_type"),
        amount=fields.money("amount", unit="amount_unit"),
        paid_at=None if fields.is_null("paid_at") else fields.moment("paid_at"),
        channel_response=fields.text("channel_response"),
        stated_at=fields.moment("stated_at"),
        digest=fields.filled_text("digest"),
        digest_without_amount=fields.text_if_any("digest_without_amount"),
        quarantine=fields.optional_text("quarantine"),
        unknown_fields=fields.texts("unknown_fields"),
        # Absent where nothing is missing, and in messages of older releases.
        missing_fields=fields.names("missing_fields"),
        traceparent=message.headers.get(TRACEPARENT),
        stated_by=fields.text("stated_by"),
        reason=fields.text("reason"),
    )


def encode_refusals(counts: Sequence[RefusalCount]) -> Message:
    """The message that carries these counts, with a new random message id."""
    body = {"counts": [{**asdict(count), "day": count.day.isoformat()} for count in counts]}
    return _make_message(body, routing_key=_REFUSALS_ROUTING_KEY, type_=REFUSALS_V1)


def decode_refusals(message: Message) -> Sequence[RefusalCount]:
    """The counts that a message carries. Raises `UndecodableMessage` as `decode_claim` does."""
    return [
        RefusalCount(
            merchant=fields.text("merchant"),
            day=fields.day("day"),
            reason=fields.filled_text("reason"),
            process=fields.filled_text("process"),
            callbacks=fields.count("callbacks", least=1),
        )
        for fields in _parse_body(message, version=REFUSALS_V1).objects("counts")
    ]


def encode_depth(report: DepthReport) -> Message:
    """The message that carries one report, with a new random message id."""
    body = {
        "reporter": report.reporter,
        "name": report.name,
        "messages": report.messages,
        "oldest_at": None if report.oldest_at is None else report.oldest_at.isoformat(),
        "reported_at": report.reported_at.isoformat(),
    }
    return _make_message(body, routing_key=_DEPTH_ROUTING_KEY, type_=DEPTH_V1)


def decode_depth(message: Message) -> DepthReport:
    """The report that a message carries. Raises `UndecodableMessage` as `decode_claim` does."""
    fields = _parse_body(message, version=DEPTH_V1)
    return DepthReport(
        reporter=fields.filled_text("reporter"),
        name=fields.filled_text("name"),
        messages=fields.count("messages", least=0),
        oldest_at=None if fields.is_null("oldest_at") else fields.moment("oldest_at"),
        reported_at=fields.moment("reported_at"),
    )


def _make_message(
    body: Mapping[str, object], *, routing_key: str, type_: str, headers: Mapping[str, str] = _NO_HEADERS
) -> Message:
    return Message(
        exchange=CALLBACKS_EXCHANGE,
        routing_key=routing_key,
        # In ASCII, so that any character can be queued, even a lone surrogate.
        body=_write_json(body).encode("ascii"),
        # It must be unique, not secret: `uuid4` would make a system call for each.
        message_id=f"{random.getrandbits(128):032x}",
        type=type_,
        headers=headers,
    )


def _parse_body(message: Message, *, version: str) -> "_Fields":
    if message.type != version:
        raise UndecodableMessage(f"type is {message.type!r}; this release reads {version!r}")
    try:
        parsed = json.loads(message.body)
    except (ValueError, RecursionError) as error:
        raise UndecodableMessage(f"body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise UndecodableMessage(f"body is a JSON {type(parsed).__name__}; it must be an object")
    return _Fields(parsed)


class _Fields:
    """The fields of a decoded body. Each method reads exactly one type, and raises `UndecodableMessage` otherwise."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def is_null(self, name: str) -> bool:
        return self._value(name) is None

    def text(self, name: str) -> str:
        """A string, maybe an empty one."""
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
        return None if self.is_null(name) else self.text(name)

    def text_if_any(self, name: str) -> str | None:
        """A string that is not empty; None where the field is missing."""
        return self.filled_text(name) if name in self._values else None

    def money(self, name: str, *, unit: str) -> Money | None:
        """An amount in the unit that the field `unit` names; None where the field is missing."""
        if name not in self._values:
            return None
        if self.text(unit) not in UNITS:
            raise _wrong(unit, f"one of {', '.join(UNITS)}", self.text(unit))
        money = read_money(self.text(name), self.text(unit))
        if money is None:
            raise _wrong(name, "an amount of whole fen", self.text(name))
        return money

    def texts(self, name: str) -> Mapping[str, str]:
        """An object of strings."""
        value = self._value(name)
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise _wrong(name, "an object of strings", value)
        return value

    def names(self, name: str) -> Sequence[str]:
        """An array of strings that are not empty; an empty one where the field is missing."""
        value = self._values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise _wrong(name, "an array of strings that are not empty", value)
        return tuple(value)

    def objects(self, name: str) -> Sequence["_Fields"]:
        """An array of objects."""
        value = self._value(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise _wrong(name, "an array of objects", value)
        return [_Fields(item) for item in value]

    def count(self, name: str, *, least: int) -> int:
        """A whole number of at least `least`."""
        value = self._value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MAX_COUNT:
            raise _wrong(name, f"a whole number from {least} to {_MAX_COUNT}", value)
        return value

    def day(self, name: str) -> date:
        """A calendar date, YYYY-MM-DD."""
        text = self.text(name)
        try:
            day = date.fromisoformat(text)
        except ValueError as error:
            raise _wrong(name, "a date, YYYY-MM-DD", text) from error
        if day.isoformat() != text:
            raise _wrong(name, "a date, YYYY-MM-DD", text)
        return day

    def moment(self, name: str) -> datetime:
        """A time with its offset from UTC."""
        text = self.text(name)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise _wrong(name, "an ISO 8601 time", text) from error
        if moment.utcoffset() is None:
            raise _wrong(name, "a time with its offset from UTC", text)
        return moment

    def member(self, name: str, kind: type[_Member]) -> _Member:
        """A member of `kind`, by its value."""
        text = self.text(name)
        try:
            return kind(text)
        except ValueError as error:
            raise _wrong(name, f"one of {', '.join(kind)}", text) from error

    def trust(self, name: str) -> Trust:
        text = self.text(name)
        if text not in _TRUSTS:
            raise _wrong(name, f"one of {', '.join(_TRUSTS)}", text)
        return _TRUSTS[text]

    def _value(self, name: str) -> object:
        try:
            return self._values[name]
        except KeyError as error:
            raise UndecodableMessage(f"field {name!r} is missing") from error


def _wrong(name: str, expected: str, found: object) -> UndecodableMessage:
    # The kind and not the value: this reason is logged and stored, and values may be personal data.
    if found is None:
        kind = "null"
    elif isinstance(found, str):
        kind = "another string" if found else "an empty string"
    else:
        kind = f"a JSON {type(found).__name__}"
    return UndecodableMessage(f"field {name!r} must be {expected}; found {kind}")
