"""Replays of a window of events, and the audit of what operators change."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make both tables."""
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
    running = sa.text("state = 'running'")
    op.create_index("ix_replays_due", "replays", ["due_at"], postgresql_where=running, sqlite_where=running)
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
