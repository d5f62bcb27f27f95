"""What a fine-tuning job reports to.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("fine_tuning_jobs", sa.Column("integrations", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("fine_tuning_jobs", "integrations")
