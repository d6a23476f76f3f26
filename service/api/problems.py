"""Problems: every error response, as `application/problem+json` (RFC 9457)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marshmallow import Schema, fields

from service.charging.bulkhead import BulkheadFull, GatewayUnusable, NoGateway
from service.config.settings import ApiScope
from service.gateway.errors import ArgumentsInvalid, FieldProblem, MessageInvalid, NotSent, OutcomeUnknown, Refused
from service.ledger.errors import (
    AnnouncementDiffers,
    AttentionItemUnknown,
    ClaimUnstorable,
    CursorExpired,
    DeadLetterUnknown,
    FeedBehind,
    IdentityMissing,
    LedgerUnavailable,
    OrderChanged,
    OrderUnknown,
    ProposalClosed,
    ProposalOpen,
    ProposalUnknown,
    ReplayCountDiffers,
    SamePerson,
    UnknownMerchant,
)
from service.ledger.withholds import StatusKnown

#: The content type of every problem.
CONTENT_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:payment-callbacks:problem:"


@dataclass(kw_only=True, eq=False)
class Problem(Exception):
    """A request that was not carried out, or whose outcome is unknown."""

    status: int
    #: A constant identifier, for programs.
    kind: str
    #: The same for all problems of this kind.
    title: str
    #: What happened this time and what can be done; quotes no personal data.
    detail: str = ""
    #: The fields of the request that are wrong.
    errors: Sequence[FieldProblem] = ()
    #: Further members of `ProblemSchema`, by name.
    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """RFC 9457's `type`."""
        return _TYPE_PREFIX + self.kind

    def to_json(self) -> dict[str, Any]:
        """The response's body."""
        common = {name: getattr(self, name) for name in ("type", "title", "status", "detail", "errors")}
        body: dict[str, Any] = _PROBLEM.dump({**common, **self.members})
        return body


class FieldErrorSchema(Schema):
    """One thing that is wrong with a request."""

    where = fields.String(
        required=True, attribute="field", metadata={"description": "Path of the field, dotted; empty for the body."}
    )
    what = fields.String(
        required=True, attribute="text", metadata={"description": "What is wrong, and what is allowed."}
    )


class DifferingOrderSchema(Schema):
    """An order that was announced before with other values."""

    position = fields.Integer(required=True, metadata={"description": "The order's place in the request, from 0."})
    merchant = fields.String(required=True)
    biz_order_no = fields.String(required=True)
    fields_ = fields.List(
        fields.String(), required=True, data_key="fields", metadata={"description": "The names of what differs."}
    )


class ProblemSchema(Schema):
    """What went wrong, where, and what to do about it."""

    type = fields.String(required=True, metadata={"description": "Identifies the kind of problem, for programs."})
    title = fields.String(required=True)
    status = fields.Integer(required=True, metadata={"description": "The HTTP status, repeated."})
    detail = fields.String(required=True)
    errors = fields.List(fields.Nested(FieldErrorSchema), required=True)
    outcome = fields.String(
        metadata={
            "enum": ["not-done", "unknown"],
            "description": "Whether the gateway surely did nothing, or may have. Absent where it was not called.",
        }
    )
    scope = fields.String(
        metadata={"enum": list(ApiScope), "description": "The scope that the token needs. Absent elsewhere."}
    )
    request_id = fields.String(metadata={"description": "Identifies the request to the gateway's support."})
    differing = fields.List(
        fields.Nested(DifferingOrderSchema),
        metadata={"description": "Orders that were announced before with other values."},
    )


_PROBLEM = ProblemSchema()


def invalid(errors: Iterable[FieldProblem]) -> Problem:
    """The request can be read, but its content is not allowed."""
    return Problem(
        status=422,
        kind="invalid",
        title="The request is not valid; nothing was done.",
        detail="Correct the fields in `errors`, and send it again.",
        errors=tuple(errors),
    )


