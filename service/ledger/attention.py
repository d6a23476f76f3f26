"""The attention list: everything that waits for a person, and the counts of it.

One query finds the items. The list, the counts of the metrics and the daily report read it, so they never disagree.

Many conflicts of one merchant that begin with the same field mostly have one cause, and so have many events that were
given up for one endpoint. They are one item, a group. Its members are no items of their own, so they are neither listed
nor counted, until the list is asked for that group.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    Subquery,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)

from service.domain.claims import IdentityField, OrderKey, OrderStatus, Trust
from service.domain.depths import QUEUE
from service.domain.events import EventType
from service.domain.money import Money
from service.domain.order_state import STATUS, Verdict
from service.ledger.audit import Action, Author, record_change
from service.ledger.bulk import insert_or_update
from service.ledger.database import read, shared_time, write
from service.ledger.depths import FORGOTTEN_AFTER
from service.ledger.errors import AttentionItemUnknown
from service.ledger.inquiries import InquiryState
from service.ledger.proposals import IS_OPEN
from service.ledger.refused_withholds import CONTRADICTS_REFUSAL, NOT_BY_OPERATOR, WATCHED_FOR
from service.ledger.sanitizing import escaped
from service.ledger.tables import (
    HAS_EVENT,
    UtcDateTime,
    about_same_order,
    acknowledgements,
    claims,
    dead_letters,
    deliveries,
    depth_reports,
    events,
    inquiries,
    orders,
    paused_endpoints,
    proposals,
    to_record,
    withholds,
)
from service.ledger.withholds import WithholdOutcome

#: A withhold of unknown outcome waits for a person after this time: until then the inquirer mostly finds it out.
WITHHOLD_UNKNOWN_FOR = timedelta(minutes=10)
#: A pause is listed after this time: it may have been forgotten.
PAUSED_TOO_LONG = timedelta(hours=4)
#: Acknowledged callbacks are listed after this time in a spool or in the queue: mostly they are recorded at once.
WAITING_TOO_LONG = timedelta(minutes=5)
#: A spool or the queue is listed after this time without a report: four are missing by then.
SILENT_AFTER = timedelta(minutes=1)
#: So many conflicts of one merchant that begin with the same field, or given-up events of one endpoint, are one item.
GROUPED_FROM = 10


class AttentionKind(StrEnum):
    """Why something waits for a person."""

    #: The gateway was asked about the order until its horizon, without result.
    PARKED_INQUIRY = "parked-inquiry"
    #: Trusted claims about the order contradict each other or its announcement.
    CONFLICT = "conflict"
    #: A person has proposed how to resolve the order, and another one has to confirm it.
    PROPOSAL = "proposal"
    #: Many conflicts of one merchant begin with the same field: a group.
    DISPUTED_FIELD = "disputed-field"
    #: A trusted claim has an unknown status or type, and no later claim about the order counted.
    QUARANTINED_CLAIM = "quarantined-claim"
    #: A withhold was sent, and nobody knows whether the gateway took it.
    UNKNOWN_WITHHOLD = "unknown-withhold"
    #: The gateway contradicts itself about whether it has an order for which there are rules for refused withholds.
    CONTRADICTED_WITHHOLD = "contradicted-withhold"
    #: An event was given up for an endpoint.
    PARKED_DELIVERY = "parked-delivery"
    #: Many events were given up for one endpoint: a group.
    PARKED_DELIVERIES = "parked-deliveries"
    #: An endpoint has been paused for hours.
    PAUSED_ENDPOINT = "paused-endpoint"
    #: A message could not be recorded, and is in the dead letters.
    DEAD_LETTER = "dead-letter"
    #: Acknowledged callbacks have been in a spool or in the queue for minutes.
    WAITING_CALLBACKS = "waiting-callbacks"
    #: Nobody reports what a spool or the queue holds.
    SILENT_REPORTER = "silent-reporter"


#: The kinds that stand for many items of another kind.
GROUPS = (AttentionKind.DISPUTED_FIELD, AttentionKind.PARKED_DELIVERIES)

#: Each kind in words, with the item's `since` to fill in.
CAUSES = {
    AttentionKind.PARKED_INQUIRY: "The gateway was asked until the horizon and named no final status.",
    AttentionKind.CONFLICT: "Trusted claims about the order contradict each other or its announcement.",
    AttentionKind.PROPOSAL: "Somebody has proposed how to resolve the order. Another person has to confirm it.",
    AttentionKind.DISPUTED_FIELD: "Trusted claims about many orders contradict each other or the announcement.",
    AttentionKind.QUARANTINED_CLAIM: "A trusted claim has an unknown status or type, and changes nothing.",
    AttentionKind.UNKNOWN_WITHHOLD: "The withhold was sent, and it is unknown whether the gateway took it.",
    AttentionKind.CONTRADICTED_WITHHOLD: "The gateway contradicts itself about whether it has the order.",
    AttentionKind.PARKED_DELIVERY: "The endpoint failed to take an event too often. It is not tried again.",
    AttentionKind.PARKED_DELIVERIES: "The endpoint failed to take many events too often. They are not tried again.",
    AttentionKind.DEAD_LETTER: "A message could not be recorded. What it says about a payment is not in the ledger.",
    AttentionKind.PAUSED_ENDPOINT: "The endpoint has been paused for hours. Its events wait.",
    AttentionKind.WAITING_CALLBACKS: "Acknowledged callbacks wait and are not in the ledger yet.",
    AttentionKind.SILENT_REPORTER: "Unknown since {since:%Y-%m-%d %H:%M}Z: how many acknowledged callbacks wait there.",
}
#: How the gateway contradicts itself: the details of the items of that kind.
REFUSED_AND_CLAIMED = "The gateway refused the withhold with -1. A claim says otherwise."
KNOWN_AND_MISSING = "The gateway had the order. It answers now that it does not exist."


class AttentionPlace(NamedTuple):
    """An item's place in the list."""

    since: datetime
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionItem:
    """One thing that waits for a person."""

    #: Names the item: the kind, and what it is about. It stays the same for as long as the item is listed.
    id: str
    kind: AttentionKind
    #: "" where it concerns no merchant or no order.
    merchant: str
    biz_order_no: str
    #: "" where it concerns no endpoint.
    endpoint: str
    #: The id of the event that was given up; "" otherwise.
    event_id: str
    #: Since when it waits, aware.
    since: datetime
    #: When it last changed: an acknowledgement holds until then.
    changed_at: datetime
    #: What is known beyond the kind: an error, a reason, the field in dispute. It may hold personal data.
    detail: str
    #: The number of orders concerned: 1, or those of a group of conflicts; 0 where it concerns no order.
    orders: int
    #: The number of events that were given up: 1, or those of a group; 0 for any other kind.
    events: int
    #: What is at stake, as the order has it; of a group the exact sum. None where unknown.
    amount: str | None
    amount_unit: str | None
    #: Who acknowledged it in its present state, when, and with which note; None where nobody did.
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    note: str | None

    @property
    def place(self) -> AttentionPlace:
        """Its place in the list."""
        return AttentionPlace(self.since, self.id)

    @property
    def cause(self) -> str:
        """The kind in words."""
        return CAUSES[self.kind].format(since=self.since)

    @property
    def next_step(self) -> str:
        """The command to run next. Where it asks for a reason, a person writes one in place of REASON."""
        match self.kind:
            case AttentionKind.PARKED_INQUIRY | AttentionKind.UNKNOWN_WITHHOLD | AttentionKind.CONTRADICTED_WITHHOLD:
                words = ["orders", "inquire", *_REASON, *_arguments(self.merchant, self.biz_order_no)]
            case AttentionKind.PROPOSAL:
                return confirm_command(self.merchant, self.biz_order_no, self.id.rpartition("/")[2])
            case AttentionKind.PARKED_DELIVERY:
                words = ["replay", "--endpoint", self.endpoint, *_REASON, *_arguments(self.event_id)]
            case AttentionKind.PARKED_DELIVERIES:
                words = ["replay", "--endpoint", self.endpoint, "--parked", *_REASON]
            case AttentionKind.PAUSED_ENDPOINT:
                words = ["endpoints", "resume", *_REASON, *_arguments(self.endpoint)]
            case AttentionKind.DEAD_LETTER:
                words = ["dead", "show", *_arguments(self.id.partition("/")[2])]
            case AttentionKind.DISPUTED_FIELD:
                words = ["orders", "attention", "--group", self.id]
            case AttentionKind.WAITING_CALLBACKS | AttentionKind.SILENT_REPORTER:
                is_queue = self.id.partition("/")[2] == QUEUE
                words = ["run", "ledger"] if is_queue else ["spool", "drain"]
            case _:
                words = ["orders", "show", *_arguments(self.merchant, self.biz_order_no)]
        return shlex.join(["payment-callbacks", *words])


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFilter:
    """Which items to list; None is no filter."""

    kind: AttentionKind | None = None
    merchant: str | None = None
    #: Only the members of the group with this id. The default leaves out what is in a group, and has the group.
    group: str | None = None
    #: Whether somebody has acknowledged it. The default leaves those out.
    acknowledged: bool | None = False
    #: Only items after this place.
    after: AttentionPlace | None = None


