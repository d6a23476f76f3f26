"""Keep a log of each delivery, and find the given-up deliveries of an endpoint by their time."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the column, which earlier releases leave empty, and replace the index. Few deliveries were given up."""
    op.add_column("deliveries", sa.Column("log", sa.Text, nullable=False, server_default=""))
    where = sa.text("state = 'parked'")
    op.drop_index("ix_deliveries_parked", "deliveries")
    op.create_index(
        "ix_deliveries_parked", "deliveries", ["endpoint", "settled_at"], postgresql_where=where, sqlite_where=where
    )
