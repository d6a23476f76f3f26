"""What other rooms raise, as problems: what happened, whether anything was done, and what to do next."""

from functools import singledispatch

from service.api.problems import Fault, Problem, invalid, invalid_message, unknown_merchant
from service.charging.bulkhead import BulkheadFull, GatewayUnusable
from service.charging.withhold import NoGateway
from service.gateway.errors import ArgumentsInvalid, MessageInvalid, NotSent, OutcomeUnknown, Refused
from service.ledger.errors import ClaimUnstorable, LedgerUnavailable, UnknownMerchant


@singledispatch
def problem_of(error: Exception) -> Problem:
    """The problem that a caller is told of. Any error that is not expected here tells of nothing but itself."""
    return Problem(
        status=500,
        kind="unexpected",
        title="Something unexpected went wrong.",
        detail=f"The log of this service has it as {type(error).__name__}. Sending the same request again is safe.",
    )


@problem_of.register
def _(error: Problem) -> Problem:
    return error


@problem_of.register
def _(error: UnknownMerchant) -> Problem:
    return unknown_merchant(str(error))


@problem_of.register
def _(error: NoGateway) -> Problem:
    return Problem(
        status=409,
        kind="no-gateway",
        title="The merchant has no gateway.",
        detail=f"There is no [merchants.{error}.gateway] in the settings of this service, so nothing can be sent.",
    )


@problem_of.register
def _(error: BulkheadFull) -> Problem:
    return Problem(
        status=503,
        kind="gateway-busy",
        title="Surely not done: the merchant's gateway is slow to answer.",
        detail=f"{error}. Send the same request again a little later.",
        members={"outcome": "not-done"},
    )


@problem_of.register
def _(error: GatewayUnusable) -> Problem:
    return Problem(
        status=503,
        kind="gateway-unusable",
        title="Surely not done: the settings of the merchant's gateway cannot be used.",
        detail=f"{error}. Send the same request again when they are mended and this service was started again.",
        members={"outcome": "not-done"},
    )


@problem_of.register
def _(error: MessageInvalid) -> Problem:
    return invalid_message(error)


@problem_of.register
def _(error: ArgumentsInvalid) -> Problem:
    return invalid(Fault(problem.field, problem.text) for problem in error.problems)


@problem_of.register
def _(error: ClaimUnstorable) -> Problem:
    return invalid([Fault("", str(error))])


@problem_of.register
def _(error: NotSent) -> Problem:
    return Problem(
        status=502,
        kind="not-sent",
        title="Surely not done: the gateway was not reached.",
        detail=f"{error}. The same request may be sent again.",
        members={"outcome": "not-done", "request_id": error.request_id},
    )


@problem_of.register
def _(error: Refused) -> Problem:
    return Problem(
        status=502,
        kind="refused",
        title="Not done: the gateway refused.",
        detail=f"{error}.",
        members={"outcome": "not-done", "request_id": error.request_id},
    )


@problem_of.register
def _(error: OutcomeUnknown) -> Problem:
    return Problem(
        status=504,
        kind="outcome-unknown",
        title="Unknown: no answer of the gateway's settles whether it was done.",
        detail=f"{error}.",
        members={"outcome": "unknown", "request_id": error.request_id},
    )


@problem_of.register
def _(_error: LedgerUnavailable) -> Problem:
    return Problem(
        status=503,
        kind="ledger-unavailable",
        title="The ledger cannot be used now.",
        detail="It may or may not have been done. Send the same request again: that is safe, a withhold is sent once.",
        members={"outcome": "unknown"},
    )
