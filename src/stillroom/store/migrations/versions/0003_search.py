"""Search over stored completions, and indexes for their lists.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OUT_OF_STEP = "abs(number / 1048576000 - created_at) > 60"


def upgrade() -> None:
    op.create_table('search_pending',
    sa.Column('number', ROW_ID, autoincrement=False, nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_search_pending'))
    )
    op.create_table('search_removals',
    sa.Column('number', ROW_ID, autoincrement=False, nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_search_removals'))
    )
    op.execute(
        "CREATE VIRTUAL TABLE completion_search "
        "USING fts5(body, letters, content='', columnsize=0, tokenize='ascii')"
    )
    op.execute("INSERT INTO search_pending (number, project) SELECT number, project FROM completions ORDER BY number")
    # Made after the rows, which is quicker.
    op.create_index('ix_search_pending_project', 'search_pending', ['project'], unique=False)
    _partial('ix_completions_incomplete', 'completions', ['project', 'number'], "status = 'incomplete'")
    _partial('ix_completions_incomplete_model', 'completions', ['project', 'model', 'number'], "status = 'incomplete'")
    _partial('ix_completions_out_of_step', 'completions', ['project', 'created_at', 'number'], OUT_OF_STEP)
    _partial('ix_metadata_pairs_shared', 'metadata_pairs', ['project', 'key', 'count'], "count > 1")
    op.create_index('ix_ledger_project_subject', 'ledger', ['project', 'subject'], unique=False)


def downgrade() -> None:
    op.drop_index('ix_ledger_project_subject', table_name='ledger')
    op.drop_index('ix_metadata_pairs_shared', table_name='metadata_pairs')
    for name in ('out_of_step', 'incomplete_model', 'incomplete'):
        op.drop_index(f'ix_completions_{name}', table_name='completions')
    op.execute("DROP TABLE completion_search")
    op.drop_table('search_removals')
    op.drop_table('search_pending')


def _partial(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=False, sqlite_where=where, postgresql_where=where)
