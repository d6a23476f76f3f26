"""The blueprint of every resource: flask-smorest's, with strict request parsing, scopes, and problems as errors."""

import json
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NoReturn, TypeAlias

from flask import Request, Response, g
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser

from service.api.problems import CONTENT_TYPE, Problem, ProblemSchema, invalid
from service.config.settings import ApiScope
from service.gateway.errors import FieldProblem
from service.gateway.messages import list_problems
from service.runtime.logs import Logger
from service.runtime.traceparent import trace_id_of

_View: TypeAlias = Callable[..., Any]

_ANY_PROBLEM = {
    401: "The request has no valid token.",
    503: "The ledger is unavailable, or the merchant's gateway is too slow or has unusable settings. Sending the same "
    "request again is safe.",
}
_INVALID = {422: "The request is invalid; nothing was done. `errors` names every field."}
_BODY_UNREADABLE = {
    400: "The body is not valid JSON.",
    413: "The body is too large.",
    415: "The Content-Type is not application/json.",
}

_log = Logger(__name__)


class StrictParser(FlaskParser):
    """Reads requests that have exactly one meaning; all others are refused, and no value is quoted. Raises Problem."""

    def __init__(self) -> None:
        # Unknown fields are errors, in the query string too.
        super().__init__(unknown=None)

    def load_json(self, req: Request, schema: Schema) -> Any:  # noqa: ARG002 - webargs calls it
        """The JSON value of the body. Refuses duplicate keys, NaN and Infinity."""
        if req.mimetype != "application/json":
            raise Problem(
                status=415,
                kind="not-json",
                title="The Content-Type is not JSON.",
                detail="Send it with Content-Type: application/json.",
            )
        # Not `read_object` of `service.gateway.bodies`: it bounds a callback, and 100 orders have more values.
        try:
            return json.loads(req.get_data(cache=False), object_pairs_hook=_distinct, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            # The decoder's message names a place and quotes nothing.
            detail = str(error) if isinstance(error, json.JSONDecodeError | _Ambiguous) else "It is not JSON in UTF-8."
            raise Problem(status=400, kind="not-json", title="The body is not valid JSON.", detail=detail) from error

    def load_querystring(self, req: Request, schema: Schema) -> Any:  # noqa: ARG002 - webargs calls it
        """The query parameters. Refuses a parameter that is given more than once."""
        if repeated := [name for name in req.args if len(req.args.getlist(name)) > 1]:
            raise invalid(FieldProblem(name, "given more than once") for name in repeated)
        return req.args.to_dict()

    def handle_error(self, error: ValidationError, req: Request, *_: Any, **__: Any) -> NoReturn:  # noqa: ARG002
        """Raise what a schema found as a problem."""
        # webargs has put the messages below the location: {"json": ...}.
        (messages,) = error.messages_dict.values()
        raise invalid(list_problems(messages)) from error


class ApiBlueprint(Blueprint):  # type: ignore[misc]  # flask-smorest has no type hints
    """The operations of one resource.

    `operation` goes above `arguments`, so that the caller's scopes are checked before anything is read.
    """

    ARGUMENTS_PARSER = StrictParser()

    def operation(
        self, name: str, *, scope: ApiScope, problems: Mapping[int, str] | None = None
    ) -> Callable[[_View], _View]:
        """Require `scope` of the caller, and document the operation under `name` (OpenAPI's `operationId`).

        `problems` are the operation's own error responses, described by status.
        """
        missing = f"The token does not have the scope `{scope.value}`; nothing was done."
        document: Callable[[_View], _View] = self.doc(
            operationId=name,
            # OpenAPI 3.1: the roles that are required, for a scheme without scopes of its own.
            security=[{"token": [scope.value]}],
            responses=_describe({**_ANY_PROBLEM, 403: missing, **(problems or {})}),
        )

        def decorate(view: _View) -> _View:
            @wraps(view)
            def authorized(*args: Any, **kwargs: Any) -> Response:
                started = time.monotonic()
                g.operation = name
                g.caller.require(scope)
                response: Response = view(*args, **kwargs)
                _log.info(
                    "api_answered",
                    operation=name,
                    caller=g.caller.name,
                    status=response.status_code,
                    seconds=round(time.monotonic() - started, 3),
                    trace_id=trace_id_of(g.span.traceparent),
                )
                return response

            return document(authorized)

        return decorate

    def arguments(self, schema: type[Schema], *, location: str = "json") -> Callable[[_View], _View]:
        """Pass the view what `schema` loads, and document the problems of an unusable request."""
        problems = _INVALID if location == "query" else _INVALID | _BODY_UNREADABLE
        parse = super().arguments(schema, location=location)
        return lambda view: self.doc(responses=_describe(problems))(parse(view))

    def response(self, status_code: int, schema: type[Schema]) -> Callable[[_View], _View]:
        """Write what the view returns with `schema`, whose docstring describes the response."""
        description = (schema.__doc__ or "").partition("\n")[0]
        write: Callable[[_View], _View] = super().response(status_code, schema, description=description)
        return write


class _Ambiguous(ValueError):
    """JSON that two readers may understand differently."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Ambiguous("A key occurs twice in one object.")
    return values


def _refuse_constant(_name: str) -> NoReturn:
    raise _Ambiguous("NaN and Infinity are not JSON.")


def _describe(problems: Mapping[int, str]) -> dict[int, Any]:
    content = {CONTENT_TYPE: {"schema": ProblemSchema}}
    return {status: {"description": text, "content": content} for status, text in problems.items()}
