"""The console's words for what the ledger knows, in the reader's language."""

import re
from collections.abc import Mapping

from flask_babel import LazyString, gettext, lazy_gettext

from service.domain.claims import ClaimSource, IdentityField, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import STATUS, Verdict
from service.gateway.bodies import BodyKind
from service.gateway.errors import MessageInvalid, Refusal
from service.ledger.attention import KNOWN_AND_MISSING, REFUSED_AND_CLAIMED, AttentionKind
from service.ledger.audit import Action
from service.ledger.dead_letters import DeadLetterAction
from service.ledger.endpoint_tests import EndpointTestState
from service.ledger.endpoints import DeliveryState
from service.ledger.errors import (
    ClaimUnstorable,
    IdentityMissing,
    LedgerError,
    OrderChanged,
    OrderUnknown,
    ProposalClosed,
    ProposalOpen,
    ProposalUnknown,
    SamePerson,
    UnknownMerchant,
)
from service.ledger.inquiries import InquiryReason
from service.ledger.inquiry_questions import QuestionOutcome
from service.ledger.proposals import ProposalState
from service.ledger.replays import ReplayState
from service.ledger.withholds import WithholdOutcome

Words = Mapping[str, LazyString]

STATUSES: Words = {
    OrderStatus.INITIAL: lazy_gettext("initial"),
    OrderStatus.PROCESSING: lazy_gettext("processing"),
    OrderStatus.SUCCEEDED: lazy_gettext("succeeded"),
    OrderStatus.FAILED: lazy_gettext("failed"),
}

TRUSTS: Mapping[Trust, LazyString] = {
    Trust.CHECKSUM: lazy_gettext("checksum: anyone can make such a callback"),
    Trust.RULE: lazy_gettext("rule: the service itself"),
    Trust.CAPABILITY: lazy_gettext("capability: it came to this order's own notify_url"),
    Trust.QUERIED: lazy_gettext("query: the gateway's answer"),
    Trust.OPERATOR: lazy_gettext("operator: a named person"),
}

#: The same in a few words, for lists: what the status rests on.
TRUSTS_IN_SHORT: Mapping[Trust, LazyString] = {
    Trust.CHECKSUM: lazy_gettext("a checksum only"),
    Trust.RULE: lazy_gettext("a rule of this service"),
    Trust.CAPABILITY: lazy_gettext("a callback to its own address"),
    Trust.QUERIED: lazy_gettext("the gateway's answer"),
    Trust.OPERATOR: lazy_gettext("a person"),
}

SOURCES: Words = {
    ClaimSource.CALLBACK: lazy_gettext("Callback"),
    ClaimSource.QUERY: lazy_gettext("Answer of the gateway"),
    ClaimSource.RULE: lazy_gettext("Rule"),
    ClaimSource.OPERATOR: lazy_gettext("Decision of a person"),
}

#: What a claim did, and why.
VERDICTS: Words = {
    Verdict.APPLIED: lazy_gettext("Applied: the order took this status."),
    Verdict.CORRECTED: lazy_gettext(
        "Corrected the order: it is a later query, a person's decision or of a higher trust, so it replaced what was "
        "believed, or ended a conflict."
    ),
    Verdict.DUPLICATE: lazy_gettext("Duplicate: it states what is known already."),
    Verdict.STALE: lazy_gettext("Stale: the order has a later status, or one of a higher trust, so nothing changed."),
    Verdict.CONFLICT: lazy_gettext(
        "Conflict: it contradicts the order or the announcement, and neither outranks the other. A later query or a "
        "person settles it."
    ),
    Verdict.UNTRUSTED: lazy_gettext(
        "Not believed: its trust is below what the merchant requires, so it was recorded and changed nothing."
    ),
    Verdict.QUARANTINED: lazy_gettext(
        "Quarantined: its status, order type or pay type is unknown, so it changed nothing. A person has to look."
    ),
}

