"""Reads what a caller sends: JSON that means one thing only, checked by a schema before anything is done with it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from flask import Request
from marshmallow import Schema, ValidationError

from service.api.problems import Fault, Problem, invalid

#: The longest request body, in bytes: 100 orders with everything in them take 60 KiB.
MAX_BODY_BYTES = 128 * 1024


def read_body(request: Request, schema: Schema) -> Any:
    """The request's JSON object as `schema` loads it. Raises Problem, which quotes no values."""
    if request.mimetype != "application/json":
        raise Problem(
            status=415,
            kind="not-json",
            title="The body is not said to be JSON.",
            detail="Send it with Content-Type: application/json.",
        )
    try:
        values = json.loads(request.get_data(cache=False), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        # The decoder's own words give the place; its line and column are no values.
        detail = str(error) if isinstance(error, json.JSONDecodeError | _Ambiguous) else "It is not JSON in UTF-8."
        raise Problem(status=400, kind="not-json", title="The body is no usable JSON.", detail=detail) from error
    return _load(schema, values)


def read_query(request: Request, schema: Schema) -> Any:
    """The request's query string as `schema` loads it. Raises Problem."""
    repeated = [Fault(name, "given more than once") for name in request.args if len(request.args.getlist(name)) > 1]
    if repeated:
        raise invalid(repeated)
    return _load(schema, request.args.to_dict())


class _Ambiguous(ValueError):
    """JSON that two readers may understand differently."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Ambiguous("A key is there twice.")
    return values


def _no_constant(_name: str) -> NoReturn:
    raise _Ambiguous("NaN and Infinity are no JSON.")


def _load(schema: Schema, values: Any) -> Any:
    try:
        return schema.load(values)
    except ValidationError as error:
        raise invalid(_list_faults(error.messages)) from error


def _list_faults(messages: Any, path: str = "") -> Iterator[Fault]:
    if isinstance(messages, Mapping):
        for name, nested in messages.items():
            yield from _list_faults(nested, path if name == "_schema" else f"{path}.{name}".lstrip("."))
        return
    for text in messages:
        yield Fault(path, str(text))
