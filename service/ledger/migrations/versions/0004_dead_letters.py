"""Dead letters, as the ledger knows them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
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
    is_open = sa.text("settled_at IS NULL")
    op.create_index("ix_dead_letters_open", "dead_letters", ["died_at"], postgresql_where=is_open, sqlite_where=is_open)