VERDICTS_IN_SHORT: Words = {
    Verdict.APPLIED: lazy_gettext("applied"),
    Verdict.CORRECTED: lazy_gettext("corrected"),
    Verdict.DUPLICATE: lazy_gettext("duplicate"),
    Verdict.STALE: lazy_gettext("stale"),
    Verdict.CONFLICT: lazy_gettext("conflict"),
    Verdict.UNTRUSTED: lazy_gettext("not believed"),
    Verdict.QUARANTINED: lazy_gettext("quarantined"),
}

EVENTS: Words = {
    EventType.PROCESSING: lazy_gettext("Event: processing"),
    EventType.SUCCEEDED: lazy_gettext("Event: succeeded"),
    EventType.FAILED: lazy_gettext("Event: failed"),
    EventType.CORRECTED: lazy_gettext("Event: corrected"),
    EventType.CONFLICTED: lazy_gettext("Event: conflicted"),
}

REASONS: Mapping[InquiryReason, LazyString] = {
    InquiryReason.UNCONFIRMED: lazy_gettext("a claim is not confirmed"),
    InquiryReason.OVERDUE: lazy_gettext("no final status in time"),
    InquiryReason.CONFLICT: lazy_gettext("claims contradict each other"),
    InquiryReason.UNREADABLE: lazy_gettext("a claim has unknown words"),
    InquiryReason.DOUBTED: lazy_gettext("a claim makes the status doubtful"),
    InquiryReason.UNKNOWN_OUTCOME: lazy_gettext("the outcome of the withhold is unknown"),
    InquiryReason.OPERATOR: lazy_gettext("a person asked"),
}

QUESTIONS: Words = {
    QuestionOutcome.ANSWERED: lazy_gettext("answered"),
    QuestionOutcome.NOT_FOUND: lazy_gettext("order not found, which is no failure"),
    QuestionOutcome.OTHER_SPELLING: lazy_gettext("the gateway has an order whose number is spelled otherwise"),
    QuestionOutcome.NO_ANSWER: lazy_gettext("no answer"),
}

QUESTIONS_IN_SHORT: Words = {
    QuestionOutcome.ANSWERED: lazy_gettext("answered"),
    QuestionOutcome.NOT_FOUND: lazy_gettext("not found"),
    QuestionOutcome.OTHER_SPELLING: lazy_gettext("spelled otherwise"),
    QuestionOutcome.NO_ANSWER: lazy_gettext("no answer"),
}

WITHHOLDS: Words = {
    WithholdOutcome.SENDING: lazy_gettext("being sent"),
    WithholdOutcome.ACCEPTED: lazy_gettext("accepted by the gateway, which does not mean that it is paid"),
    WithholdOutcome.NOT_DONE: lazy_gettext("certainly not done; it may be sent again"),
    WithholdOutcome.UNKNOWN: lazy_gettext("unknown: the gateway may have taken it"),
}

#: Why something waits for a person.
CAUSES: Words = {
    AttentionKind.PARKED_INQUIRY: lazy_gettext("The gateway was asked up to the time limit and named no final status."),
    AttentionKind.CONFLICT: lazy_gettext("Trusted claims about the order contradict each other or its announcement."),
    AttentionKind.PROPOSAL: lazy_gettext(
        "Somebody has proposed how to resolve the order. Another person has to confirm it."
    ),
    AttentionKind.DISPUTED_FIELD: lazy_gettext(
        "Trusted claims about many orders contradict each other or the announcement."
    ),
    AttentionKind.QUARANTINED_CLAIM: lazy_gettext(
        "A trusted claim has an unknown status or type, and changes nothing."
    ),
    AttentionKind.UNKNOWN_WITHHOLD: lazy_gettext(
        "The withhold was sent, and it is unknown whether the gateway took it."
    ),
    AttentionKind.CONTRADICTED_WITHHOLD: lazy_gettext("The gateway contradicts itself about whether it has the order."),
    AttentionKind.PARKED_DELIVERY: lazy_gettext(
        "The endpoint failed to take an event too often. It is not tried again."
    ),
    AttentionKind.PARKED_DELIVERIES: lazy_gettext(
        "The endpoint failed to take many events too often. They are not tried again."
    ),
    AttentionKind.DEAD_LETTER: lazy_gettext(
        "A message could not be recorded. What it says about a payment is not in the ledger."
    ),
    AttentionKind.PAUSED_ENDPOINT: lazy_gettext("The endpoint has been paused for hours. Its events wait."),
    AttentionKind.WAITING_CALLBACKS: lazy_gettext("Acknowledged callbacks wait and are not in the ledger yet."),
    AttentionKind.SILENT_REPORTER: lazy_gettext("It is unknown how many acknowledged callbacks wait there."),
}