def confirm_command(merchant: str, biz_order_no: str, proposal: str) -> str:
    """The command with which another person confirms a proposal."""
    words = ["orders", "confirm", "--proposal", proposal, *_arguments(merchant, biz_order_no)]
    return shlex.join(["payment-callbacks", *words])


class AttentionList:
    """Reads the list, and acknowledges items. Safe to share between threads. Every method raises LedgerUnavailable."""

    def __init__(self, *, engine: Engine, clock: Callable[[Connection], datetime] = shared_time) -> None:
        """`clock` has to give all processes the same time."""
        self._engine = engine
        self._clock = clock

    def list(self, chosen: AttentionFilter, *, limit: int) -> Sequence[AttentionItem]:
        """At most `limit` items, those that have waited longest first."""
        return read(self._engine, lambda connection: list_items(connection, chosen, limit, self._clock(connection)))

    def count(self) -> Mapping[tuple[str, ...], int]:
        """How many items there are, by the labels of the metric; a kind without items has a 0 with empty labels."""
        counts = read(self._engine, lambda connection: count_items(connection, self._clock(connection)))
        return {(kind.value, "", "", "false"): 0 for kind in AttentionKind} | counts

    def acknowledge(self, item_id: str, *, name: str, note: str) -> AttentionItem:
        """Take an item out of sight until it changes, in a person's name; the item afterwards.

        A second acknowledgement replaces the first. Raises AttentionItemUnknown where nothing of this id waits.
        """
        return write(self._engine, lambda connection: self._acknowledge(connection, item_id, name, note))

    def _acknowledge(self, connection: Connection, item_id: str, name: str, note: str) -> AttentionItem:
        now = self._clock(connection)
        items = items_at(now)
        query = select(items).where(items.c.id == item_id)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise AttentionItemUnknown(item_id)
        values = {
            "item": item_id,
            "changed_at": row.changed_at,
            "name": escaped(name),
            "note": escaped(note),
            "acknowledged_at": now,
        }
        insert_or_update(connection, acknowledgements, [values])
        order = OrderKey(row.merchant, row.biz_order_no) if row.biz_order_no else None
        record_change(connection, Action.ACKNOWLEDGE, item_id, Author(name=name, reason=note), at=now, order=order)
        return _to_item(connection, connection.execute(_with_amounts(query)).one())


