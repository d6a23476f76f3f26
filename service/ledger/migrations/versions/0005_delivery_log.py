"""Keep a log of each delivery, find given-up deliveries by their time, and an order's changes in the audit."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add columns, which earlier releases leave empty, and indexes. Few deliveries were given up."""
    op.add_column("deliveries", sa.Column("log", sa.Text, nullable=False, server_default=""))
    op.add_column("audit", sa.Column("merchant", sa.Text))
    op.add_column("audit", sa.Column("biz_order_no", sa.Text))
    _make_index("ix_audit_order", "audit", ["merchant", "biz_order_no"], "biz_order_no IS NOT NULL")
    op.drop_index("ix_deliveries_parked", "deliveries")
    _make_index("ix_deliveries_parked", "deliveries", ["endpoint", "settled_at"], "state = 'parked'")


def _make_index(name: str, table: str, columns: Sequence[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