#: The same in short, to choose from.
KINDS: Words = {
    AttentionKind.PARKED_INQUIRY: lazy_gettext("asked in vain"),
    AttentionKind.CONFLICT: lazy_gettext("conflict"),
    AttentionKind.PROPOSAL: lazy_gettext("waits for a second person"),
    AttentionKind.DISPUTED_FIELD: lazy_gettext("many conflicts of one field"),
    AttentionKind.QUARANTINED_CLAIM: lazy_gettext("quarantined claim"),
    AttentionKind.UNKNOWN_WITHHOLD: lazy_gettext("withhold of unknown outcome"),
    AttentionKind.CONTRADICTED_WITHHOLD: lazy_gettext("contradicted withhold"),
    AttentionKind.PARKED_DELIVERY: lazy_gettext("event that was given up"),
    AttentionKind.PARKED_DELIVERIES: lazy_gettext("many events that were given up"),
    AttentionKind.DEAD_LETTER: lazy_gettext("dead letter"),
    AttentionKind.PAUSED_ENDPOINT: lazy_gettext("paused endpoint"),
    AttentionKind.WAITING_CALLBACKS: lazy_gettext("waiting callbacks"),
    AttentionKind.SILENT_REPORTER: lazy_gettext("no report of waiting callbacks"),
}

#: What a person does next about it, where that is not to look at the order.
NEXT_STEPS: Words = {
    AttentionKind.PROPOSAL: lazy_gettext("Confirm or withdraw"),
    AttentionKind.DISPUTED_FIELD: lazy_gettext("Look at the orders"),
    AttentionKind.PARKED_DELIVERIES: lazy_gettext("Repair the endpoint, and deliver them again"),
    AttentionKind.PAUSED_ENDPOINT: lazy_gettext("Resume the endpoint"),
    AttentionKind.DEAD_LETTER: lazy_gettext("Replay or drop it"),
    AttentionKind.WAITING_CALLBACKS: lazy_gettext("See why they wait: the broker, or no ledger process runs"),
    AttentionKind.SILENT_REPORTER: lazy_gettext("See whether it runs, and reaches the broker"),
}

#: How the gateway contradicts itself about a withhold.
CONTRADICTIONS: Words = {
    REFUSED_AND_CLAIMED: lazy_gettext("The gateway refused the withhold with -1. A claim says otherwise."),
    KNOWN_AND_MISSING: lazy_gettext("The gateway had the order. It answers now that it does not exist."),
}

#: What two claims contradict each other in.
FIELDS: Words = {
    STATUS: lazy_gettext("status"),
    IdentityField.PAY_ORDER_NO: lazy_gettext("the gateway's number"),
    IdentityField.PAY_TYPE: lazy_gettext("pay type"),
    IdentityField.ORDER_TYPE: lazy_gettext("order type"),
    IdentityField.AMOUNT: lazy_gettext("amount"),
}

