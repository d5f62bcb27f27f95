"""Evals and their runs, kept answers, budgets and quotes.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table('eval_output_items',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('run', sa.String(length=64), nullable=False),
    sa.Column('item', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('status', sa.String(length=8), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_eval_output_items')),
    sa.UniqueConstraint('id', name=op.f('uq_eval_output_items_id')),
    sa.UniqueConstraint('run', 'item', name=op.f('uq_eval_output_items_run_item'))
    )
    op.create_index('ix_eval_output_items_run_status_item', 'eval_output_items', ['run', 'status', 'item'], unique=False)
    op.create_table('budgets',
    sa.Column('project', ROW_ID, autoincrement=False, nullable=False),
    sa.Column('limit_microusd', sa.BigInteger(), nullable=False),
    sa.Column('period', sa.String(length=8), nullable=False),
    sa.Column('updated_at', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('project', name=op.f('pk_budgets'))
    )
    op.create_table('eval_runs',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('eval', sa.String(length=64), nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('key_id', sa.String(length=64), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('started_at', sa.BigInteger(), nullable=True),
    sa.Column('finished_at', sa.BigInteger(), nullable=True),
    sa.Column('name', sa.String(length=256), nullable=False),
    sa.Column('model', sa.String(length=256), nullable=True),
    sa.Column('metadata', sa.Text(), nullable=True),
    sa.Column('data_source', sa.Text(), nullable=False),
    sa.Column('total', sa.Integer(), nullable=False),
    sa.Column('passed', sa.Integer(), nullable=False),
    sa.Column('failed', sa.Integer(), nullable=False),
    sa.Column('errored', sa.Integer(), nullable=False),
    sa.Column('per_model_usage', sa.Text(), nullable=False),
    sa.Column('per_criterion', sa.Text(), nullable=False),
    sa.Column('lineage', sa.Text(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_eval_runs')),
    sa.UniqueConstraint('id', name=op.f('uq_eval_runs_id'))
    )
    op.create_index('ix_eval_runs_eval_number', 'eval_runs', ['eval', 'number'], unique=False)
    op.create_table('evals',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('updated_at', sa.BigInteger(), nullable=False),
    sa.Column('name', sa.String(length=256), nullable=False),
    sa.Column('metadata', sa.Text(), nullable=True),
    sa.Column('data_source_config', sa.Text(), nullable=False),
    sa.Column('testing_criteria', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_evals')),
    sa.UniqueConstraint('id', name=op.f('uq_evals_id'))
    )
    op.create_index('ix_evals_project_number', 'evals', ['project', 'number'], unique=False)
    op.create_index('ix_evals_project_updated_at_number', 'evals', ['project', 'updated_at', 'number'], unique=False)
    op.create_table('kept_answers',
    sa.Column('project', ROW_ID, autoincrement=False, nullable=False),
    sa.Column('key', sa.LargeBinary(length=255), nullable=False),
    sa.Column('request_hash', sa.LargeBinary(length=32), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('project', 'key', name=op.f('pk_kept_answers'))
    )
    op.create_index('ix_kept_answers_created_at', 'kept_answers', ['created_at'], unique=False)
    op.create_table('quotes',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('model', sa.String(length=256), nullable=False),
    sa.Column('training_file', sa.String(length=64), nullable=True),
    sa.Column('training_digest', sa.String(length=64), nullable=False),
    sa.Column('quote', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_quotes')),
    sa.UniqueConstraint('id', name=op.f('uq_quotes_id'))
    )
    op.create_index('ix_quotes_project_number', 'quotes', ['project', 'number'], unique=False)
    op.add_column('api_keys', sa.Column('acts_for', sa.String(length=64), nullable=True))
    op.add_column('files', sa.Column('selection', sa.Text(), nullable=True))
    op.add_column('fine_tuning_jobs', sa.Column('running_milliseconds', sa.BigInteger(), nullable=True))
    op.add_column('fine_tuning_jobs', sa.Column('training_digest', sa.String(length=64), nullable=True))
    op.add_column('fine_tuning_jobs', sa.Column('selection', sa.Text(), nullable=True))
    op.add_column('ledger', sa.Column('deployment', sa.String(length=256), nullable=True))


def downgrade() -> None:
    op.drop_column('ledger', 'deployment')
    op.drop_column('fine_tuning_jobs', 'selection')
    op.drop_column('fine_tuning_jobs', 'training_digest')
    op.drop_column('fine_tuning_jobs', 'running_milliseconds')
    op.drop_column('files', 'selection')
    op.drop_column('api_keys', 'acts_for')
    op.drop_index('ix_quotes_project_number', table_name='quotes')
    op.drop_table('quotes')
    op.drop_index('ix_kept_answers_created_at', table_name='kept_answers')
    op.drop_table('kept_answers')
    op.drop_index('ix_evals_project_updated_at_number', table_name='evals')
    op.drop_index('ix_evals_project_number', table_name='evals')
    op.drop_table('evals')
    op.drop_index('ix_eval_runs_eval_number', table_name='eval_runs')
    op.drop_table('eval_runs')
    op.drop_table('budgets')
    op.drop_index('ix_eval_output_items_run_status_item', table_name='eval_output_items')
    op.drop_table('eval_output_items')
