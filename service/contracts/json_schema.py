"""The JSON Schemas of events and of tests (draft 2020-12). `PaymentEvent` declares what is in `data`."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from service.domain.claims import OrderStatus
from service.domain.events import SLUG, TEST_NOTE, TEST_TYPE, Described, EventType, PaymentEvent

#: Names the contract, and changes with every change that breaks a consumer; further fields break none.
EVENT_SCHEMA_ID = "urn:payment-callbacks:schema:payment-event:1"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# What a type says of the change that it tells. The other types may tell of any.
_CHANGES = {
    EventType.PROCESSING: (OrderStatus.PROCESSING, [OrderStatus.INITIAL]),
    EventType.SUCCEEDED: (OrderStatus.SUCCEEDED, [OrderStatus.INITIAL, OrderStatus.PROCESSING]),
    EventType.FAILED: (OrderStatus.FAILED, [OrderStatus.INITIAL, OrderStatus.PROCESSING]),
}


def describe_event() -> dict[str, Any]:
    """The document, as JSON values. It is open: fields that it does not name may be added, and are to be ignored."""
    members = {
        "specversion": _constant("1.0", "The version of CloudEvents."),
        "id": _text(
            "`<merchant>/<biz_order_no, percent-encoded>/<sequence>`: the same however often the event is sent. "
            "Dedupe by it.",
            examples=["acme/DK20190701000001/2"],
            pattern=f"^{SLUG}/(?:[A-Za-z0-9_~-]|%[0-9A-F]{{2}})+/[1-9][0-9]*$",
        ),
        "source": _text("`/merchants/<merchant>`.", examples=["/merchants/acme"], pattern=f"^/merchants/{SLUG}$"),
        "type": _text("What has happened.", enum=[type_.value for type_ in EventType]),
        "subject": _text("`data.biz_order_no`, once more.", minLength=1, maxLength=128),
        "time": _time("`data.observed_at`, once more."),
        "datacontenttype": _constant("application/json", "What `data` is."),
        "data": _describe_members(PaymentEvent),
        "traceparent": _text(
            "W3C Trace Context (CloudEvents' distributed tracing extension), where one is known.",
            pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        ),
    }
    return {
        "$schema": _DIALECT,
        "$id": EVENT_SCHEMA_ID,
        "title": "Payment event",
        "description": "One status change of one order, as a CloudEvent 1.0 in structured JSON. Ignore fields that are "
        "not named here.",
        **_object(members, optional=["traceparent"]),
        "allOf": [_rule(type_, status.value, previous) for type_, (status, previous) in _CHANGES.items()],
    }


def describe_test() -> dict[str, Any]:
    """The schema of tests, as JSON values, without a dialect or an id of its own."""
    data = {
        "endpoint": _text("The endpoint's name in the operator's settings.", examples=["shop"]),
        "note": _constant(TEST_NOTE, "For people who find it in a log."),
    }
    members = {
        "specversion": _constant("1.0", "The version of CloudEvents."),
        "id": _text(
            "`test:<endpoint>:<number>`; no payment event has such an id.",
            examples=["test:shop:5d0c3a1e9b7f4c52"],
            pattern=f"^test:{SLUG}:[0-9a-z]+$",
        ),
        "source": _text("`/endpoints/<endpoint>`.", examples=["/endpoints/shop"], pattern=f"^/endpoints/{SLUG}$"),
        "type": _constant(TEST_TYPE, "What tells it from every payment event."),
        "time": _time("When it was sent; RFC 3339 with its zone."),
        "datacontenttype": _constant("application/json", "What `data` is."),
        "data": _object(data),
    }
    return {
        "title": "Endpoint test",
        "description": "A test that an operator has sent, as a CloudEvent 1.0 in structured JSON: answer it as taken, "
        "and do nothing.",
        **_object(members),
    }


def _describe_members(declared: type) -> dict[str, Any]:
    """The object of a class's described attributes."""
    attributes = dataclasses.fields(declared) if dataclasses.is_dataclass(declared) else ()
    required = {one.name for one in attributes if one.default is one.default_factory is dataclasses.MISSING}
    optional = {one.name for one in attributes} - required
    members = {}
    for name, annotation in get_type_hints(declared, include_extras=True).items():
        if get_origin(annotation) is Annotated:
            type_, described = get_args(annotation)
            members[name] = _describe_member(type_, described, nullable=name not in optional)
    return _object(members, optional=optional)


def _describe_member(type_: Any, described: Described, *, nullable: bool) -> dict[str, Any]:
    if get_origin(type_) is Mapping:
        return {"type": "object", **described.keywords, "additionalProperties": _describe_members(get_args(type_)[1])}
    json_type: str | list[str] = "integer" if type_ is int else "string"
    if NoneType in get_args(type_):
        (type_,) = (choice for choice in get_args(type_) if choice is not NoneType)
        json_type = ["string", "null"] if nullable else "string"
    words = dict(described.keywords)
    if issubclass(type_, StrEnum):
        words["enum"] = [member.value for member in type_]
    return {"type": json_type, **({"format": "date-time"} if type_ is datetime else {}), **words}


def _object(members: Mapping[str, Any], *, optional: Collection[str] = ()) -> dict[str, Any]:
    required = sorted(name for name in members if name not in optional)
    return {"type": "object", "properties": members, "required": required, "additionalProperties": True}


def _text(description: str, **keywords: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **keywords}


def _time(description: str) -> dict[str, Any]:
    return {"type": "string", "format": "date-time", "description": description}


def _constant(value: str, description: str) -> dict[str, Any]:
    return {"default": value, "type": "string", "enum": [value], "description": description}


def _rule(type_: EventType, status: str, previous: Sequence[OrderStatus]) -> dict[str, Any]:
    change = {"status": {"const": status}, "previous_status": {"enum": [one.value for one in previous]}}
    return {
        "if": {"properties": {"type": {"const": type_.value}}},
        "then": {"properties": {"data": {"properties": change}}},
    }
