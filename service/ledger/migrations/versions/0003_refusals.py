"""For the day's report, how many callbacks were refused."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Make a table; refusals of before are in the receiver's log alone."""
    op.create_table(
        "refusals",
        sa.Column("merchant", sa.Text, nullable=False),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("callbacks", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("merchant", "day", "reason", "process", name="pk_refusals"),
    )
