"""The whole identity of a payment: amounts of claims, what was announced, and what is in dispute.

Every column may be NULL, since the release before still writes rows during an upgrade.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the columns. No row is rewritten."""
    for table, names in (
        ("orders", ("disputed", "disputed_fields", "announced_pay_type", "announced_amount")),
        ("claims", ("amount", "amount_unit")),
    ):
        for name in names:
            op.add_column(table, sa.Column(name, sa.Text))
    ever_disputed = sa.text("disputed_fields IS NOT NULL")
    op.create_index(
        "ix_orders_disputed", "orders", ["created_at"], postgresql_where=ever_disputed, sqlite_where=ever_disputed
    )