#: Why a callback was refused. The logs name the reason with hyphens.
REFUSALS: Words = {
    Refusal.COMPRESSED: lazy_gettext("compressed"),
    Refusal.BAD_UTF8: lazy_gettext("bad UTF-8"),
    Refusal.NOT_JSON: lazy_gettext("not JSON"),
    Refusal.NOT_AN_OBJECT: lazy_gettext("not a JSON object"),
    Refusal.NOT_A_FORM: lazy_gettext("not a form"),
    Refusal.NOT_MULTIPART: lazy_gettext("not a multipart form"),
    Refusal.FILE_IN_FORM: lazy_gettext("a file in the form"),
    Refusal.WRAPPED_TWICE: lazy_gettext("wrapped twice"),
    Refusal.DUPLICATE_KEY: lazy_gettext("duplicate key"),
    Refusal.NAN: lazy_gettext("not a number (NaN)"),
    Refusal.HUGE_NUMBER: lazy_gettext("huge number"),
    Refusal.TOO_DEEP: lazy_gettext("nested too deep"),
    Refusal.TOO_MANY_VALUES: lazy_gettext("too many values"),
    Refusal.MISSING_SIGN: lazy_gettext("missing sign"),
    Refusal.MALFORMED_SIGN: lazy_gettext("malformed sign"),
    Refusal.DEGENERATE_SIGN: lazy_gettext("sign of an empty text"),
    Refusal.SIGN_MISMATCH: lazy_gettext("the sign does not fit"),
    Refusal.AMBIGUOUS: lazy_gettext("ambiguous"),
    Refusal.MISSING_FIELD: lazy_gettext("missing field"),
    Refusal.INVALID_FIELD: lazy_gettext("invalid field"),
    Refusal.MISSING_TOKEN: lazy_gettext("missing token"),
    Refusal.MALFORMED_TOKEN: lazy_gettext("malformed token"),
    Refusal.UNKNOWN_TOKEN_KEY: lazy_gettext("unknown token key"),
    Refusal.FORGED_TOKEN: lazy_gettext("forged token"),
    Refusal.TOKEN_OF_ANOTHER_ORDER: lazy_gettext("token of another order"),
}

DELIVERY_STATES: Words = {
    DeliveryState.OPEN: lazy_gettext("waiting"),
    DeliveryState.PARKED: lazy_gettext("given up"),
    DeliveryState.DELIVERED: lazy_gettext("delivered"),
}

REPLAY_STATES: Words = {
    ReplayState.RUNNING: lazy_gettext("running"),
    ReplayState.DONE: lazy_gettext("done"),
    ReplayState.STOPPED: lazy_gettext("stopped"),
}

TEST_STATES: Words = {
    EndpointTestState.REQUESTED: lazy_gettext("under way"),
    EndpointTestState.SENDING: lazy_gettext("under way"),
    EndpointTestState.ACCEPTED: lazy_gettext("accepted"),
    EndpointTestState.FAILED: lazy_gettext("not accepted"),
}

DEAD_LETTER_ACTIONS: Words = {
    DeadLetterAction.REPLAY: lazy_gettext("Replay"),
    DeadLetterAction.DROP: lazy_gettext("Drop"),
}

#: What people have changed.
ACTIONS: Words = {
    Action.REPLAY: lazy_gettext("delivered again"),
    Action.STOP_REPLAY: lazy_gettext("stopped a replay"),
    Action.PAUSE: lazy_gettext("paused"),
    Action.RESUME: lazy_gettext("resumed"),
    Action.ACKNOWLEDGE: lazy_gettext("hid what waits: somebody is on it"),
    Action.TEST_ENDPOINT: lazy_gettext("tested an endpoint"),
    Action.INQUIRE: lazy_gettext("had the gateway asked"),
    Action.REPLAY_DEAD_LETTERS: lazy_gettext("replayed a dead letter"),
    Action.DROP_DEAD_LETTERS: lazy_gettext("dropped a dead letter"),
    Action.RESOLVE: lazy_gettext("resolved an order"),
    Action.PROPOSE: lazy_gettext("proposed a resolution"),
    Action.CONFIRM: lazy_gettext("confirmed a proposal"),
    Action.WITHDRAW: lazy_gettext("withdrew a proposal"),
}

