"""Indexes for people who search orders: by the gateway's number, and by amount."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Make both. Writing orders waits meanwhile, about two seconds for a million of them; receiving goes on."""
    _make("ix_orders_pay_order_no", ["pay_order_no"], "pay_order_no IS NOT NULL")
    _make("ix_orders_amount", ["amount", "updated_at"], "amount IS NOT NULL")


def _make(name: str, columns: Sequence[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "orders", columns, postgresql_where=where, sqlite_where=where)
