"""The console's words for what the ledger knows, in the reader's language."""

from collections.abc import Mapping

from flask_babel import LazyString, lazy_gettext

from service.domain.claims import ClaimSource, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import Verdict
from service.ledger.attention import AttentionKind
from service.ledger.inquiries import InquiryReason
from service.ledger.inquiry_questions import QuestionOutcome
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
    QuestionOutcome.NOT_FOUND: lazy_gettext("the gateway does not have the order, which does not mean that it failed"),
    QuestionOutcome.OTHER_SPELLING: lazy_gettext("the gateway has an order whose number is spelled otherwise"),
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
    AttentionKind.PARKED_INQUIRY: lazy_gettext("The gateway was asked until the horizon and named no final status."),
    AttentionKind.CONFLICT: lazy_gettext("Trusted claims about the order contradict each other or its announcement."),
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
    AttentionKind.DEAD_LETTER: lazy_gettext(
        "A message could not be recorded. What it says about a payment is not in the ledger."
    ),
    AttentionKind.PAUSED_ENDPOINT: lazy_gettext("The endpoint has been paused for hours. Its events wait."),
    AttentionKind.WAITING_CALLBACKS: lazy_gettext("Acknowledged callbacks wait and are not in the ledger yet."),
    AttentionKind.SILENT_REPORTER: lazy_gettext("It is unknown how many acknowledged callbacks wait there."),
}
