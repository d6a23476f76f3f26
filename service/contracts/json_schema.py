"""The JSON Schemas of events and of tests (draft 2020-12), made from the schemas that write them."""

from collections.abc import Sequence
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from service.domain.claims import OrderStatus
from service.domain.event_schemas import EndpointTestSchema, PaymentEventSchema
from service.domain.events import EventType

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
    return {
        "$schema": _DIALECT,
        "$id": EVENT_SCHEMA_ID,
        "title": "Payment event",
        "description": f"{_first_line(PaymentEventSchema)} Ignore fields that are not named here.",
        **_convert(PaymentEventSchema),
        "allOf": [_rule(type_, status.value, previous) for type_, (status, previous) in _CHANGES.items()],
    }


def describe_test() -> dict[str, Any]:
    """The schema of tests, as JSON values, without a dialect or an id of its own."""
    return {"title": "Endpoint test", "description": _first_line(EndpointTestSchema), **_convert(EndpointTestSchema)}


def _convert(schema: type[Schema]) -> dict[str, Any]:
    # A schema without a name is written where it is used: there is no document around it that a $ref could lead into.
    plugin = MarshmallowPlugin(schema_name_resolver=lambda _: "")
    APISpec(title="", version="", openapi_version="3.1.0", plugins=[plugin])
    assert plugin.converter is not None  # noqa: S101 - APISpec has initialised its plugin
    converted: dict[str, Any] = plugin.converter.schema2jsonschema(schema)  # type: ignore[no-untyped-call]
    return converted


def _rule(type_: EventType, status: str, previous: Sequence[OrderStatus]) -> dict[str, Any]:
    change = {"status": {"const": status}, "previous_status": {"enum": [one.value for one in previous]}}
    return {
        "if": {"properties": {"type": {"const": type_.value}}},
        "then": {"properties": {"data": {"properties": change}}},
    }


def _first_line(schema: type[Schema]) -> str:
    return (schema.__doc__ or "").partition("\n")[0]
