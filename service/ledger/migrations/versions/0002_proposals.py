"""Resolutions that wait for a second person."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_IS_OPEN = sa.text("state = 'open'")


def upgrade() -> None:
    """Make the table of proposals."""
    op.create_table(
        "proposals",
        sa.Column("id", _ROW_NUMBER, nullable=False, autoincrement=True),
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("biz_order_no", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("pay_order_no", sa.Text),
        sa.Column("pay_type", sa.Text, nullable=False),
        sa.Column("amount", sa.Text),
        sa.Column("amount_unit", sa.Text),
        sa.Column("paid_at", _TIME),
        sa.Column("proposer", sa.Text, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("proposed_at", _TIME, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("decision_reason", sa.Text, nullable=False),
        sa.Column("decided_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_proposals"),
    )
    op.create_index("ix_proposals_order", "proposals", ["merchant", "biz_order_no", "id"])
    op.create_index(
        "uq_proposals_open",
        "proposals",
        ["merchant", "biz_order_no"],
        unique=True,
        postgresql_where=_IS_OPEN,
        sqlite_where=_IS_OPEN,
    )
