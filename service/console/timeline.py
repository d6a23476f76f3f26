"""An order's timeline: all that is recorded about it, in the order in which it happened, in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from flask_babel import gettext as _

from service.console.pages import local_time
from service.console.words import (
    ACTIONS,
    EVENTS,
    QUESTIONS,
    REASONS,
    SOURCES,
    STATUSES,
    TRUSTS,
    VERDICTS,
    WITHHOLDS,
    amount_in_words,
    people_in_words,
)
from service.domain.claims import ClaimSource, OrderStatus
from service.ledger.audit import AuditRecord
from service.ledger.claims import ClaimRecord
from service.ledger.delivery_log import LoggedKind
from service.ledger.endpoints import DeliveryState
from service.ledger.histories import DeliveryRecord, EventRecord, OrderHistory
from service.ledger.inquiries import InquiryReason, InquiryState
from service.ledger.inquiry_questions import AskedQuestion
from service.ledger.proposals import ProposalRecord, ProposalState


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One thing that happened, or that is expected (`at` is in the future)."""

    #: Aware; None where nobody knows.
    at: datetime | None
    #: Of which sort it is, for its mark: "announced", "withhold", "claim", "question", "event", "delivery", "proposal",
    #: "person".
    kind: str
    title: str
    text: str = ""
    #: Names and values. A value may hold personal data.
    details: tuple[tuple[str, str], ...] = ()
    #: Whether it did not do what it should have done.
    failed: bool = False


# So many entries that repeat themselves are folded.
_FOLDED_FROM = 8


