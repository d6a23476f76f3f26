"""The ledger's tables and what they mean. `migrations` creates them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar, get_args

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    ForeignKeyConstraint,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Row,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal,
    text,
    tuple_,
)
from sqlalchemy.types import TypeDecorator

from service.domain.claims import OrderKey

_Record = TypeVar("_Record")

#: A row number that the database generates.
RowNumber = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, to the microsecond, read back in UTC.

    PostgreSQL stores `timestamptz`. SQLite stores text in UTC with a fixed width, which sorts as the times do. A naive
    time is a TypeError.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert an aware time to what the database stores."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError(f"a time without a zone: {value.isoformat()}")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """Convert what the database stores to an aware time in UTC."""
        if value is None:
            return None
        stored: datetime = value
        return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored.astimezone(UTC)


#: Every table of the ledger.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


#: What is believed of an order. A committed row is never deleted: without it, a replayed old callback would pay again.
orders = Table(
    "orders",
    metadata,
    Column("merchant", Text, nullable=False),
    Column("biz_order_no", Text, nullable=False),
    Column("status", Text, nullable=False),
    # NULL while only announced.
    Column("trust", SmallInteger),
    Column("conflicted", Boolean, nullable=False),
    Column("pay_order_no", Text),
    Column("as_of", UtcDateTime),
    # The number of the last event; 0 before the first.
    Column("sequence", Integer, nullable=False),
    # As they stand: as accepted claims state them or, before them, as announced.
    Column("order_type", Text, nullable=False),
    Column("pay_type", Text, nullable=False),
    Column("paid_at", UtcDateTime),
    Column("amount", Text),
    Column("amount_unit", Text),
    # A JSON array of pairs, a field in dispute and the value that contradicts what stands; NULL for none.
    Column("disputed", Text),
    # Names of the fields that were ever in dispute, sorted and separated by blanks; NULL for none.
    Column("disputed_fields", Text),
    # As announced, the amount in amount_unit. The pay type is "" where it was announced without one, and NULL where the
    # order was not announced.
    Column("announced_pay_type", Text),
    Column("announced_amount", Text),
    Column("announced_at", UtcDateTime),
    Column("answer_due_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("merchant", "biz_order_no"),
    Index("ix_orders_updated_at", "updated_at"),
    Index("ix_orders_merchant_updated_at", "merchant", "updated_at"),
    Index("ix_orders_status_updated_at", "status", "updated_at"),
    Index("ix_orders_merchant_created_at", "merchant", "created_at"),
    # For people who search: by the gateway's number, and by amount.
    Index("ix_orders_pay_order_no", "pay_order_no", **_where("pay_order_no IS NOT NULL")),
    Index("ix_orders_amount", "amount", "updated_at", **_where("amount IS NOT NULL")),
    Index("ix_orders_conflicted", "updated_at", **_where("conflicted")),
    Index("ix_orders_disputed", "created_at", **_where("disputed_fields IS NOT NULL")),
)

#: Every claim about an order, believed or not. No foreign key: a claim that is not believed creates no order.
claims = Table(
    "claims",
    metadata,
    Column("id", RowNumber, nullable=False, autoincrement=True),
    # Its place in its batch.
    Column("position", Integer, nullable=False),
    Column("merchant", Text, nullable=False),
    Column("biz_order_no", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("trust", SmallInteger, nullable=False),
    # Whether it was readable and trusted enough when it came. Part of the key: a repeat that counts only after a change
    # of the settings is not skipped.
    Column("counted", Boolean, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("status", Text),
    Column("pay_order_no", Text),
    Column("order_type", Text, nullable=False),
    Column("pay_type", Text, nullable=False),
    Column("amount", Text),
    Column("amount_unit", Text),
    Column("paid_at", UtcDateTime),
    Column("channel_response", Text, nullable=False),
    # A JSON object.
    Column("unknown_fields", Text, nullable=False),
    # Names of fields that the document requires and that are missing, separated by blanks.
    Column("missing_fields", Text, nullable=False),
    # Whether channel_response and unknown_fields were removed because of their age.
    Column("pruned", Boolean, nullable=False),
    Column("stated_at", UtcDateTime, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("quarantine", Text),
    Column("traceparent", Text),
    Column("stated_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("id"),
    Index("ix_claims_order", "merchant", "biz_order_no", "id"),
    Index("ix_claims_source", "merchant", "source", "recorded_at"),
    # Claims that nobody can forge, however many others there are.
    Index("ix_claims_proven", "merchant", "source", "recorded_at", **_where("trust > 10")),
    Index("ix_claims_unpruned", "recorded_at", **_where("NOT pruned")),
    Index("ix_claims_quarantined", "recorded_at", **_where("verdict = 'quarantined'")),
)

#: What makes a callback a repeat. Answers (30) and resolutions (40) are never repeats of one another.
repeated_callback = Index(
    "uq_claims_callback",
    *(claims.c[name] for name in ("merchant", "biz_order_no", "digest", "trust", "counted")),
    unique=True,
    **_where("trust < 30"),
)

#: The withhold of an order that we sent to the gateway.
withholds = Table(
    "withholds",
    metadata,
    Column("merchant", Text, nullable=False),
    Column("biz_order_no", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("sent_by", Text, nullable=False),
    Column("sent_at", UtcDateTime, nullable=False),
    Column("settled_at", UtcDateTime),
    Column("detail", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    # When the gateway answered -1; NULL where it did not.
    Column("refused_at", UtcDateTime),
    # The rule (RefusalRule) that is to end the order, or has ended it; NULL where none was on.
    Column("rule", Text),
    # From when the order needs a person if the rule has not ended it by then.
    Column("rule_due_at", UtcDateTime),
    # When the rule has ended the order.
    Column("ended_at", UtcDateTime),
    PrimaryKeyConstraint("merchant", "biz_order_no"),
    ForeignKeyConstraint(["merchant", "biz_order_no"], ["orders.merchant", "orders.biz_order_no"]),
    Index("ix_withholds_refused", "merchant", "refused_at", **_where("rule IS NOT NULL")),
    Index("ix_withholds_ended", "merchant", "ended_at", **_where("ended_at IS NOT NULL")),
    Index("ix_withholds_unknown", "sent_at", **_where("outcome IN ('sending', 'unknown')")),
)

#: Events, with the bytes that are sent downstream.
events = Table(
    "events",
    metadata,
    Column("merchant", Text, nullable=False),
    Column("biz_order_no", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("order_type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("traceparent", Text),
    # When the claim behind it was stated.
    Column("observed_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    # The number of the transaction that made it. PostgreSQL gives it by default, and `outbox` on SQLite.
    Column("txid", BigInteger, nullable=False),
    PrimaryKeyConstraint("merchant", "biz_order_no", "sequence"),
    UniqueConstraint("id"),
    Index("ix_events_feed", "txid", "merchant", "biz_order_no", "sequence"),
    ForeignKeyConstraint(["merchant", "biz_order_no"], ["orders.merchant", "orders.biz_order_no"]),
)

#: An event's place in the feed.
FEED_PLACE = (events.c.txid, events.c.merchant, events.c.biz_order_no, events.c.sequence)

#: One event on its way to one endpoint.
deliveries = Table(
    "deliveries",
    metadata,
    Column("merchant", Text, nullable=False),
    Column("biz_order_no", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("state", Text, nullable=False),
    # When it may be leased next: a lease moves the due time into the future.
    Column("due_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    # The fencing token: counts leases and replays; a settlement with an older number is refused.
    Column("fence", Integer, nullable=False),
    Column("last_error", Text, nullable=False),
    # Failed tries and replays, as delivery_log.py writes them.
    Column("log", Text, nullable=False, server_default=""),
    Column("created_at", UtcDateTime, nullable=False),
    Column("settled_at", UtcDateTime),
    PrimaryKeyConstraint("merchant", "biz_order_no", "endpoint", "sequence"),
    ForeignKeyConstraint(
        ["merchant", "biz_order_no", "sequence"],
        ["events.merchant", "events.biz_order_no", "events.sequence"],
    ),
    Index("ix_deliveries_due", "endpoint", "due_at", **_where("state = 'open'")),
    Index("ix_deliveries_oldest", "endpoint", "created_at", **_where("state = 'open'")),
    Index("ix_deliveries_parked", "endpoint", "settled_at", **_where("state = 'parked'")),
    # For showing when an endpoint last accepted an event.
    Index("ix_deliveries_delivered", "endpoint", "settled_at", **_where("state = 'delivered'")),
)

#: The condition that a row of events is the one that a row of deliveries delivers.
HAS_EVENT = and_(
    events.c.merchant == deliveries.c.merchant,
    events.c.biz_order_no == deliveries.c.biz_order_no,
    events.c.sequence == deliveries.c.sequence,
)

#: Endpoints to which nothing is sent until an operator resumes them.
paused_endpoints = Table(
    "paused_endpoints",
    metadata,
    Column("endpoint", Text, nullable=False),
    Column("paused_at", UtcDateTime, nullable=False),
    Column("paused_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("endpoint"),
)

#: Tests of endpoints that operators have requested, and their outcomes.
endpoint_tests = Table(
    "endpoint_tests",
    metadata,
    Column("id", RowNumber, nullable=False, autoincrement=True),
    Column("endpoint", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("sent_at", UtcDateTime),
    Column("event_id", Text, nullable=False),
    # Masked and cut.
    Column("answer", Text, nullable=False),
    Column("seconds", Float),
    PrimaryKeyConstraint("id"),
    Index("ix_endpoint_tests_requested", "id", **_where("state = 'requested'")),
)

#: Windows of events that are sent to an endpoint again, part by part.
replays = Table(
    "replays",
    metadata,
    Column("id", RowNumber, nullable=False, autoincrement=True),
    Column("endpoint", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("status", Text),
    Column("order_type", Text),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("per_second", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    # When its next part may be due again.
    Column("due_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    # The place in the feed up to which it is done, and the last transaction of the window.
    Column("txid", BigInteger, nullable=False),
    Column("merchant", Text, nullable=False),
    Column("biz_order_no", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("last_txid", BigInteger, nullable=False),
    PrimaryKeyConstraint("id"),
    Index("ix_replays_due", "due_at", **_where("state = 'running'")),
)

#: Resolutions that wait for a second person, and those that have waited.
proposals = Table(
    "proposals",
    metadata,
    Column("id", RowNumber, nullable=False, autoincrement=True),
    Column("merchant", Text, nullable=False),
    Column("biz_order_no", Text, nullable=False),
    # The order's when it was proposed.
    Column("sequence", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("pay_order_no", Text),
    Column("pay_type", Text, nullable=False),
    Column("amount", Text),
    Column("amount_unit", Text),
    Column("paid_at", UtcDateTime),
    # The identity of the person, which is compared, and the name that records show.
    Column("proposer", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_at", UtcDateTime, nullable=False),
    # A ProposalState. An open one has lapsed as well once the order has another sequence.
    Column("state", Text, nullable=False),
    # Who confirmed or withdrew it, and why it was withdrawn; "" otherwise.
    Column("decided_by", Text, nullable=False),
    Column("decision_reason", Text, nullable=False),
    Column("decided_at", UtcDateTime),
    PrimaryKeyConstraint("id"),
    Index("ix_proposals_order", "merchant", "biz_order_no", "id"),
)

#: An order has one open proposal at most.
open_proposal = Index(
    "uq_proposals_open", proposals.c.merchant, proposals.c.biz_order_no, unique=True, **_where("state = 'open'")
)

#: What people have changed, requested or decided. Decisions are claims and proposals of their order as well.
audit = Table(
    "audit",
    metadata,
    Column("id", RowNumber, nullable=False, autoincrement=True),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    # Where it concerns one order.
    Column("merchant", Text),
    Column("biz_order_no", Text),
    PrimaryKeyConstraint("id"),
    Index("ix_audit_order", "merchant", "biz_order_no", **_where("biz_order_no IS NOT NULL")),
)

#: The inquiry about an order. There is one row per order, so that a new reason does not reset the counts; only a forged
#: order's row is removed (`forgeries`).
inquiries = Table(
    "inquiries",
    metadata,
    Column("merchant", Text, nullable=False),
    Column("biz_order_no", Text, nullable=False),
    Column("state", Text, nullable=False),
    # A set of InquiryReason.
    Column("reasons", Integer, nullable=False),
    # Counts raised reasons: an answer settles only those raised before the question.
    Column("raised", Integer, nullable=False),
    # When the order is owed an answer, and when a doubt is due; never both NULL.
    Column("due_at", UtcDateTime),
    Column("doubt_due_at", UtcDateTime),
    # The earliest next question and doubt by the minimum interval and the daily maxima; NULL before the first question.
    Column("not_before", UtcDateTime),
    Column("doubt_not_before", UtcDateTime),
    Column("horizon_at", UtcDateTime, nullable=False),
    # Since the inquiry was last opened: questions that were owed, and doubts.
    Column("attempts", Integer, nullable=False),
    Column("doubt_attempts", Integer, nullable=False),
    # Whether the next doubt only repeats the last: no new claim has come since.
    Column("doubt_repeats", Boolean, nullable=False),
    # Since it was last opened, while the order was owed no answer: answers that the gateway does not have the order.
    Column("not_found", SmallInteger, nullable=False),
    Column("last_asked_at", UtcDateTime),
    # Since when the gateway answers that it does not have the order, although it accepted it or a trusted claim called
    # it processing or succeeded; NULL otherwise, and where no rule for refused withholds is on.
    Column("missing_since", UtcDateTime),
    # The day (UTC, YYYY-MM-DD) that asked_today and, of these, doubts_today count.
    Column("asked_day", Text, nullable=False),
    Column("asked_today", Integer, nullable=False),
    Column("doubts_today", Integer, nullable=False),
    Column("lease_until", UtcDateTime),
    Column("fence", Integer, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    # Since when it is `not-found`, or the last claim after that: a forged order is removed some time after it. NULL in
    # every other state, and where the order was found to have a row.
    Column("unknown_since", UtcDateTime),
    PrimaryKeyConstraint("merchant", "biz_order_no"),
    Index("ix_inquiries_due", "merchant", "due_at", **_where("state = 'open'")),
    Index("ix_inquiries_doubts", "merchant", "doubt_repeats", "doubt_due_at", **_where("state = 'open'")),
    Index("ix_inquiries_asking", "merchant", "lease_until", **_where("state = 'asking'")),
    Index("ix_inquiries_parked", "merchant", **_where("state = 'parked'")),
    Index("ix_inquiries_unknown", "merchant", "unknown_since", **_where("unknown_since IS NOT NULL")),
    Index("ix_inquiries_missing", "merchant", "missing_since", **_where("missing_since IS NOT NULL")),
)

#: Every question asked, written before it is sent.
asked_questions = Table(
    "asked_questions",
    metadata,
    Column("merchant", Text, nullable=False),
    Column("biz_order_no", Text, nullable=False),
    # The inquiry's fencing token while it was asked.
    Column("fence", Integer, nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    # A set of InquiryReason.
    Column("reasons", Integer, nullable=False),
    # NULL until it is settled, and for ever where the process has died.
    Column("outcome", Text),
    Column("request_id", Text, nullable=False),
    Column("seconds", Float),
    Column("detail", Text, nullable=False),
    PrimaryKeyConstraint("merchant", "biz_order_no", "fence"),
    Index("ix_asked_questions_asked_at", "asked_at"),
)

#: How far each merchant's rate of questions is used, for all processes together.
inquiry_rates = Table(
    "inquiry_rates",
    metadata,
    Column("merchant", Text, nullable=False),
    # Every question moves it on by one interval; it is at most one burst behind the present.
    Column("used_until", UtcDateTime, nullable=False),
    # The same for doubts, whose interval is longer.
    Column("doubts_used_until", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("merchant"),
)

#: How many callbacks each process of the receiver has refused, by day and reason.
refusals = Table(
    "refusals",
    metadata,
    # "" where the address named no configured merchant.
    Column("merchant", Text, nullable=False),
    # In the merchant's own time zone, YYYY-MM-DD.
    Column("day", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("process", Text, nullable=False),
    # The number so far, which only grows.
    Column("callbacks", BigInteger, nullable=False),
    PrimaryKeyConstraint("merchant", "day", "reason", "process"),
)

#: How often something happened in five minutes and in an hour (`totals`), by the process that counted it.
totals = Table(
    "totals",
    metadata,
    # How long the bucket lasts, and what is counted in it.
    Column("resolution_seconds", Integer, nullable=False),
    Column("series", Text, nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    # "" where the series does not have the label.
    Column("merchant", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    # Made anew at each start, so that no two processes wait for each other's row.
    Column("process", Text, nullable=False),
    Column("value", BigInteger, nullable=False),
    PrimaryKeyConstraint(
        "resolution_seconds", "series", "starts_at", "merchant", "endpoint", "source", "outcome", "process"
    ),
)

#: Items of the attention list that a person has seen. Each holds until its item changes.
acknowledgements = Table(
    "acknowledgements",
    metadata,
    # The id of the item.
    Column("item", Text, nullable=False),
    # When the item had last changed.
    Column("changed_at", UtcDateTime, nullable=False),
    Column("name", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("acknowledged_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("item"),
)

#: Work that one process at a time may do, and until when it is leased. No row: nobody has done it yet.
leases = Table(
    "leases",
    metadata,
    Column("work", Text, nullable=False),
    Column("lease_until", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("work"),
)

#: Messages that could not be recorded. The messages themselves are in the queue; rows of settled ones are kept.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("died_at", UtcDateTime, nullable=False),
    # Masked and cut.
    Column("body", Text, nullable=False),
    # What a person wants done: a DeadLetterAction.
    Column("requested", Text),
    Column("requested_by", Text, nullable=False),
    Column("requested_reason", Text, nullable=False),
    # When it was replayed, dropped, or found to be gone; NULL until then.
    Column("settled_at", UtcDateTime),
    Column("outcome", Text, nullable=False),
    PrimaryKeyConstraint("id"),
    Index("ix_dead_letters_open", "died_at", **_where("settled_at IS NULL")),
)

#: What each spool and the queue last reported of its depth.
depth_reports = Table(
    "depth_reports",
    metadata,
    Column("reporter", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("messages", BigInteger, nullable=False),
    # When the oldest message came in; where the reporter does not know that, since when it was not seen empty. NULL
    # where it is empty.
    Column("oldest_at", UtcDateTime),
    Column("reported_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("reporter"),
)


def about_order(table: FromClause, order: OrderKey) -> ColumnElement[bool]:
    """Whether a row of `table` is about this order."""
    return and_(table.c.merchant == order.merchant, table.c.biz_order_no == order.biz_order_no)


def about_same_order(table: FromClause, other: FromClause = orders) -> ColumnElement[bool]:
    """Whether a row of `table` is about the same order as one of the other table."""
    return and_(table.c.merchant == other.c.merchant, table.c.biz_order_no == other.c.biz_order_no)


def comes_after(columns: Sequence[ColumnElement[Any]], place: Sequence[object]) -> ColumnElement[bool]:
    """Whether a row comes after `place` in a list that is sorted by these columns."""
    reached = (literal(value, column.type) for column, value in zip(columns, place, strict=True))
    return tuple_(*columns) > tuple_(*reached)


def to_record(record: type[_Record], row: Row[Any], **converted: Any) -> _Record:
    """Make a dataclass from the columns with its fields' names, and from those values that were `converted`.

    A column whose field is of an enumeration becomes its member.
    """
    for name, enumeration in _fields(record).items():  # type: ignore[arg-type]  # every class is hashable
        if name not in converted:
            value = row._mapping[name]
            converted[name] = value if enumeration is None or value is None else enumeration(value)
    return record(**converted)


@cache
def _fields(record: type) -> Mapping[str, type[Enum] | None]:
    """The names of a dataclass's fields, each with the enumeration that it is of, if it is of one."""
    kinds = {field.name: get_args(field.type) or (field.type,) for field in fields(record)}
    return {
        name: next((kind for kind in alternatives if isinstance(kind, type) and issubclass(kind, Enum)), None)
        for name, alternatives in kinds.items()
    }
