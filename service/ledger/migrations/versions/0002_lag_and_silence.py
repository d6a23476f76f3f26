"""For the lag, when an event's claim was stated; for a merchant's silence, an index of what nobody can forge."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add a column that may be empty, and an index. Events that are there already get no time."""
    op.add_column("events", sa.Column("observed_at", sa.DateTime(timezone=True)))
    proven = sa.text("trust > 10")
    op.create_index(
        "ix_claims_proven",
        "claims",
        ["merchant", "source", "recorded_at"],
        postgresql_where=proven,
        sqlite_where=proven,
    )
