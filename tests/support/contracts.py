"""The contracts that consumers are given, to hold events and documents to."""

import copy
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker

from service.contracts.shipped import ASYNCAPI, PAYMENT_EVENT, read_shipped

_ASYNCAPI_SCHEMA = Path(__file__).parents[1] / "vectors" / "asyncapi" / "asyncapi-3.0.0.schema.json"
_FORMATS = FormatChecker(formats=[])
# RFC 3339, section 5.6; Python reads more than that.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return bool(_RFC_3339.fullmatch(value)) and datetime.fromisoformat(value).tzinfo is not None


def shipped_event_schema() -> Any:
    """The events' JSON Schema, as the package ships it."""
    return json.loads(read_shipped(PAYMENT_EVENT))


def shipped_asyncapi() -> Any:
    """The AsyncAPI document, as the package ships it."""
    return json.loads(read_shipped(ASYNCAPI))


def event_validator(*, closed: bool = False) -> Draft202012Validator:
    """Checks events as consumers may; `closed` refuses what the schema does not name, as nobody else should."""
    schema = shipped_event_schema()
    return Draft202012Validator(_closed(schema) if closed else schema, format_checker=_FORMATS)


def asyncapi_faults(document: Any) -> list[str]:
    """What is wrong with an AsyncAPI 3.0.0 document, by AsyncAPI's own JSON Schema."""
    validator = Draft7Validator(json.loads(_ASYNCAPI_SCHEMA.read_text()))
    return [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(document)]


def payload_validator(document: Any, channel: str, message: str) -> Draft7Validator:
    """Checks the payload of one message of a channel, with AsyncAPI's default dialect."""
    payload = document["channels"][channel]["messages"][message]["payload"]
    return Draft7Validator({**payload, "components": document["components"]}, format_checker=_FORMATS)


def _closed(schema: Any) -> Any:
    closed = copy.deepcopy(schema)
    for one in (closed, closed["properties"]["data"]):
        assert one["additionalProperties"] is True, "consumers are told to ignore what is new"
        one["additionalProperties"] = False
    return closed
