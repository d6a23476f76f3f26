"""Problems: every answer that is no success, as `application/problem+json` (RFC 9457)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marshmallow import Schema, fields

from service.config.settings import ApiScope
from service.gateway.errors import MessageInvalid

#: The content type of every problem.
CONTENT_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:payment-callbacks:problem:"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request."""

    #: Path of the field, dotted (`orders.0.amount`); "" for the body as a whole.
    where: str
    #: What is wrong and what is allowed; quotes no values.
    what: str


@dataclass(kw_only=True, eq=False)
class Problem(Exception):
    """A request that was not carried out, or of which nobody knows."""

    status: int
    #: A constant word for programs.
    kind: str
    #: The same for all problems of this kind.
    title: str
    #: What happened this time and what can be done; quotes no personal data.
    detail: str = ""
    errors: Sequence[Fault] = ()
    #: Further members of `ProblemSchema`, by name.
    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """RFC 9457's `type`."""
        return _TYPE_PREFIX + self.kind

    def to_json(self) -> dict[str, Any]:
        """The answer's body."""
        said = {name: getattr(self, name) for name in ("type", "title", "status", "detail", "errors")}
        body: dict[str, Any] = PROBLEM.dump({**said, **self.members})
        return body


class _FaultSchema(Schema):
    where = fields.String(required=True, metadata={"description": "Path of the field, dotted; empty for the body."})
    what = fields.String(required=True, metadata={"description": "What is wrong, and what is allowed."})


class _DifferenceSchema(Schema):
    position = fields.Integer(required=True, metadata={"description": "The order's place in the request, from 0."})
    merchant = fields.String(required=True)
    biz_order_no = fields.String(required=True)
    fields_ = fields.List(
        fields.String(), required=True, data_key="fields", metadata={"description": "What differs, by name."}
    )


class ProblemSchema(Schema):
    """What went wrong, where, and what to do about it."""

    type = fields.String(required=True, metadata={"description": "Tells kinds of problems apart, for programs."})
    title = fields.String(required=True)
    status = fields.Integer(required=True, metadata={"description": "The HTTP status, once more."})
    detail = fields.String(required=True)
    errors = fields.List(fields.Nested(_FaultSchema), required=True)
    outcome = fields.String(
        metadata={
            "enum": ["not-done", "unknown"],
            "description": "Whether what was asked of the gateway was surely not done. Absent where nothing was.",
        }
    )
    scope = fields.String(
        metadata={"enum": list(ApiScope), "description": "What the token would have to allow. Absent elsewhere."}
    )
    request_id = fields.String(metadata={"description": "To be named to the gateway's people."})
    differing = fields.List(
        fields.Nested(_DifferenceSchema), metadata={"description": "Orders that were announced before otherwise."}
    )


#: Writes problems.
PROBLEM = ProblemSchema()


def invalid(faults: Iterable[Fault]) -> Problem:
    """The request can be read and says what cannot be."""
    return Problem(
        status=422,
        kind="invalid",
        title="The request is not valid; nothing was done.",
        detail="Mend what `errors` names, and send it again.",
        errors=tuple(faults),
    )


def invalid_message(error: MessageInvalid, *, below: str = "") -> Problem:
    """The same for what the gateway's document does not allow; `below` is where the message lies in the body."""
    return invalid(Fault(f"{below}{problem.field}", problem.text) for problem in error.problems)


def scope_missing(scope: ApiScope) -> Problem:
    """The caller's token does not allow it."""
    return Problem(
        status=403,
        kind="scope-missing",
        title="The token does not allow this; nothing was done.",
        detail=f"It needs the scope `{scope.value}`, under [[api.tokens]] in the settings of this service.",
        members={"scope": scope.value},
    )


def unknown_merchant(merchant: str) -> Problem:
    """No such merchant in the settings."""
    return Problem(
        status=404,
        kind="unknown-merchant",
        title="No merchant of this name is configured.",
        detail=f"There is no [merchants.{merchant}] in the settings of this service.",
    )


def unknown_order() -> Problem:
    """Nobody ever spoke of the order."""
    return Problem(
        status=404,
        kind="unknown-order",
        title="The order is not known.",
        detail="It was neither announced nor spoken of by any callback. Compare its number, and percent-encode it.",
    )
