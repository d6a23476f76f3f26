"""What the document requires of a claim and the gateway left out, beside the claim."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add one column, with a default for processes of the release before."""
    op.add_column("claims", sa.Column("missing_fields", sa.Text, nullable=False, server_default=""))
