"""For floods of forgeries: which doubts were asked about before, and how often the gateway knew of no such order."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add two columns, with defaults for processes of the release before, and the index that has one of them."""
    op.add_column("inquiries", sa.Column("doubt_repeats", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("inquiries", sa.Column("not_found", sa.SmallInteger, nullable=False, server_default=sa.text("0")))
    op.execute("UPDATE inquiries SET doubt_repeats = TRUE WHERE state = 'open' AND last_asked_at IS NOT NULL")
    is_open = sa.text("state = 'open'")
    op.create_index(
        "ix_inquiries_doubts",
        "inquiries",
        ["merchant", "doubt_repeats", "doubt_due_at"],
        postgresql_where=is_open,
        sqlite_where=is_open,
    )
    op.drop_index("ix_inquiries_doubt_due", "inquiries")