def problem_of(error: Exception) -> Problem:
    """The problem that a caller receives for `error`. Of an unexpected error it names nothing but the type."""
    # Subclasses come before their base class: three of these errors are NotSent.
    match error:
        case Problem():
            return error
        case UnknownMerchant():
            return Problem(
                status=404,
                kind="unknown-merchant",
                title="No merchant of this name is configured.",
                detail=f"There is no [merchants.{error}] in the settings of this service.",
            )
        case OrderUnknown():
            return Problem(
                status=404,
                kind="unknown-order",
                title="The order is unknown.",
                detail="It was never announced, and no callback named it. Check its number, and percent-encode it.",
            )
        case DeadLetterUnknown():
            return Problem(
                status=404,
                kind="no-dead-letter",
                title="At least one of the ids names no dead letter; nothing was done.",
                detail="It was settled meanwhile, or the id has a typing error. List the dead letters again.",
            )
        case AttentionItemUnknown():
            return Problem(
                status=404,
                kind="unknown-item",
                title="Nothing of this id waits for a person.",
                detail="It was settled meanwhile, or the id has a typing error. List the items again.",
            )
        case OrderChanged():
            return Problem(
                status=409,
                kind="order-changed",
                title="The order has changed since you looked at it; nothing was done.",
                detail=f"Its `sequence` is {error.sequence} now. Look at it again, and send your decision with that.",
            )
        case ProposalOpen():
            return Problem(
                status=409,
                kind="proposal-open",
                title="A proposal about the order waits for a second person; nothing was done.",
                detail=f"Confirm proposal {error.proposal}, or withdraw it and send your decision again.",
            )
        case ProposalUnknown():
            return Problem(
                status=404,
                kind="unknown-proposal",
                title="The order has no proposal with this id.",
                detail="Look at the order again: `proposals` lists them.",
            )
        case ProposalClosed():
            return Problem(
                status=409,
                kind="proposal-closed",
                title="The proposal is not open any more; nothing was done.",
                detail=f"Proposal {error.proposal} is {error.state}. Look at the order again.",
            )
        case SamePerson():
            return Problem(
                status=409,
                kind="same-person",
                title="Whoever has made a proposal cannot confirm it; nothing was done.",
                detail="Another person has to, with a token that names another `person`.",
            )
        case IdentityMissing():
            return Problem(
                status=403,
                kind="person-missing",
                title="The token does not say which person uses it; nothing was done.",
                detail="A decision of two people needs a token with a `person`, under [[api.tokens]] in the settings "
                "of this service.",
            )
        case AnnouncementDiffers():
            return Problem(
                status=409,
                kind="announced-differently",
                title="Announced before with other values.",
                detail=f"These differ: {', '.join(error.fields)}. Nothing was sent. "
                "For another payment use a new biz_order_no.",
            )
        case StatusKnown():
            return Problem(
                status=409,
                kind="already-has-status",
                title="The order already has a status, though it was not sent from here.",
                detail="Sending it might charge it twice, so nothing was sent. For another payment use a new "
                "biz_order_no.",
            )
        case MessageInvalid() | ArgumentsInvalid():
            return invalid(error.problems)
        case ClaimUnstorable():
            return invalid([FieldProblem("", str(error))])
        case ReplayCountDiffers():
            return Problem(
                status=409,
                kind="replay-count-differs",
                title="The window has another number of events; nothing is delivered again.",
                detail=f"It has {error.found} now. Look at it again, and send that number as `expected`.",
            )
        case CursorExpired():
            return Problem(
                status=410,
                kind="cursor-expired",
                title="The ledger does not have the event that the cursor names.",
                detail="It is older than what is kept, or the database was restored. Start from the list of orders: "
                "read `/v1/events?after=latest` and keep its `next`; read every page of `/v1/orders` and take over the "
                "status and sequence of each order; then read the events after that `next`.",
            )
        case FeedBehind():
            return Problem(
                status=503,
                kind="feed-behind",
                title="The database was restored, and the events are not numbered anew yet.",
                detail="Run `payment-callbacks migrate` once. Then the same request works, or says where to start.",
            )
        case LedgerUnavailable():
            return Problem(
                status=503,
                kind="ledger-unavailable",
                title="The ledger is unavailable.",
                detail="It may or may not have been done. Sending the same request again is safe: a withhold is sent "
                "once.",
                members={"outcome": "unknown"},
            )
        case NoGateway():
            return Problem(
                status=409,
                kind="no-gateway",
                title="The merchant has no gateway.",
                detail=f"There is no [merchants.{error}.gateway] in the settings of this service, so nothing can be "
                "sent.",
            )
        case BulkheadFull():
            return Problem(
                status=503,
                kind="gateway-busy",
                title="Surely not done: the merchant's gateway is slow to answer.",
                detail=f"{error}. Send the same request again a little later.",
                members={"outcome": "not-done"},
            )
        case GatewayUnusable():
            return Problem(
                status=503,
                kind="gateway-unusable",
                title="Surely not done: the settings of the merchant's gateway cannot be used.",
                detail=f"{error}. Correct them and restart this service, then send the same request again.",
                members={"outcome": "not-done"},
            )
        case NotSent():
            return Problem(
                status=502,
                kind="not-sent",
                title="Surely not done: the gateway was not reached.",
                detail=f"{error}. The same request may be sent again.",
                members={"outcome": "not-done", "request_id": error.request_id},
            )
        case Refused():
            return Problem(
                status=502,
                kind="refused",
                title="Not done: the gateway refused.",
                detail=f"{error}.",
                members={"outcome": "not-done", "request_id": error.request_id},
            )
        case OutcomeUnknown():
            return Problem(
                status=504,
                kind="outcome-unknown",
                title="Unknown: the gateway gave no answer that settles whether it was done.",
                detail=f"{error}.",
                members={"outcome": "unknown", "request_id": error.request_id},
            )
        case _:
            return Problem(
                status=500,
                kind="unexpected",
                title="Something unexpected went wrong.",
                detail=f"See {type(error).__name__} in the log of this service. Sending the same request again is "
                "safe.",
            )
