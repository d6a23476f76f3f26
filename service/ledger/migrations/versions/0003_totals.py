"""Totals of what the roles count, for charts."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the table; earlier releases do not know it."""
    key = ("resolution_seconds", "series", "starts_at", "merchant", "endpoint", "source", "outcome", "process")
    op.create_table(
        "totals",
        sa.Column("resolution_seconds", sa.Integer, nullable=False),
        sa.Column("series", sa.Text, nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(*key, name="pk_totals"),
    )