def list_items(connection: Connection, chosen: AttentionFilter, limit: int, now: datetime) -> Sequence[AttentionItem]:
    """At most `limit` items at the time `now`, those that have waited longest first."""
    items = items_at(now)
    query = select(items).where(items.c.grouped == (chosen.group or ""))
    query = query.order_by(items.c.since, items.c.id).limit(limit)
    if chosen.kind is not None:
        query = query.where(items.c.kind == chosen.kind.value)
    if chosen.merchant is not None:
        query = query.where(items.c.merchant == chosen.merchant)
    if chosen.acknowledged is not None:
        query = query.where(items.c.acknowledged_at.is_not(None) == chosen.acknowledged)
    if chosen.after is not None:
        since, item_id = chosen.after
        query = query.where(tuple_(items.c.since, items.c.id) > tuple_(literal(since, UtcDateTime()), item_id))
    return [_to_item(connection, row) for row in connection.execute(_with_amounts(query)).all()]


def count_items(connection: Connection, now: datetime) -> dict[tuple[str, ...], int]:
    """How many items there are at the time `now`, by kind, merchant, endpoint, and "true" where acknowledged.

    Items that concern an endpoint are counted for the endpoint alone.
    """
    items = items_at(now)
    labels = (
        items.c.kind,
        case((items.c.endpoint == "", items.c.merchant), else_="").label("owner"),
        items.c.endpoint,
        case((items.c.acknowledged_at.is_(None), "false"), else_="true").label("acknowledged"),
    )
    counted = connection.execute(select(*labels, func.count()).where(items.c.grouped == "").group_by(*labels))
    return {tuple(row[:-1]): row[-1] for row in counted}


