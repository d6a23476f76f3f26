"""Routes as values: the application serves them and the OpenAPI document describes them, from the same list."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from marshmallow import Schema

from service.config.settings import ApiScope


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a view answers, before its route's schema writes it."""

    status: int
    #: What the schema of that status dumps.
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of the API."""

    method: str
    #: As OpenAPI writes it: `/v1/orders/{merchant}`. A parameter's value arrives percent-decoded, slashes included.
    path: str
    #: OpenAPI's `operationId`.
    name: str
    #: What a caller's token must allow.
    scope: ApiScope
    summary: str
    description: str = ""
    #: Called with the path's parameters by name, `caller`, and `body` and `query` where there are schemas of them.
    view: Callable[..., Reply]
    body: Schema | None = None
    query: Schema | None = None
    #: The successes, by status.
    answers: Mapping[int, Schema]
    #: The problems that are its own, by status, in words; those that any route may answer are not repeated here.
    problems: Mapping[int, str] = field(default_factory=dict)

    def write(self, reply: Reply) -> Any:
        """The reply as JSON values."""
        return self.answers[reply.status].dump(reply.value)
