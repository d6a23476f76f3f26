"""For operators: endpoints that are paused, and an index of what was delivered to each last."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Make the table and the index."""
    op.create_table(
        "paused_endpoints",
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paused_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name="pk_paused_endpoints"),
    )
    delivered = sa.text("state = 'delivered'")
    op.create_index(
        "ix_deliveries_delivered",
        "deliveries",
        ["endpoint", "settled_at"],
        postgresql_where=delivered,
        sqlite_where=delivered,
    )