def make_timeline(history: OrderHistory) -> Sequence[TimelineEntry]:
    """What has happened, the oldest first."""
    entries = [
        *_announced(history),
        *_withheld(history),
        *map(_claimed, history.claims),
        *map(_asked, history.questions),
        *(entry for event in history.events for entry in _delivered(event)),
        *(entry for proposal in history.proposals for entry in _proposed(proposal)),
        *map(_changed, history.changes),
    ]
    return sorted(entries, key=lambda entry: (entry.at is None, entry.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelinePart:
    """Entries that follow one another."""

    entries: Sequence[TimelineEntry]
    #: Whether they are many that say the same, so that a page shows them only on request.
    repeats: bool


def fold(entries: Sequence[TimelineEntry]) -> Sequence[TimelinePart]:
    """The entries in parts. Where one or two kinds of entry repeat themselves, the middle of them is one part."""
    parts: list[TimelinePart] = []
    for run in _runs(entries):
        if len(run) < _FOLDED_FROM:
            parts.append(TimelinePart(entries=run, repeats=False))
        else:
            for part, repeats in ((run[:2], False), (run[2:-2], True), (run[-2:], False)):
                parts.append(TimelinePart(entries=part, repeats=repeats))
    return parts


def _runs(entries: Sequence[TimelineEntry]) -> Iterator[Sequence[TimelineEntry]]:
    """Stretches of entries with at most two different titles, such as a question and its answer again and again."""
    run: list[TimelineEntry] = []
    titles: set[str] = set()
    for entry in entries:
        if entry.title not in titles and len(titles) == 2:
            yield run
            run, titles = [], set()
        run.append(entry)
        titles.add(entry.title)
    yield run


def explain_open(history: OrderHistory) -> str:
    """Why the order has no final status, in a sentence or two; "" where it has one."""
    order, inquiry = history.order, history.inquiry
    if order is not None and order.settled:
        return ""
    if any(proposal.state is ProposalState.OPEN for proposal in history.proposals):
        return str(_("A decision is proposed. A second person has to confirm or withdraw it."))
    if order is not None and order.state.conflicted:
        return str(
            _("Claims about this order contradict each other. A later answer of the gateway or a person settles it.")
        )
    answers = [claim for claim in history.claims if claim.source is ClaimSource.QUERY and claim.status]
    asked = len(history.questions)
    if inquiry is not None and inquiry.state is InquiryState.PARKED:
        text = _(
            "The gateway was asked %(count)s times, and named no final status. A person has to decide.", count=asked
        )
    elif answers:
        status, time = STATUSES[answers[-1].status or ""], local_time(answers[-1].recorded_at)
        text = _(
            "The gateway was asked %(count)s times. At %(time)s, it answered: %(status)s.",
            count=asked,
            time=time,
            status=status,
        )
    elif asked:
        text = _("The gateway was asked %(count)s times, and has not named a status.", count=asked)
    elif order is not None and order.state.status is not OrderStatus.INITIAL:
        text = _("The last callback that is trusted says: %(status)s.", status=STATUSES[order.state.status])
    elif history.claims:
        text = _("Callbacks have come, and none is trusted enough.")
    else:
        text = _("No callback has come yet.")
    return str(text)


def last_decision(history: OrderHistory) -> str:
    """Who decided last what the order's status is, and why; "" where nobody has."""
    decisions = [claim for claim in history.claims if claim.source is ClaimSource.OPERATOR]
    if not decisions:
        return ""
    last = decisions[-1]
    person, status = people_in_words(last.stated_by), STATUSES[last.status or ""]
    return str(_("%(person)s has decided: %(status)s (%(reason)s).", person=person, status=status, reason=last.reason))


def make_outlook(history: OrderHistory) -> Sequence[TimelineEntry]:
    """What would happen next if nothing else came, the soonest first; empty where nothing would."""
    entries = [*_next_question(history), *_next_proposal(history)]
    for event in history.events:
        entries += [
            TimelineEntry(
                at=delivery.due_at,
                kind="delivery",
                title=_("Event %(number)s is sent to %(endpoint)s", number=event.sequence, endpoint=delivery.endpoint),
                text=_("Tries so far: %(tries)s.", tries=delivery.attempts),
            )
            for delivery in event.deliveries
            if delivery.state == DeliveryState.OPEN
        ]
    return sorted(entries, key=lambda entry: (entry.at is None, entry.at))


def _announced(history: OrderHistory) -> Iterator[TimelineEntry]:
    order = history.order
    if order is not None and order.announced_at is not None:
        amount = amount_in_words(order.announced_amount, order.amount_unit) or _("not stated")
        yield TimelineEntry(
            at=order.announced_at,
            kind="announced",
            title=_("Announced"),
            text=_("Your own system said that it would charge this order."),
            details=((_("amount"), amount), (_("pay type"), order.state.announced_pay_type)),
        )


def _withheld(history: OrderHistory) -> Iterator[TimelineEntry]:
    if (sent := history.withhold) is None:
        return
    yield TimelineEntry(
        at=sent.sent_at,
        kind="withhold",
        title=_("Withhold sent to the gateway"),
        text=str(WITHHOLDS[sent.outcome]),
        details=(
            (_("by"), people_in_words(sent.sent_by)),
            (_("request id"), sent.request_id),
            (_("detail"), sent.detail),
        ),
    )
    if sent.ended_at is not None:
        yield TimelineEntry(at=sent.ended_at, kind="withhold", title=_("Ended by a rule for refused withholds"))


def _claimed(claim: ClaimRecord) -> TimelineEntry:
    status = STATUSES[claim.status] if claim.status else _("unknown status")
    details = [
        (_("trust"), str(TRUSTS[claim.trust])),
        (_("amount"), amount_in_words(claim.amount, claim.amount_unit)),
        (_("pay type"), "" if claim.quarantine else claim.pay_type),
        (_("the gateway's number"), claim.pay_order_no or ""),
        (_("paid at"), local_time(claim.paid_at)),
        (_("says"), claim.channel_response),
        (_("quarantine"), claim.quarantine or ""),
        (_("without"), ", ".join(claim.missing_fields)),
        (_("by"), people_in_words(claim.stated_by)),
        (_("reason"), claim.reason),
        *claim.unknown_fields.items(),
    ]
    return TimelineEntry(
        at=claim.recorded_at,
        kind="claim",
        title=_("%(source)s: %(status)s", source=SOURCES[claim.source], status=status),
        text=str(VERDICTS[claim.verdict]),
        details=tuple((name, value) for name, value in details if value),
    )


def _asked(question: AskedQuestion) -> TimelineEntry:
    outcome = QUESTIONS[question.outcome] if question.outcome else _("no outcome yet")
    seconds = "" if question.seconds is None else f"{question.seconds:.3f} s"
    details = ((_("because"), reasons_in_words(question.reasons)), (_("request id"), question.request_id))
    return TimelineEntry(
        at=question.asked_at,
        kind="question",
        title=_("The gateway was asked: %(outcome)s", outcome=outcome),
        details=tuple(pair for pair in (*details, (_("took"), seconds), (_("detail"), question.detail)) if pair[1]),
    )


def _delivered(event: EventRecord) -> Iterator[TimelineEntry]:
    yield TimelineEntry(
        at=event.created_at,
        kind="event",
        title=str(EVENTS[event.type]),
        text=_("Event %(number)s of this order.", number=event.sequence),
        details=(("id", event.id),),
    )
    for delivery in event.deliveries:
        yield from _tried(event, delivery)


def _tried(event: EventRecord, delivery: DeliveryRecord) -> Iterator[TimelineEntry]:
    numbers = {"number": event.sequence, "endpoint": delivery.endpoint}
    delivered = _("Event %(number)s was delivered to %(endpoint)s", **numbers)
    logged = {
        LoggedKind.FAILED: (_("Event %(number)s was not taken by %(endpoint)s", **numbers), _("error")),
        LoggedKind.DELIVERED: (delivered, ""),
        LoggedKind.REPLAYED: (_("Event %(number)s is delivered to %(endpoint)s again", **numbers), _("by")),
    }
    for step in delivery.log:
        title, name = logged[step.kind]
        details = ((name, step.detail),) if step.detail else ()
        failed = step.kind is LoggedKind.FAILED
        yield TimelineEntry(at=step.at, kind="delivery", title=title, details=details, failed=failed)
    ends = {
        DeliveryState.DELIVERED: delivered,
        DeliveryState.PARKED: _("Event %(number)s was given up for %(endpoint)s", **numbers),
    }
    if end := ends.get(DeliveryState(delivery.state)):
        yield TimelineEntry(
            at=delivery.settled_at,
            kind="delivery",
            title=end,
            details=((_("tries"), str(delivery.attempts)),),
            failed=delivery.state != DeliveryState.DELIVERED,
        )


def _proposed(proposal: ProposalRecord) -> Iterator[TimelineEntry]:
    details = (
        (_("by"), people_in_words(proposal.proposed_by)),
        (_("amount"), amount_in_words(proposal.amount, proposal.amount_unit)),
        (_("the gateway's number"), proposal.pay_order_no or ""),
        (_("reason"), proposal.reason),
    )
    yield TimelineEntry(
        at=proposal.proposed_at,
        kind="proposal",
        title=_("Proposed: %(status)s", status=STATUSES[proposal.status]),
        text=_("A second person has to confirm it."),
        details=tuple(pair for pair in details if pair[1]),
    )
    if proposal.decided_at is not None and proposal.state is not ProposalState.LAPSED:
        confirmed = proposal.state is ProposalState.CONFIRMED
        decided = ((_("by"), people_in_words(proposal.decided_by)), (_("reason"), proposal.decision_reason))
        yield TimelineEntry(
            at=proposal.decided_at,
            kind="proposal",
            title=_("The proposal was confirmed") if confirmed else _("The proposal was withdrawn"),
            details=tuple(pair for pair in decided if pair[1]),
        )


def _changed(change: AuditRecord) -> TimelineEntry:
    return TimelineEntry(
        at=change.changed_at,
        kind="person",
        title=str(ACTIONS[change.action]),
        details=((_("by"), people_in_words(change.changed_by)), (_("reason"), change.reason)),
    )


def _next_question(history: OrderHistory) -> Iterator[TimelineEntry]:
    inquiry, order = history.inquiry, history.order
    if inquiry is not None and inquiry.state in (InquiryState.OPEN, InquiryState.ASKING):
        yield TimelineEntry(
            at=inquiry.due_at,
            kind="question",
            title=_("The gateway is asked"),
            details=((_("because"), reasons_in_words(inquiry.reasons)),),
            text=_("Asked on %(day)s (UTC): %(count)s times.", day=inquiry.asked_day, count=inquiry.asked_today)
            if inquiry.asked_today
            else "",
        )
        yield TimelineEntry(
            at=inquiry.horizon_at, kind="question", title=_("If it names no final status by then, a person has to look")
        )
    elif inquiry is None and order is not None and order.answer_due_at is not None and not order.settled:
        yield TimelineEntry(
            at=order.answer_due_at, kind="question", title=_("If no callback has come by then, the gateway is asked")
        )


def _next_proposal(history: OrderHistory) -> Iterator[TimelineEntry]:
    for proposal in history.proposals:
        if proposal.state is ProposalState.OPEN:
            yield TimelineEntry(
                at=None,
                kind="proposal",
                title=_("A second person confirms or withdraws: %(status)s", status=STATUSES[proposal.status]),
            )


def reasons_in_words(reasons: InquiryReason) -> str:
    """Why the gateway is asked."""
    return "; ".join(str(REASONS[reason]) for reason in reasons)


def status_in_words(status: OrderStatus, *, conflicted: bool) -> str:
    """An order's status."""
    word = str(STATUSES[status])
    return _("%(status)s (in conflict)", status=word) if conflicted else word