def items_at(now: datetime) -> Subquery:
    """The items at the time `now` and the members of each group, as a query with a column per field of an item.

    Its column `grouped` is the id of the group that a member is in, and "" for every item. A member counts as
    acknowledged where it or its group is. Amounts are missing.
    """
    conflicts, parked = _open_conflicts(), _parked_by_endpoint()
    found = union_all(
        _parked_inquiries(),
        _conflicts(conflicts),
        _proposals(),
        _disputed_fields(conflicts),
        _quarantined_claims(),
        _unknown_withholds(now),
        _contradicted_refusals(now),
        _missing_orders(),
        _parked_deliveries(parked),
        _parked_deliveries_by_endpoint(parked),
        _paused_endpoints(now),
        _dead_letters(),
        _waiting_callbacks(now),
        _silent_reporters(now),
    ).subquery("found")
    own, of_group = acknowledgements.alias("own"), acknowledgements.alias("of_group")
    return (
        select(
            found,
            func.coalesce(own.c.name, of_group.c.name).label("acknowledged_by"),
            func.coalesce(own.c.acknowledged_at, of_group.c.acknowledged_at).label("acknowledged_at"),
            func.coalesce(own.c.note, of_group.c.note).label("note"),
        )
        .select_from(found)
        .outerjoin(own, and_(own.c.item == found.c.id, own.c.changed_at == found.c.changed_at))
        .outerjoin(
            of_group, and_(of_group.c.item == found.c.grouped, of_group.c.changed_at == found.c.group_changed_at)
        )
        .subquery("items")
    )


def _with_amounts(chosen: Select[Any]) -> Select[Any]:
    """Chosen items, in the order of the list, with the amounts of their orders; not those of groups.

    Joined to what was chosen: to join all items first takes seconds where 100,000 wait.
    """
    page = chosen.subquery("page")
    return (
        select(page, orders.c.amount, orders.c.amount_unit)
        .outerjoin(orders, about_same_order(page))
        .order_by(page.c.since, page.c.id)
    )


def _parked_inquiries() -> Select[Any]:
    asked, horizon = func.coalesce(inquiries.c.last_asked_at, inquiries.c.horizon_at), inquiries.c.horizon_at
    # It is parked with the last question before the horizon, and a doubt may have it asked again long after that.
    since = case((asked < horizon, asked), else_=horizon)
    return _select(AttentionKind.PARKED_INQUIRY, order=inquiries, since=since, changed_at=asked).where(
        inquiries.c.state == literal(InquiryState.PARKED.value, literal_execute=True)
    )


# The field in which a conflict began. `orders.disputed` is JSON: the first of its pairs names it.
_first_disputed = case(
    *(
        (orders.c.disputed.startswith(f'[["{field}", ', autoescape=True), str(field))
        for field in (STATUS, *IdentityField)
    ),
    else_="",
)


def _open_conflicts() -> CTE:
    """Each order in conflict, and how many of its merchant began with the same field; "" where it is unknown."""
    opened = (
        select(func.max(events.c.created_at))
        .where(about_same_order(events), events.c.type == EventType.CONFLICTED.value)
        .scalar_subquery()
    )
    open_now = (
        select(
            orders.c.merchant,
            orders.c.biz_order_no,
            func.coalesce(opened, orders.c.updated_at).label("since"),
            orders.c.updated_at.label("changed_at"),
            _first_disputed.label("field"),
        )
        .where(orders.c.conflicted)
        .subquery("open_now")
    )
    alike = (open_now.c.merchant, open_now.c.field)
    return select(
        open_now,
        func.count().over(partition_by=alike).label("alike"),
        func.max(open_now.c.changed_at).over(partition_by=alike).label("group_changed_at"),
    ).cte("conflicts")


def _is_grouped(conflicts: CTE) -> ColumnElement[bool]:
    return and_(conflicts.c.field != "", conflicts.c.alike >= GROUPED_FROM)


