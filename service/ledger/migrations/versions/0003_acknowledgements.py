"""Acknowledgements of what waits for a person, and the indexes that find it."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table and the indexes."""
    op.create_table(
        "acknowledgements",
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("acknowledged_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("item", name="pk_acknowledgements"),
    )
    op.create_index("ix_claims_quarantined", "claims", ["recorded_at"], **_where("verdict = 'quarantined'"))
    op.create_index("ix_withholds_unknown", "withholds", ["sent_at"], **_where("outcome IN ('sending', 'unknown')"))


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}
