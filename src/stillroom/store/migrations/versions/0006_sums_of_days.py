"""The ledger's sums by day, and a project's runs in order.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COUNTED = ("prompt_tokens", "cached_tokens", "completion_tokens", "trained_tokens", "hosted_seconds")


def upgrade() -> None:
    op.create_table(
        "ledger_days",
        sa.Column("number", ROW_ID, nullable=False),
        sa.Column("project", ROW_ID, nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("deployment", sa.String(length=256), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        *[sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTED],
        sa.Column("cost_microusd", sa.BigInteger(), nullable=False),
        sa.Column("cost_rest_picousd", sa.BigInteger(), nullable=False),
        sa.Column("folded_to", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.id"]),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_ledger_days")),
        sa.UniqueConstraint(
            "project",
            "day",
            "kind",
            "model",
            "deployment",
            "key_id",
            name=op.f("uq_ledger_days_project_day_kind_model_deployment_key_id"),
        ),
    )
    op.create_index("ix_ledger_days_folded_to", "ledger_days", ["folded_to"])
    _fold_what_there_is()
    op.create_index("ix_eval_runs_project_number", "eval_runs", ["project", "number"])


def downgrade() -> None:
    op.drop_index("ix_eval_runs_project_number", table_name="eval_runs")
    op.drop_table("ledger_days")


def _fold_what_there_is() -> None:
    op.execute(
        """
        INSERT INTO ledger_days (
            project, day, kind, model, deployment, key_id, events,
            prompt_tokens, cached_tokens, completion_tokens, trained_tokens, hosted_seconds,
            cost_microusd, cost_rest_picousd, folded_to
        )
        SELECT
            project, created_at / 86400, kind, model, coalesce(deployment, ''), coalesce(key_id, ''), count(*),
            sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), sum(trained_tokens), sum(hosted_seconds),
            sum(cost_picousd / 1000000), sum(cost_picousd % 1000000), (SELECT max(id) FROM ledger)
        FROM ledger
        GROUP BY 1, 2, 3, 4, 5, 6
        """
    )
