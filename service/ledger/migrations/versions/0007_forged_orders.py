"""For forged orders, which are removed in time: since when each inquiry has been over as not found."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add a column that may be empty, and its index. What is over already counts from its last question."""
    op.add_column("inquiries", sa.Column("unknown_since", sa.DateTime(timezone=True)))
    op.execute("UPDATE inquiries SET unknown_since = last_asked_at WHERE state = 'not-found'")
    is_unknown = sa.text("unknown_since IS NOT NULL")
    op.create_index(
        "ix_inquiries_unknown",
        "inquiries",
        ["merchant", "unknown_since"],
        postgresql_where=is_unknown,
        sqlite_where=is_unknown,
    )
