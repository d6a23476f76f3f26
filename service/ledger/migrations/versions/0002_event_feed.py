"""The place of each event in the feed: the number of the transaction that made it.

Events that were there before have the number 0, so they come first. The constant default rewrites no row.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Number the events."""
    op.add_column("events", sa.Column("txid", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("events", "txid", server_default=sa.text("(pg_current_xact_id()::text)::bigint"))
    op.create_index("ix_events_feed", "events", ["txid", "merchant", "biz_order_no", "sequence"])
