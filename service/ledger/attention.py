"""The attention list: everything that waits for a person, and the counts of the same.

One query finds the items. The list, the counts of the metrics and the daily report read it, so they never disagree.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Subquery,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    tuple_,
    union_all,
)

from service.domain.claims import OrderStatus
from service.domain.order_state import Verdict
from service.ledger.bulk import insert_or_update
from service.ledger.database import read, shared_time, write
from service.ledger.errors import AttentionItemUnknown
from service.ledger.inquiries import InquiryState
from service.ledger.sanitizing import escaped
from service.ledger.tables import (
    HAS_EVENT,
    UtcDateTime,
    about_same_order,
    acknowledgements,
    claims,
    dead_letters,
    deliveries,
    events,
    inquiries,
    orders,
    paused_endpoints,
    to_record,
    withholds,
)
from service.ledger.withholds import WithholdOutcome

#: A withhold of unknown outcome waits for a person after this time: until then the inquirer mostly finds it out.
WITHHOLD_UNKNOWN_FOR = timedelta(minutes=10)
#: A pause is listed after this time: it may have been forgotten.
PAUSED_TOO_LONG = timedelta(hours=4)


class AttentionKind(StrEnum):
    """Why something waits for a person."""

    #: The gateway was asked about the order until its horizon, without result.
    PARKED_INQUIRY = "parked-inquiry"
    #: Trusted claims about the order contradict each other or its announcement.
    CONFLICT = "conflict"
    #: A trusted claim has an unknown status or type, and no later claim about the order counted.
    QUARANTINED_CLAIM = "quarantined-claim"
    #: A withhold was sent, and nobody knows whether the gateway took it.
    UNKNOWN_WITHHOLD = "unknown-withhold"
    #: An event was given up for an endpoint.
    PARKED_DELIVERY = "parked-delivery"
    #: An endpoint has been paused for hours.
    PAUSED_ENDPOINT = "paused-endpoint"
    #: A message could not be recorded, and is in the dead letters.
    DEAD_LETTER = "dead-letter"


#: Each kind in words.
CAUSES = {
    AttentionKind.PARKED_INQUIRY: "The gateway was asked until the horizon and named no final status.",
    AttentionKind.CONFLICT: "Trusted claims about the order contradict each other or its announcement.",
    AttentionKind.QUARANTINED_CLAIM: "A trusted claim has an unknown status or type, and changes nothing.",
    AttentionKind.UNKNOWN_WITHHOLD: "The withhold was sent, and it is unknown whether the gateway took it.",
    AttentionKind.PARKED_DELIVERY: "The endpoint failed to take an event too often. It is not tried again.",
    AttentionKind.DEAD_LETTER: "A message could not be recorded. What it says about a payment is not in the ledger.",
    AttentionKind.PAUSED_ENDPOINT: "The endpoint has been paused for hours. Its events wait.",
}


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
    #: What is known beyond the kind: an error, a reason. It may hold personal data.
    detail: str
    #: What is at stake, as announced; None where unknown.
    amount: str | None
    amount_unit: str | None
    #: Who acknowledged it in its present state, when, and with which note; None where nobody did.
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    note: str | None

    @property
    def cause(self) -> str:
        """The kind in words."""
        return CAUSES[self.kind]

    @property
    def next_step(self) -> str:
        """The command to run next."""
        match self.kind:
            case AttentionKind.PARKED_INQUIRY | AttentionKind.UNKNOWN_WITHHOLD:
                words = ["orders", "inquire", *_arguments(self.merchant, self.biz_order_no)]
            case AttentionKind.PARKED_DELIVERY:
                words = ["replay", "--endpoint", self.endpoint, *_arguments(self.event_id)]
            case AttentionKind.PAUSED_ENDPOINT:
                words = ["endpoints", "resume", *_arguments(self.endpoint)]
            case AttentionKind.DEAD_LETTER:
                words = ["dead", "show", *_arguments(self.id.partition("/")[2])]
            case _:
                words = ["orders", "show", *_arguments(self.merchant, self.biz_order_no)]
        return shlex.join(["payment-callbacks", *words])


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFilter:
    """Which items to list; None is no filter."""

    kind: AttentionKind | None = None
    merchant: str | None = None
    #: Whether somebody has acknowledged it. The default leaves those out.
    acknowledged: bool | None = False
    #: Only items after this place: `since` and id of the last item before.
    after: "tuple[datetime, str] | None" = field(default=None)


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
        """How many items there are, by the labels of the metric; a kind without items has a 0 under no owner's name."""
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
        return _to_item(connection.execute(query).one())


