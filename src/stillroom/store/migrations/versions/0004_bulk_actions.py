"""Bulk actions, jobs that wait for their time, and the way from a prefix to its completions.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table('bulk_actions',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('action', sa.String(length=16), nullable=False),
    sa.Column('chosen', sa.Text(), nullable=False),
    sa.Column('bound', sa.BigInteger(), nullable=False),
    sa.Column('not_yet', sa.Text(), nullable=False),
    sa.Column('changes', sa.Text(), nullable=True),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('starts_at', sa.BigInteger(), nullable=False),
    sa.Column('started_at', sa.BigInteger(), nullable=True),
    sa.Column('finished_at', sa.BigInteger(), nullable=True),
    sa.Column('matched', sa.BigInteger(), nullable=True),
    sa.Column('position', sa.BigInteger(), nullable=False),
    sa.Column('done', sa.BigInteger(), nullable=False),
    sa.Column('not_found', sa.BigInteger(), nullable=False),
    sa.Column('too_many_pairs', sa.BigInteger(), nullable=False),
    sa.Column('error', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_bulk_actions')),
    sa.UniqueConstraint('id', name=op.f('uq_bulk_actions_id'))
    )
    op.create_index('ix_bulk_actions_project_number', 'bulk_actions', ['project', 'number'], unique=False)
    op.create_index('ix_bulk_actions_finished_at', 'bulk_actions', ['finished_at'], unique=False)
    op.add_column('jobs', sa.Column('not_before', sa.BigInteger(), server_default='0', nullable=False))
    op.create_index('ix_completions_prefix', 'completions', ['prefix'], unique=False)


def downgrade() -> None:
    op.drop_index('ix_completions_prefix', table_name='completions')
    op.drop_column('jobs', 'not_before')
    op.drop_index('ix_bulk_actions_finished_at', table_name='bulk_actions')
    op.drop_index('ix_bulk_actions_project_number', table_name='bulk_actions')
    op.drop_table('bulk_actions')
