"""The AsyncAPI 3.0 document: which events go through which channel."""

from typing import Any

from service.contracts.json_schema import EVENT_SCHEMA_ID, describe_event, describe_test
from service.domain.events import CONTENT_TYPE, TEST_TYPE, EventType

_EVENT = "PaymentEvent"
_TEST = "EndpointTest"
_TEST_MESSAGE = "paymentTest"
_WEBHOOK_HEADERS = "WebhookHeaders"
# Of the HTTP and of the AMQP binding, as it happens.
_BINDINGS = "0.3.0"
_SUMMARIES = {
    EventType.PROCESSING: "The gateway has accepted the order; whether the money moves is not known yet.",
    EventType.SUCCEEDED: "The money has moved.",
    EventType.FAILED: "The order has failed for good; no money has moved.",
    EventType.CORRECTED: "What an earlier event said is replaced, or a conflict has been settled: `status` holds now.",
    EventType.CONFLICTED: "Claims about the order contradict each other: do nothing more about it until a "
    "later event settles it. Sent only to endpoints that name this type.",
}
_PARAMETERS = {
    "merchant": "The merchant's slug.",
    "order_type": "The gateway's order type in lower case; `unknown` where there is none, or where it holds other "
    "characters than a-z, 0-9, `_` and `-`.",
    "status": "`data.status`.",
}
_TRACE_HEADER = {
    "traceparent": {"type": "string", "description": "W3C Trace Context, as in the event; absent where none is known."}
}


def describe_channels(*, exchange: str, alternate_exchange: str) -> dict[str, Any]:
    """The document, as JSON values. `exchange` takes the events, and `alternate_exchange` what nobody has bound."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:payment-callbacks",
        "info": {
            "title": "payment-callbacks, events",
            "version": EVENT_SCHEMA_ID.rpartition(":")[2],
            "description": "One event per real change of an order's status, delivered at least once. Dedupe by `id`; "
            "of one order the event with the highest `data.sequence` holds. By webhook the events of one order come in "
            "that order, except those that were given up and sent again later.",
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            "webhook": _webhook(),
            "status": _status(exchange, alternate_exchange),
            "test": _test_channel(exchange),
        },
        "operations": {
            "callWebhook": {
                "action": "send",
                "channel": {"$ref": "#/channels/webhook"},
                "summary": "Posted to the endpoint's `url`. 2xx is success, 410 pauses the endpoint, anything else is "
                "tried again, no sooner than `Retry-After` asks.",
                "bindings": {"http": {"method": "POST", "bindingVersion": _BINDINGS}},
            },
            "publishStatus": {
                "action": "send",
                "channel": {"$ref": "#/channels/status"},
                "summary": "Published, persistent and confirmed, to the exchange; bind a durable queue of your own.",
                "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "bindingVersion": _BINDINGS}},
            },
            "publishTest": {
                "action": "send",
                "channel": {"$ref": "#/channels/test"},
                "summary": "Published when an operator tests the endpoint; queues drop it after a minute.",
                "bindings": {
                    "amqp": {"deliveryMode": 2, "mandatory": True, "expiration": 60000, "bindingVersion": _BINDINGS}
                },
            },
        },
        "components": {
            "schemas": {_EVENT: _embedded_event(), _TEST: describe_test(), _WEBHOOK_HEADERS: _webhook_headers()}
        },
    }


def _webhook() -> dict[str, Any]:
    headers = {"$ref": f"#/components/schemas/{_WEBHOOK_HEADERS}"}
    return {
        "title": "Signed HTTP webhook",
        "description": "After the Standard Webhooks convention (https://www.standardwebhooks.com).",
        # The URL is the endpoint's, in the operator's settings.
        "address": None,
        "messages": {
            **{_name(type_): {**_message(type_), "headers": headers} for type_ in _SUMMARIES},
            _TEST_MESSAGE: {**_test_message(), "headers": headers},
        },
    }


def _status(exchange: str, alternate_exchange: str) -> dict[str, Any]:
    return {
        "title": "RabbitMQ topic exchange",
        "description": f"What no queue is bound for goes to `{alternate_exchange}`, which keeps the newest for a "
        "person to look at. The AMQP message id is the event's `id`, or `sha256:` and its hash where that is over 255 "
        "bytes.",
        "address": "{merchant}.{order_type}.{status}",
        "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
        "messages": {
            _name(type_): {
                **_message(type_),
                "headers": {"type": "object", "properties": _TRACE_HEADER},
                "bindings": {"amqp": {"messageType": type_.value, "bindingVersion": _BINDINGS}},
            }
            for type_ in _SUMMARIES
        },
        "bindings": _routed_by(exchange),
    }


def _test_channel(exchange: str) -> dict[str, Any]:
    return {
        "title": "RabbitMQ topic exchange, tests",
        "description": "No merchant is called `_test`: whoever binds merchants by name hears of no test.",
        "address": "_test.{endpoint}.test",
        "parameters": {"endpoint": {"description": "The endpoint's name in the operator's settings."}},
        "messages": {
            _TEST_MESSAGE: {
                **_test_message(),
                "bindings": {"amqp": {"messageType": TEST_TYPE, "bindingVersion": _BINDINGS}},
            }
        },
        "bindings": _routed_by(exchange),
    }


def _routed_by(exchange: str) -> dict[str, Any]:
    return {
        "amqp": {
            "is": "routingKey",
            "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False},
            "bindingVersion": _BINDINGS,
        }
    }


def _test_message() -> dict[str, Any]:
    return {
        "name": TEST_TYPE,
        "title": TEST_TYPE,
        "summary": "An operator tests the endpoint. It tells of no payment: answer it as taken, and do nothing.",
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{_TEST}"},
    }


def _message(type_: EventType) -> dict[str, Any]:
    return {
        "name": type_.value,
        "title": type_.value,
        "summary": _SUMMARIES[type_],
        "contentType": CONTENT_TYPE,
        "payload": {
            "allOf": [
                {"$ref": f"#/components/schemas/{_EVENT}"},
                {"type": "object", "properties": {"type": {"const": type_.value}}},
            ]
        },
    }


def _embedded_event() -> dict[str, Any]:
    # AsyncAPI's own dialect is a superset of draft-07, and the event's schema uses nothing that the two drafts read
    # differently. It gives up its $id, so that every reference is into this one document.
    return {name: value for name, value in describe_event().items() if name not in ("$schema", "$id")}


def _webhook_headers() -> dict[str, Any]:
    headers = {
        "webhook-id": "The event's `id`.",
        "webhook-timestamp": "When this try was sent, in Unix seconds. Refuse what is over five minutes off.",
        "webhook-signature": "One or more `v1,<base64>` with blanks between them, one per secret: HMAC-SHA256 over "
        "`<webhook-id>.<webhook-timestamp>.<body>` with the bytes after `whsec_`. One that fits is enough.",
    }
    return {
        "type": "object",
        "required": list(headers),
        "properties": {
            **{name: {"type": "string", "description": text} for name, text in headers.items()},
            **_TRACE_HEADER,
        },
    }


def _name(type_: EventType) -> str:
    """The message's key: `paymentSucceeded` for `payment.succeeded`."""
    first, _, second = type_.value.partition(".")
    return first + second.capitalize()