def list_items(connection: Connection, chosen: AttentionFilter, limit: int, now: datetime) -> Sequence[AttentionItem]:
    """At most `limit` items at the time `now`, those that have waited longest first."""
    items = items_at(now)
    query = select(items).order_by(items.c.since, items.c.id).limit(limit)
    if chosen.kind is not None:
        query = query.where(items.c.kind == chosen.kind.value)
    if chosen.merchant is not None:
        query = query.where(items.c.merchant == chosen.merchant)
    if chosen.acknowledged is not None:
        query = query.where(items.c.acknowledged_at.is_not(None) == chosen.acknowledged)
    if chosen.after is not None:
        since, item_id = chosen.after
        query = query.where(tuple_(items.c.since, items.c.id) > tuple_(literal(since, UtcDateTime()), item_id))
    return [_to_item(row) for row in connection.execute(query)]


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
    counted = connection.execute(select(*labels, func.count()).group_by(*labels))
    return {tuple(row[:-1]): row[-1] for row in counted}


def items_at(now: datetime) -> Subquery:
    """The items at the time `now`, as a query: one column for each field of `AttentionItem`."""
    found = union_all(
        _parked_inquiries(),
        _conflicts(),
        _quarantined_claims(),
        _unknown_withholds(now),
        _parked_deliveries(),
        _paused_endpoints(now),
        _dead_letters(),
    ).subquery("found")
    return (
        select(
            found,
            orders.c.amount,
            orders.c.amount_unit,
            acknowledgements.c.name.label("acknowledged_by"),
            acknowledgements.c.acknowledged_at,
            acknowledgements.c.note,
        )
        .select_from(found)
        .outerjoin(orders, about_same_order(found))
        .outerjoin(
            acknowledgements,
            and_(acknowledgements.c.item == found.c.id, acknowledgements.c.changed_at == found.c.changed_at),
        )
        .subquery("items")
    )


def _parked_inquiries() -> Select[Any]:
    asked = func.coalesce(inquiries.c.last_asked_at, inquiries.c.horizon_at)
    return _select(AttentionKind.PARKED_INQUIRY, order=inquiries, since=inquiries.c.horizon_at, changed_at=asked).where(
        inquiries.c.state == literal(InquiryState.PARKED.value, literal_execute=True)
    )


def _conflicts() -> Select[Any]:
    return _select(AttentionKind.CONFLICT, order=orders, since=orders.c.updated_at).where(orders.c.conflicted)


def _quarantined_claims() -> Select[Any]:
    later = claims.alias("later")
    is_quarantined = literal(Verdict.QUARANTINED.value, literal_execute=True)
    # The newest of an order: the gateway may answer the same for days.
    superseded = (
        select(later.c.id)
        .where(
            later.c.merchant == claims.c.merchant,
            later.c.biz_order_no == claims.c.biz_order_no,
            later.c.id > claims.c.id,
            later.c.counted | (later.c.verdict == is_quarantined),
        )
        .exists()
    )
    return _select(
        AttentionKind.QUARANTINED_CLAIM,
        order=claims,
        since=claims.c.recorded_at,
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
            # Any later status shows that the gateway took it.
            orders.c.status == OrderStatus.INITIAL.value,
        )
    )


def _parked_deliveries() -> Select[Any]:
    return (
        _select(
            AttentionKind.PARKED_DELIVERY,
            order=deliveries,
            about=(deliveries.c.endpoint, events.c.id),
            endpoint=deliveries.c.endpoint,
            event_id=events.c.id,
            since=func.coalesce(deliveries.c.settled_at, deliveries.c.created_at),
            detail=deliveries.c.last_error,
        )
        .join(events, HAS_EVENT)
        .where(deliveries.c.state == literal("parked", literal_execute=True))
    )


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


_EMPTY = cast(literal(""), Text)


def _select(
    kind: AttentionKind,
    *,
    since: ColumnElement[Any],
    changed_at: ColumnElement[Any] | None = None,
    order: Any = None,
    about: Sequence[Column[Any]] = (),
    endpoint: ColumnElement[str] = _EMPTY,
    event_id: ColumnElement[str] = _EMPTY,
    detail: ColumnElement[str] = _EMPTY,
) -> Select[Any]:
    """The items of one kind, with the columns that all kinds have. `order` is the table that names their orders.

    `about` tells the items of the kind apart; without it, the order does.
    """
    merchant, biz_order_no = (_EMPTY, _EMPTY) if order is None else (order.c.merchant, order.c.biz_order_no)
    item_id: ColumnElement[str] = cast(literal(kind.value), Text)
    for part in about or (merchant, biz_order_no):
        item_id = item_id + "/" + part
    columns = {
        "id": item_id,
        "kind": cast(literal(kind.value), Text),
        "merchant": merchant,
        "biz_order_no": biz_order_no,
        "endpoint": endpoint,
        "event_id": event_id,
        "since": since,
        "changed_at": since if changed_at is None else changed_at,
        "detail": detail,
    }
    return select(*(column.label(name) for name, column in columns.items()))


def _to_item(row: Any) -> AttentionItem:
    return to_record(AttentionItem, row, kind=AttentionKind(row.kind))


def _arguments(*values: str) -> Sequence[str]:
    """Values for a command line, where one that begins with a hyphen must not be taken for an option."""
    return ["--", *values] if any(value.startswith("-") for value in values) else values