BODY_KINDS: Words = {
    BodyKind.JSON: lazy_gettext("a JSON object"),
    BodyKind.FORM: lazy_gettext("a form"),
    BodyKind.FORM_WITH_PLUS: lazy_gettext("a form whose + was not escaped and stands for itself"),
    BodyKind.MULTIPART: lazy_gettext("a multipart form"),
    BodyKind.JSON_IN_FORM: lazy_gettext("a form with the JSON as its only key or value"),
    BodyKind.JSON_IN_JSON: lazy_gettext("a JSON string that holds the JSON"),
    BodyKind.JSON_LIST: lazy_gettext("a JSON list with the one object in it"),
}

_PROPOSALS: Words = {
    ProposalState.OPEN: lazy_gettext("open"),
    ProposalState.CONFIRMED: lazy_gettext("confirmed"),
    ProposalState.WITHDRAWN: lazy_gettext("withdrawn"),
    ProposalState.LAPSED: lazy_gettext("lapsed, because the order has changed"),
}

_PROBLEMS: Words = {
    "amount": lazy_gettext("the amount has to be an exact number in the merchant's unit"),
    "pay_type": lazy_gettext("the pay type is none of this merchant's"),
}


_UNITS: Words = {"yuan": lazy_gettext("yuan"), "fen": lazy_gettext("fen")}

_METHODS: Words = {
    "API token": lazy_gettext("API token"),
    "proxy": lazy_gettext("proxy"),
    "OpenID": lazy_gettext("OpenID"),
    "command line": lazy_gettext("command line"),
}
_PERSON = re.compile(r"(.+?) \((console, )?(API token|proxy|OpenID|command line)(.*)\)", re.DOTALL)


def amount_in_words(amount: str | None, unit: str | None) -> str:
    """An amount and its unit; "" where it is unknown."""
    return f"{amount} {_UNITS[unit]}" if amount and unit else ""


def people_in_words(people: str) -> str:
    """Who did something and by what means, and who confirmed it, as records name them."""
    first, confirmed, second = people.partition(", confirmed by ")
    if confirmed:
        people = gettext(
            "%(first)s, confirmed by %(second)s", first=people_in_words(first), second=people_in_words(second)
        )
    elif found := _PERSON.fullmatch(people):
        name, console, method = found[1], found[2], f"{_METHODS[found[3]]}{found[4]}"
        people = (
            gettext("%(name)s (console, %(method)s)", name=name, method=method)
            if console
            else gettext("%(name)s (%(method)s)", name=name, method=method)
        )
    return people


def problem_in_words(error: LedgerError | MessageInvalid) -> str:
    """Why something was not done, and what helps. Errors that a person at the console cannot meet keep their text."""
    text: object = error
    match error:
        case ProposalOpen():
            text = gettext("another decision about the order is proposed already: confirm or withdraw it first")
        case ProposalClosed(proposal=number, state=state):
            words = _PROPOSALS[ProposalState(state)]
            text = gettext("proposal %(number)s is %(state)s: look at the order again", number=number, state=words)
        case ProposalUnknown():
            text = gettext("the order has no such proposal: look at the order again")
        case OrderChanged():
            text = gettext("the order has changed since you looked at it: look again")
        case SamePerson():
            text = gettext("you have proposed it yourself: another person has to confirm it")
        case IdentityMissing():
            text = gettext("nobody can tell who you are: your API token needs a person in the settings")
        case UnknownMerchant():
            text = gettext("the merchant %(name)s is not in the settings", name=error)
        case OrderUnknown():
            text = gettext("nothing is known about the order %(number)s", number=error)
        case ClaimUnstorable():
            text = gettext("no order can have such a number or name")
        case MessageInvalid(problems=problems):
            text = "; ".join(str(_PROBLEMS.get(problem.field) or problem) for problem in problems)
    return str(text)
