"""The stored completions' tables, and the words in which completions are chosen.

Numbers (see `ids.py`) are ordered by time; every list is ordered by them, so that a cursor is the
last number seen and stays right when rows are deleted. Rows are written by `table.py` and
`batch.py`, and found by `matching.py` and `facets.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

from stillroom.ids import NUMBERS_PER_SECOND
from stillroom.store.tables import RowId, metadata

STEP_SECONDS = 60
# SQLite uses a partial index only for a query that says the index's condition in the same words, so
# these are texts, with no parameter in them.
IS_INCOMPLETE: ColumnElement[bool] = literal_column("status = 'incomplete'")
IS_OUT_OF_STEP: ColumnElement[bool] = literal_column(
    f"abs(number / {NUMBERS_PER_SECOND} - created_at) > {STEP_SECONDS}"
)
IS_SHARED: ColumnElement[bool] = literal_column("count > 1")


def partial(condition: ColumnElement[Any]) -> dict[str, Any]:
    """What makes an index hold only the rows of which the condition is true."""
    return {"sqlite_where": condition, "postgresql_where": condition}


prefixes = Table(
    "prefixes",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("references", BigInteger, nullable=False),
    UniqueConstraint("project", "hash"),
)

completions = Table(
    "completions",
    metadata,
    Column("number", RowId, primary_key=True, autoincrement=False),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # The name that was called, which is what people filter by; the answer has the upstream's.
    Column("model", String(256), nullable=False),
    Column("status", String(16), nullable=False),
    Column("prefix", ForeignKey("prefixes.id"), nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("first_token_ms", Integer, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("metadata", Text, nullable=False),
    # Which compression dictionary the body needs; none yet.
    Column("dictionary", Integer),
    Column("body", LargeBinary, nullable=False),
    Index("ix_completions_project_number", "project", "number"),
    Index("ix_completions_project_model_number", "project", "model", "number"),
    # For the foreign key: whoever deletes a prefix makes the database look for completions that have it.
    Index("ix_completions_prefix", "prefix"),
    Index("ix_completions_incomplete", "project", "number", **partial(IS_INCOMPLETE)),
    Index("ix_completions_incomplete_model", "project", "model", "number", **partial(IS_INCOMPLETE)),
    Index("ix_completions_out_of_step", "project", "created_at", "number", **partial(IS_OUT_OF_STEP)),
)

metadata_pairs = Table(
    "metadata_pairs",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("key", String(64), nullable=False),
    Column("value", String(512), nullable=False),
    Column("count", BigInteger, nullable=False),
    UniqueConstraint("project", "key", "value"),
    Index("ix_metadata_pairs_shared", "project", "key", "count", **partial(IS_SHARED)),
)

completion_metadata = Table(
    "completion_metadata",
    metadata,
    Column("pair", ForeignKey("metadata_pairs.id"), primary_key=True),
    Column("completion", ForeignKey("completions.number"), primary_key=True),
    Index("ix_completion_metadata_completion", "completion"),
    sqlite_with_rowid=False,
)

# What the teacher weighed at each token of a completion's first choice, packed (see `logprobs.py`).
soft_labels = Table(
    "soft_labels",
    metadata,
    Column("completion", ForeignKey("completions.number"), primary_key=True, autoincrement=False),
    Column("tokens", Integer, nullable=False),
    # The most that any of its tokens has.
    Column("alternatives", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)


class Status(enum.StrEnum):
    """Whether the answer is whole; only completed ones are used for training."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which completions: all given conditions must hold. Times are seconds since the epoch.

    None that began after the completion `up_to`, whether that is still stored or not. A `search` without a
    letter or digit finds nothing (see `search.py`).
    """

    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    numbers: tuple[int, ...] | None = None
    status: Status | None = None
    created_after: int | None = None
    created_before: int | None = None
    search: str | None = None
    up_to: int | None = None
