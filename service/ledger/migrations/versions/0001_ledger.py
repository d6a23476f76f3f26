"""The ledger of release 0.1.0, final since then. Later changes are migrations of their own.

Written out, not taken from `tables`: a migration says what was, whatever the tables become.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make every table."""
    _orders()
    _claims()
    _withholds()
    _events()
    _deliveries()
    _inquiries()
    _asked_questions()
    _refusals()
    _paused_endpoints()
    _endpoint_tests()
    _acknowledgements()
    _leases()
    _dead_letters()
    _depth_reports()
    _replays()
    _audit()


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def _orders() -> None:
    op.create_table(
        "orders",
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("biz_order_no", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("trust", sa.SmallInteger),
        sa.Column("conflicted", sa.Boolean, nullable=False),
        sa.Column("pay_order_no", sa.Text),
        sa.Column("as_of", _TIME),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("order_type", sa.Text, nullable=False),
        sa.Column("pay_type", sa.Text, nullable=False),
        sa.Column("paid_at", _TIME),
        sa.Column("amount", sa.Text),
        sa.Column("amount_unit", sa.Text),
        sa.Column("disputed", sa.Text),
        sa.Column("disputed_fields", sa.Text),
        sa.Column("announced_pay_type", sa.Text),
        sa.Column("announced_amount", sa.Text),
        sa.Column("announced_at", _TIME),
        sa.Column("answer_due_at", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("merchant", "biz_order_no", name="pk_orders"),
    )
    op.create_index("ix_orders_updated_at", "orders", ["updated_at"])
    op.create_index("ix_orders_merchant_updated_at", "orders", ["merchant", "updated_at"])
    op.create_index("ix_orders_status_updated_at", "orders", ["status", "updated_at"])
    op.create_index("ix_orders_merchant_created_at", "orders", ["merchant", "created_at"])
    op.create_index("ix_orders_conflicted", "orders", ["updated_at"], **_where("conflicted"))
    op.create_index("ix_orders_disputed", "orders", ["created_at"], **_where("disputed_fields IS NOT NULL"))


def _claims() -> None:
    op.create_table(
        "claims",
        sa.Column("id", _ROW_NUMBER, nullable=False, autoincrement=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("biz_order_no", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("trust", sa.SmallInteger, nullable=False),
        sa.Column("counted", sa.Boolean, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("status", sa.Text),
        sa.Column("pay_order_no", sa.Text),
        sa.Column("order_type", sa.Text, nullable=False),
        sa.Column("pay_type", sa.Text, nullable=False),
        sa.Column("paid_at", _TIME),
        sa.Column("amount", sa.Text),
        sa.Column("amount_unit", sa.Text),
        sa.Column("channel_response", sa.Text, nullable=False),
        sa.Column("unknown_fields", sa.Text, nullable=False),
        sa.Column("missing_fields", sa.Text, nullable=False),
        sa.Column("pruned", sa.Boolean, nullable=False),
        sa.Column("stated_at", _TIME, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.Column("quarantine", sa.Text),
        sa.Column("traceparent", sa.Text),
        sa.Column("stated_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_claims"),
    )
    op.create_index(
        "uq_claims_callback",
        "claims",
        ["merchant", "biz_order_no", "digest", "trust", "counted"],
        unique=True,
        **_where("trust < 30"),
    )
    op.create_index("ix_claims_order", "claims", ["merchant", "biz_order_no", "id"])
    op.create_index("ix_claims_source", "claims", ["merchant", "source", "recorded_at"])
    op.create_index("ix_claims_proven", "claims", ["merchant", "source", "recorded_at"], **_where("trust > 10"))
    op.create_index("ix_claims_unpruned", "claims", ["recorded_at"], **_where("NOT pruned"))
    op.create_index("ix_claims_quarantined", "claims", ["recorded_at"], **_where("verdict = 'quarantined'"))


def _withholds() -> None:
    op.create_table(
        "withholds",
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("biz_order_no", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("sent_by", sa.Text, nullable=False),
        sa.Column("sent_at", _TIME, nullable=False),
        sa.Column("settled_at", _TIME),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("refused_at", _TIME),
        sa.Column("rule", sa.Text),
        sa.Column("rule_due_at", _TIME),
        sa.Column("ended_at", _TIME),
        sa.PrimaryKeyConstraint("merchant", "biz_order_no", name="pk_withholds"),
        sa.ForeignKeyConstraint(
            ["merchant", "biz_order_no"],
            ["orders.merchant", "orders.biz_order_no"],
            name="fk_withholds_orders",
        ),
    )
    op.create_index("ix_withholds_refused", "withholds", ["merchant", "refused_at"], **_where("rule IS NOT NULL"))
    op.create_index("ix_withholds_ended", "withholds", ["merchant", "ended_at"], **_where("ended_at IS NOT NULL"))
    op.create_index("ix_withholds_unknown", "withholds", ["sent_at"], **_where("outcome IN ('sending', 'unknown')"))


def _events() -> None:
    txid = "(pg_current_xact_id()::text)::bigint" if op.get_context().dialect.name == "postgresql" else "0"
    op.create_table(
        "events",
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("biz_order_no", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("order_type", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("traceparent", sa.Text),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("observed_at", _TIME),
        # The number of the transaction that made the event, which is its place in the feed. On SQLite the code sets it.
        sa.Column("txid", sa.BigInteger, nullable=False, server_default=sa.text(txid)),
        sa.PrimaryKeyConstraint("merchant", "biz_order_no", "sequence", name="pk_events"),
        sa.UniqueConstraint("id", name="uq_events_id"),
        sa.ForeignKeyConstraint(
            ["merchant", "biz_order_no"],
            ["orders.merchant", "orders.biz_order_no"],
            name="fk_events_orders",
        ),
    )
    op.create_index("ix_events_feed", "events", ["txid", "merchant", "biz_order_no", "sequence"])


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("biz_order_no", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("settled_at", _TIME),
        sa.PrimaryKeyConstraint("merchant", "biz_order_no", "endpoint", "sequence", name="pk_deliveries"),
        sa.ForeignKeyConstraint(
            ["merchant", "biz_order_no", "sequence"],
            ["events.merchant", "events.biz_order_no", "events.sequence"],
            name="fk_deliveries_events",
        ),
    )
    op.create_index("ix_deliveries_due", "deliveries", ["endpoint", "due_at"], **_where("state = 'open'"))
    op.create_index("ix_deliveries_oldest", "deliveries", ["endpoint", "created_at"], **_where("state = 'open'"))
    op.create_index("ix_deliveries_parked", "deliveries", ["endpoint"], **_where("state = 'parked'"))
    op.create_index(
        "ix_deliveries_delivered", "deliveries", ["endpoint", "settled_at"], **_where("state = 'delivered'")
    )


def _inquiries() -> None:
    op.create_table(
        "inquiries",
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("biz_order_no", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reasons", sa.Integer, nullable=False),
        sa.Column("raised", sa.Integer, nullable=False),
        sa.Column("due_at", _TIME),
        sa.Column("doubt_due_at", _TIME),
        sa.Column("not_before", _TIME),
        sa.Column("doubt_not_before", _TIME),
        sa.Column("horizon_at", _TIME, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("doubt_attempts", sa.Integer, nullable=False),
        sa.Column("doubt_repeats", sa.Boolean, nullable=False),
        sa.Column("not_found", sa.SmallInteger, nullable=False),
        sa.Column("last_asked_at", _TIME),
        sa.Column("missing_since", _TIME),
        sa.Column("asked_day", sa.Text, nullable=False),
        sa.Column("asked_today", sa.Integer, nullable=False),
        sa.Column("doubts_today", sa.Integer, nullable=False),
        sa.Column("lease_until", _TIME),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("opened_at", _TIME, nullable=False),
        sa.Column("unknown_since", _TIME),
        sa.PrimaryKeyConstraint("merchant", "biz_order_no", name="pk_inquiries"),
    )
    op.create_index("ix_inquiries_due", "inquiries", ["merchant", "due_at"], **_where("state = 'open'"))
    op.create_index(
        "ix_inquiries_doubts",
        "inquiries",
        ["merchant", "doubt_repeats", "doubt_due_at"],
        **_where("state = 'open'"),
    )
    op.create_index("ix_inquiries_asking", "inquiries", ["merchant", "lease_until"], **_where("state = 'asking'"))
    op.create_index("ix_inquiries_parked", "inquiries", ["merchant"], **_where("state = 'parked'"))
    op.create_index(
        "ix_inquiries_unknown", "inquiries", ["merchant", "unknown_since"], **_where("unknown_since IS NOT NULL")
    )
    op.create_index(
        "ix_inquiries_missing", "inquiries", ["merchant", "missing_since"], **_where("missing_since IS NOT NULL")
    )


def _asked_questions() -> None:
    op.create_table(
        "asked_questions",
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("biz_order_no", sa.Text, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("reasons", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("merchant", "biz_order_no", "fence", name="pk_asked_questions"),
    )
    op.create_index("ix_asked_questions_asked_at", "asked_questions", ["asked_at"])
    op.create_table(
        "inquiry_rates",
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("used_until", _TIME, nullable=False),
        sa.Column("doubts_used_until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("merchant", name="pk_inquiry_rates"),
    )


def _refusals() -> None:
    op.create_table(
        "refusals",
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("callbacks", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("merchant", "day", "reason", "process", name="pk_refusals"),
    )


def _paused_endpoints() -> None:
    op.create_table(
        "paused_endpoints",
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("paused_at", _TIME, nullable=False),
        sa.Column("paused_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name="pk_paused_endpoints"),
    )


def _endpoint_tests() -> None:
    op.create_table(
        "endpoint_tests",
        sa.Column("id", _ROW_NUMBER, nullable=False, autoincrement=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_at", _TIME, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("sent_at", _TIME),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_endpoint_tests"),
    )
    op.create_index("ix_endpoint_tests_requested", "endpoint_tests", ["id"], **_where("state = 'requested'"))


def _acknowledgements() -> None:
    op.create_table(
        "acknowledgements",
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("acknowledged_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("item", name="pk_acknowledgements"),
    )


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("work", sa.Text, nullable=False),
        sa.Column("lease_until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("work", name="pk_leases"),
    )


def _dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("died_at", _TIME, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("requested", sa.Text),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("requested_reason", sa.Text, nullable=False),
        sa.Column("settled_at", _TIME),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
    )
    op.create_index("ix_dead_letters_open", "dead_letters", ["died_at"], **_where("settled_at IS NULL"))


def _depth_reports() -> None:
    op.create_table(
        "depth_reports",
        sa.Column("reporter", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("oldest_at", _TIME),
        sa.Column("reported_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("reporter", name="pk_depth_reports"),
    )


def _replays() -> None:
    op.create_table(
        "replays",
        sa.Column("id", _ROW_NUMBER, nullable=False, autoincrement=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.Column("status", sa.Text),
        sa.Column("order_type", sa.Text),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_at", _TIME, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("per_second", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME),
        sa.Column("txid", sa.BigInteger, nullable=False),
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("biz_order_no", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("last_txid", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replays"),
    )
    op.create_index("ix_replays_due", "replays", ["due_at"], **_where("state = 'running'"))


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _ROW_NUMBER, nullable=False, autoincrement=True),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