def _conflicts(conflicts: CTE) -> Select[Any]:
    group = _item_id(AttentionKind.DISPUTED_FIELD, conflicts.c.merchant, conflicts.c.field)
    return _select(
        AttentionKind.CONFLICT,
        order=conflicts,
        since=conflicts.c.since,
        changed_at=conflicts.c.changed_at,
        detail=conflicts.c.field,
        grouped=case((_is_grouped(conflicts), group), else_=_EMPTY),
        group_changed_at=conflicts.c.group_changed_at,
    )


def _proposals() -> Select[Any]:
    proposed = proposals.c
    return (
        _select(
            AttentionKind.PROPOSAL,
            order=proposals,
            about=(proposed.merchant, proposed.biz_order_no, cast(proposed.id, Text)),
            since=proposed.proposed_at,
            detail=proposed.status + ", by " + proposed.proposed_by + ": " + proposed.reason,
        )
        .outerjoin(orders, about_same_order(proposals))
        .where(IS_OPEN)
    )


def _disputed_fields(conflicts: CTE) -> Select[Any]:
    return (
        _select(
            AttentionKind.DISPUTED_FIELD,
            about=(conflicts.c.merchant, conflicts.c.field),
            merchant=conflicts.c.merchant,
            since=func.min(conflicts.c.since),
            # The group changes with each conflict that joins it.
            changed_at=func.max(conflicts.c.changed_at),
            detail=conflicts.c.field,
            number_of_orders=cast(func.count(), Integer),
        )
        .where(_is_grouped(conflicts))
        .group_by(conflicts.c.merchant, conflicts.c.field)
    )


def _quarantined_claims() -> Select[Any]:
    is_quarantined = literal(Verdict.QUARANTINED.value, literal_execute=True)
    later, first, counted = claims.alias("later"), claims.alias("first"), claims.alias("counted")
    # The newest of an order: the gateway may answer the same for days.
    superseded = (
        select(later.c.id)
        .where(
            about_same_order(later, claims),
            later.c.id > claims.c.id,
            later.c.counted | (later.c.verdict == is_quarantined),
        )
        .exists()
    )
    last_counted = select(func.max(counted.c.id)).where(about_same_order(counted, claims), counted.c.counted)
    since = select(func.min(first.c.recorded_at)).where(
        about_same_order(first, claims),
        first.c.verdict == is_quarantined,
        first.c.id > func.coalesce(last_counted.correlate(claims).scalar_subquery(), 0),
    )
    return _select(
        AttentionKind.QUARANTINED_CLAIM,
        order=claims,
        since=since.correlate(claims).scalar_subquery(),
        changed_at=claims.c.recorded_at,
        detail=func.coalesce(claims.c.quarantine, ""),
    ).where(claims.c.verdict == is_quarantined, ~superseded)


def _unknown_withholds(now: datetime) -> Select[Any]:
    unknown = [
        literal(outcome.value, literal_execute=True) for outcome in (WithholdOutcome.SENDING, WithholdOutcome.UNKNOWN)
    ]
    return (
        _select(
            AttentionKind.UNKNOWN_WITHHOLD,
            order=withholds,
            since=withholds.c.sent_at,
            changed_at=func.coalesce(withholds.c.settled_at, withholds.c.sent_at),
            detail=withholds.c.detail,
        )
        .join(orders, about_same_order(withholds))
        .where(
            withholds.c.outcome.in_(unknown),
            withholds.c.sent_at <= now - WITHHOLD_UNKNOWN_FOR,
            # Until then, it is for a rule to end it.
            or_(withholds.c.rule_due_at.is_(None), withholds.c.rule_due_at <= now),
            # Any later status shows that the gateway took it.
            orders.c.status == OrderStatus.INITIAL.value,
        )
    )


def _contradicted_refusals(now: datetime) -> Select[Any]:
    """Refused withholds that no rule ends, or should have ended: the gateway has the order, somebody says."""
    contradicting = about_same_order(claims, withholds) & CONTRADICTS_REFUSAL

    def recorded(which: Any) -> ColumnElement[Any]:
        said = select(which(claims.c.recorded_at)).where(contradicting).correlate(withholds)
        return said.scalar_subquery()

    is_open = orders.c.status.in_([OrderStatus.INITIAL.value, OrderStatus.PROCESSING.value])
    return (
        _select(
            AttentionKind.CONTRADICTED_WITHHOLD,
            order=withholds,
            since=recorded(func.min),
            changed_at=recorded(func.max),
            detail=cast(literal(REFUSED_AND_CLAIMED), Text),
        )
        .join(orders, about_same_order(withholds))
        .where(
            withholds.c.rule.is_not(None),
            withholds.c.refused_at > now - WATCHED_FOR,
            is_open | (orders.c.trust == int(Trust.RULE)),
            select(claims.c.id).where(contradicting).correlate(withholds).exists(),
        )
    )


