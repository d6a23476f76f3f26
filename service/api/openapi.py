"""The OpenAPI 3.1 document, made from the routes and their schemas."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema

from service.api import problems
from service.api.fields import order_number
from service.api.routes import Route

_PATH_PARAMETER = re.compile(r"{(\w+)}")
_PARAMETERS = {
    "merchant": {"type": "string", "description": "The merchant's slug.", "example": "acme"},
    "biz_order_no": {
        "type": "string",
        "description": f"{order_number().metadata['description']} Percent-encoded, every slash and dot of it too.",
    },
}
_ANY_PROBLEMS = {
    400: "The body is no usable JSON.",
    401: "No token, or none of ours.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    422: "The request is not valid; nothing was done. `errors` names every field.",
    503: "The ledger cannot be used now, or the gateway is too slow to be called any more often, or its settings are "
    "wrong. Sending the same request again is safe.",
}
_ONLY_WITH_BODY = {400, 413, 415}


def describe_api(routes: Sequence[Route]) -> dict[str, Any]:
    """The document, as JSON values."""
    plugin = MarshmallowPlugin(schema_name_resolver=_name)
    spec = APISpec(
        title="payment-callbacks, internal API",
        version=version("payment-callbacks"),
        openapi_version="3.1.0",
        info={
            "description": "Announce orders, send withholds, and see what became of them. Every answer that is no "
            f"success is {problems.CONTENT_TYPE} (RFC 9457). Times are RFC 3339 with a zone, amounts exact strings. "
            "Each operation names the one scope that a token must have for it."
        },
        security=[{"token": []}],
        plugins=[plugin],
    )
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    spec.components.schema("Problem", schema=problems.PROBLEM)
    for route in routes:
        spec.path(path=route.path, operations={route.method.lower(): _operation(route, plugin.converter)})
    document: dict[str, Any] = spec.to_dict()
    return document


def _operation(route: Route, converter: OpenAPIConverter | None) -> Mapping[str, Any]:
    assert converter is not None  # noqa: S101 - APISpec has initialised its plugin
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        # OpenAPI 3.1: for a scheme without scopes of its own, the roles that are needed.
        "security": [{"token": [route.scope.value]}],
        "responses": {str(status): _answer(schema) for status, schema in route.answers.items()} | _problems(route),
    }
    if route.description:
        operation["description"] = route.description
    parameters: list[Any] = [_path_parameter(name) for name in _PATH_PARAMETER.findall(route.path)]
    if route.query is not None:
        parameters += converter.schema2parameters(route.query, location="query")
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": route.body}}}
    return operation


def _answer(schema: Schema) -> Mapping[str, Any]:
    return {"description": _first_line(schema), "content": {"application/json": {"schema": schema}}}


def _problems(route: Route) -> dict[str, Mapping[str, Any]]:
    takes_input = route.body is not None or route.query is not None
    usual = {
        status: text
        for status, text in _ANY_PROBLEMS.items()
        if (status not in _ONLY_WITH_BODY or route.body is not None) and (status != 422 or takes_input)
    }
    content = {problems.CONTENT_TYPE: {"schema": "Problem"}}
    return {
        str(status): {"description": text, "content": content}
        for status, text in sorted({**usual, 403: _scope_problem(route), **route.problems}.items())
    }


def _scope_problem(route: Route) -> str:
    return f"The token has not the scope `{route.scope.value}`; nothing was done."


def _path_parameter(name: str) -> Mapping[str, Any]:
    schema = dict(_PARAMETERS[name])
    return {"name": name, "in": "path", "required": True, "description": schema.pop("description"), "schema": schema}


def _name(schema: Any) -> str:
    kind = schema if isinstance(schema, type) else type(schema)
    return str(kind.__name__).strip("_").removesuffix("Schema")


def _first_line(schema: Schema) -> str:
    return (type(schema).__doc__ or "").partition("\n")[0]
