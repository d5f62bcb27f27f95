"""What a fine-tuning job learns by, the soft labels of stored completions, and prompts that models know by heart.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column(
        "fine_tuning_jobs", sa.Column("method", sa.String(length=16), nullable=False, server_default="supervised")
    )
    op.add_column("fine_tuning_jobs", sa.Column("teacher", sa.String(length=256), nullable=True))
    op.create_table(
        "soft_labels",
        sa.Column("completion", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("alternatives", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["completion"], ["completions.number"]),
        sa.PrimaryKeyConstraint("completion", name=op.f("pk_soft_labels")),
    )
    op.add_column("models", sa.Column("dropped_prompt", sa.Text(), nullable=True))
    op.add_column("models", sa.Column("dropped_prompt_tokens", sa.Integer(), nullable=True))
    for name in ("ledger", "ledger_days"):
        op.add_column(name, sa.Column("saved_tokens", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    for name in ("ledger_days", "ledger"):
        op.drop_column(name, "saved_tokens")
    op.drop_column("models", "dropped_prompt_tokens")
    op.drop_column("models", "dropped_prompt")
    op.drop_table("soft_labels")
    op.drop_column("fine_tuning_jobs", "teacher")
    op.drop_column("fine_tuning_jobs", "method")
