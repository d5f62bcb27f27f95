"""The first schema: projects and keys, completions, files, jobs, models, deployments, the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table('fine_tuning_checkpoints',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('job', sa.String(length=64), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('step', sa.Integer(), nullable=False),
    sa.Column('openai_name', sa.String(length=256), nullable=False),
    sa.Column('azure_name', sa.String(length=256), nullable=False),
    sa.Column('metrics', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('number', name='pk_fine_tuning_checkpoints'),
    sa.UniqueConstraint('id', name='uq_fine_tuning_checkpoints_id')
    )
    op.create_index('ix_fine_tuning_checkpoints_job_number', 'fine_tuning_checkpoints', ['job', 'number'], unique=False)
    op.create_table('fine_tuning_events',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('job', sa.String(length=64), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('level', sa.String(length=8), nullable=False),
    sa.Column('type', sa.String(length=8), nullable=False),
    sa.Column('message', sa.Text(), nullable=False),
    sa.Column('data', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('number', name='pk_fine_tuning_events'),
    sa.UniqueConstraint('id', name='uq_fine_tuning_events_id')
    )
    op.create_index('ix_fine_tuning_events_job_number', 'fine_tuning_events', ['job', 'number'], unique=False)
    op.create_table('projects',
    sa.Column('id', ROW_ID, nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name='pk_projects'),
    sa.UniqueConstraint('name', name='uq_projects_name')
    )
    op.create_table('api_keys',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('hash', sa.String(length=64), nullable=False),
    sa.Column('shown', sa.String(length=64), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('revoked_at', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('id', name='pk_api_keys'),
    sa.UniqueConstraint('hash', name='uq_api_keys_hash')
    )
    op.create_table('deployments',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('name', sa.String(length=256), nullable=False),
    sa.Column('model', sa.String(length=256), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('extra', sa.Text(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('updated_at', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name='pk_deployments'),
    sa.UniqueConstraint('project', 'name', name='uq_deployments_project_name')
    )
    op.create_table('files',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('filename', sa.String(length=255), nullable=False),
    sa.Column('purpose', sa.String(length=32), nullable=False),
    sa.Column('bytes', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('expires_at', sa.BigInteger(), nullable=True),
    sa.Column('status', sa.String(length=16), nullable=False),
    sa.Column('status_details', sa.Text(), nullable=True),
    sa.Column('examples', sa.Integer(), nullable=True),
    sa.Column('image_line', sa.Integer(), nullable=True),
    sa.Column('preference_line', sa.Integer(), nullable=True),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name='pk_files'),
    sa.UniqueConstraint('id', name='uq_files_id')
    )
    op.create_index('ix_files_project_number', 'files', ['project', 'number'], unique=False)
    op.create_table('fine_tuning_jobs',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('finished_at', sa.BigInteger(), nullable=True),
    sa.Column('estimated_finish', sa.BigInteger(), nullable=True),
    sa.Column('model', sa.String(length=256), nullable=False),
    sa.Column('base', sa.String(length=256), nullable=False),
    sa.Column('openai_name', sa.String(length=256), nullable=False),
    sa.Column('azure_name', sa.String(length=256), nullable=False),
    sa.Column('suffix', sa.String(length=64), nullable=True),
    sa.Column('seed', sa.BigInteger(), nullable=False),
    sa.Column('training_file', sa.String(length=64), nullable=False),
    sa.Column('validation_file', sa.String(length=64), nullable=True),
    sa.Column('hyperparameters', sa.Text(), nullable=False),
    sa.Column('metadata', sa.Text(), nullable=True),
    sa.Column('result_files', sa.Text(), nullable=False),
    sa.Column('trained_tokens', sa.BigInteger(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name='pk_fine_tuning_jobs'),
    sa.UniqueConstraint('id', name='uq_fine_tuning_jobs_id')
    )
    op.create_index('ix_fine_tuning_jobs_project_number', 'fine_tuning_jobs', ['project', 'number'], unique=False)
    op.create_table('jobs',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('subject', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('wish', sa.String(length=16), nullable=False),
    sa.Column('worker', sa.String(length=64), nullable=True),
    sa.Column('fence', sa.Integer(), nullable=False),
    sa.Column('heartbeat', sa.Integer(), nullable=False),
    sa.Column('crashes', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name='pk_jobs'),
    sa.UniqueConstraint('subject', name='uq_jobs_subject')
    )
    op.create_index('ix_jobs_state_number', 'jobs', ['state', 'number'], unique=False)
    op.create_table('ledger',
    sa.Column('id', ROW_ID, nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('model', sa.String(length=256), nullable=False),
    sa.Column('key_id', sa.String(length=64), nullable=True),
    sa.Column('subject', sa.String(length=64), nullable=True),
    sa.Column('prompt_tokens', sa.BigInteger(), nullable=False),
    sa.Column('cached_tokens', sa.BigInteger(), nullable=False),
    sa.Column('completion_tokens', sa.BigInteger(), nullable=False),
    sa.Column('trained_tokens', sa.BigInteger(), nullable=False),
    sa.Column('hosted_seconds', sa.BigInteger(), nullable=False),
    sa.Column('estimated', sa.Boolean(), nullable=False),
    sa.Column('cost_picousd', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('id', name='pk_ledger')
    )
    op.create_index('ix_ledger_project_created_at', 'ledger', ['project', 'created_at'], unique=False)
    op.create_table('metadata_pairs',
    sa.Column('id', ROW_ID, nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('value', sa.String(length=512), nullable=False),
    sa.Column('count', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('id', name='pk_metadata_pairs'),
    sa.UniqueConstraint('project', 'key', 'value', name='uq_metadata_pairs_project_key_value')
    )
    op.create_table('models',
    sa.Column('number', ROW_ID, nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('openai_name', sa.String(length=256), nullable=False),
    sa.Column('azure_name', sa.String(length=256), nullable=False),
    sa.Column('base', sa.String(length=256), nullable=False),
    sa.Column('job', sa.String(length=64), nullable=False),
    sa.Column('step', sa.Integer(), nullable=True),
    sa.Column('blob', sa.String(length=128), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name='pk_models'),
    sa.UniqueConstraint('project', 'azure_name', name='uq_models_project_azure_name'),
    sa.UniqueConstraint('project', 'openai_name', name='uq_models_project_openai_name')
    )
    op.create_table('prefixes',
    sa.Column('id', ROW_ID, nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('hash', sa.LargeBinary(length=32), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.Column('references', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('id', name='pk_prefixes'),
    sa.UniqueConstraint('project', 'hash', name='uq_prefixes_project_hash')
    )
    op.create_table('completions',
    sa.Column('number', ROW_ID, autoincrement=False, nullable=False),
    sa.Column('project', ROW_ID, nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('model', sa.String(length=256), nullable=False),
    sa.Column('status', sa.String(length=16), nullable=False),
    sa.Column('prefix', ROW_ID, nullable=False),
    sa.Column('prompt_tokens', sa.Integer(), nullable=False),
    sa.Column('completion_tokens', sa.Integer(), nullable=False),
    sa.Column('first_token_ms', sa.Integer(), nullable=False),
    sa.Column('latency_ms', sa.Integer(), nullable=False),
    sa.Column('metadata', sa.Text(), nullable=False),
    sa.Column('dictionary', sa.Integer(), nullable=True),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['prefix'], ['prefixes.id'], ),
    sa.ForeignKeyConstraint(['project'], ['projects.id'], ),
    sa.PrimaryKeyConstraint('number', name='pk_completions')
    )
    op.create_index('ix_completions_project_model_number', 'completions', ['project', 'model', 'number'], unique=False)
    op.create_index('ix_completions_project_number', 'completions', ['project', 'number'], unique=False)
    op.create_table('completion_metadata',
    sa.Column('pair', ROW_ID, nullable=False),
    sa.Column('completion', ROW_ID, nullable=False),
    sa.ForeignKeyConstraint(['completion'], ['completions.number'], ),
    sa.ForeignKeyConstraint(['pair'], ['metadata_pairs.id'], ),
    sa.PrimaryKeyConstraint('pair', 'completion', name='pk_completion_metadata'),
    sqlite_with_rowid=False
    )
    op.create_index('ix_completion_metadata_completion', 'completion_metadata', ['completion'], unique=False)