def _missing_orders() -> Select[Any]:
    """Orders that the gateway accepted or called paid, and does not have. They suspend the merchant's rules."""
    refused = select(withholds.c.rule).where(about_same_order(withholds, inquiries), withholds.c.rule.is_not(None))
    # Listed already, because of what contradicts the refusal.
    is_listed = (orders.c.status == OrderStatus.PROCESSING.value) & refused.correlate(inquiries).exists()
    return (
        _select(
            AttentionKind.CONTRADICTED_WITHHOLD,
            order=inquiries,
            since=inquiries.c.missing_since,
            detail=cast(literal(KNOWN_AND_MISSING), Text),
        )
        .join(orders, about_same_order(inquiries))
        .where(inquiries.c.missing_since.is_not(None), NOT_BY_OPERATOR, ~is_listed)
    )


# Written out, for the index of parked deliveries.
_PARKED = literal("parked", literal_execute=True)
_IS_PARKED = deliveries.c.state == _PARKED


def _parked_by_endpoint() -> CTE:
    """How many events were given up for each endpoint, when the first and the last was, and why the last was."""
    last = deliveries.alias("last")
    last_error = (
        select(last.c.last_error)
        .where(last.c.endpoint == deliveries.c.endpoint, last.c.state == _PARKED)
        .order_by(last.c.settled_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    return (
        select(
            deliveries.c.endpoint,
            cast(func.count(), Integer).label("number"),
            func.min(deliveries.c.settled_at).label("since"),
            func.max(deliveries.c.settled_at).label("changed_at"),
            last_error.label("last_error"),
        )
        .where(_IS_PARKED)
        .group_by(deliveries.c.endpoint)
        .cte("parked")
    )


def _parked_deliveries(parked: CTE) -> Select[Any]:
    group = _item_id(AttentionKind.PARKED_DELIVERIES, parked.c.endpoint)
    return (
        _select(
            AttentionKind.PARKED_DELIVERY,
            order=deliveries,
            about=(deliveries.c.endpoint, events.c.id),
            endpoint=deliveries.c.endpoint,
            event_id=events.c.id,
            since=deliveries.c.settled_at,
            detail=deliveries.c.last_error,
            number_of_events=literal(1),
            grouped=case((parked.c.number >= GROUPED_FROM, group), else_=_EMPTY),
            group_changed_at=parked.c.changed_at,
        )
        .join(parked, parked.c.endpoint == deliveries.c.endpoint)
        .join(events, HAS_EVENT)
        .where(_IS_PARKED)
    )


def _parked_deliveries_by_endpoint(parked: CTE) -> Select[Any]:
    return _select(
        AttentionKind.PARKED_DELIVERIES,
        about=(parked.c.endpoint,),
        endpoint=parked.c.endpoint,
        since=parked.c.since,
        # The group changes with each event that joins it.
        changed_at=parked.c.changed_at,
        detail=parked.c.last_error,
        number_of_events=parked.c.number,
    ).where(parked.c.number >= GROUPED_FROM)


def _paused_endpoints(now: datetime) -> Select[Any]:
    paused = paused_endpoints.c
    return _select(
        AttentionKind.PAUSED_ENDPOINT,
        about=(paused.endpoint,),
        endpoint=paused.endpoint,
        since=paused.paused_at,
        detail=paused.paused_by + ": " + paused.reason,
    ).where(paused.paused_at <= now - PAUSED_TOO_LONG)


def _dead_letters() -> Select[Any]:
    letters = dead_letters.c
    return _select(AttentionKind.DEAD_LETTER, about=(letters.id,), since=letters.died_at, detail=letters.reason).where(
        letters.settled_at.is_(None)
    )


def _waiting_callbacks(now: datetime) -> Select[Any]:
    reported = depth_reports.c
    return _reporters(AttentionKind.WAITING_CALLBACKS, since=reported.oldest_at).where(
        reported.messages > 0,
        reported.oldest_at <= now - WAITING_TOO_LONG,
        reported.reported_at > now - SILENT_AFTER,
    )


def _silent_reporters(now: datetime) -> Select[Any]:
    reported = depth_reports.c
    return _reporters(AttentionKind.SILENT_REPORTER, since=reported.reported_at).where(
        reported.reported_at <= now - SILENT_AFTER, reported.reported_at > now - FORGOTTEN_AFTER
    )


def _reporters(kind: AttentionKind, *, since: ColumnElement[Any]) -> Select[Any]:
    reported = depth_reports.c
    detail = reported.name + ": " + cast(reported.messages, Text) + " callbacks at the last report"
    return _select(kind, about=(reported.reporter,), since=since, detail=detail)


# A column has to have the same type in all kinds: else PostgreSQL reads everything before it applies a condition on it.
_EMPTY = cast(literal(""), Text)
# The commands that change something ask for it.
_REASON = ("--reason", "REASON")


def _select(
    kind: AttentionKind,
    *,
    since: ColumnElement[Any],
    changed_at: ColumnElement[Any] | None = None,
    order: Any = None,
    about: Sequence[ColumnElement[str]] = (),
    merchant: ColumnElement[str] = _EMPTY,
    endpoint: ColumnElement[str] = _EMPTY,
    event_id: ColumnElement[str] = _EMPTY,
    detail: ColumnElement[str] = _EMPTY,
    number_of_orders: ColumnElement[int] | None = None,
    number_of_events: ColumnElement[int] | None = None,
    grouped: ColumnElement[str] = _EMPTY,
    group_changed_at: ColumnElement[Any] | None = None,
) -> Select[Any]:
    """The items of one kind, with the columns that all kinds have. `order` is the table that names their orders.

    `about` tells the items of the kind apart; without it, the order does.
    """
    biz_order_no = _EMPTY
    if order is not None:
        merchant, biz_order_no = order.c.merchant, order.c.biz_order_no
    changed_at = since if changed_at is None else changed_at
    columns = {
        "id": _item_id(kind, *(about or (merchant, biz_order_no))),
        "kind": cast(literal(kind.value), Text),
        "merchant": merchant,
        "biz_order_no": biz_order_no,
        "endpoint": endpoint,
        "event_id": event_id,
        "since": since,
        "changed_at": changed_at,
        "detail": detail,
        "orders": literal(0 if order is None else 1) if number_of_orders is None else number_of_orders,
        "events": literal(0) if number_of_events is None else number_of_events,
        "grouped": grouped,
        "group_changed_at": changed_at if group_changed_at is None else group_changed_at,
    }
    return select(*(column.label(name) for name, column in columns.items()))


def _item_id(kind: AttentionKind, *about: ColumnElement[str]) -> ColumnElement[str]:
    item_id: ColumnElement[str] = cast(literal(kind.value), Text)
    for part in about:
        item_id = item_id + "/" + part
    return item_id


def _to_item(connection: Connection, row: Any) -> AttentionItem:
    item = to_record(AttentionItem, row)
    if item.kind is not AttentionKind.DISPUTED_FIELD:
        return item
    total = _sum_amounts(connection, item.merchant, item.detail)
    return item if total is None else replace(item, amount=total.text, amount_unit=total.unit)


def _sum_amounts(connection: Connection, merchant: str, field: str) -> Money | None:
    """The exact sum of a group's amounts, without those that are unknown; None where all are."""
    amount = (orders.c.amount, orders.c.amount_unit)
    query = (
        select(*amount, func.count())
        .where(orders.c.conflicted, orders.c.merchant == merchant, _first_disputed == field, amount[0].is_not(None))
        .group_by(*amount)
    )
    # Added here: SQLite has no exact decimals.
    amounts = [(Money(text, unit), number) for text, unit, number in connection.execute(query)]
    if not amounts:
        return None
    fen = sum((money.fen * number for money, number in amounts), Decimal())
    return Money(f"{fen:f}", "fen").to(amounts[0][0].unit)


def _arguments(*values: str) -> Sequence[str]:
    """Values for a command line, where one that begins with a hyphen must not be taken for an option."""
    return ["--", *values] if any(value.startswith("-") for value in values) else values
