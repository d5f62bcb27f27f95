"""What was used and what it costs: one ledger row for each answer, training run and hosted span.

Money is an integer: tokens times micro-USD per million tokens are pico-USD, which are rounded only
for display. Owns the table `ledger`; rows are added (`record.py`) and never changed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, String, Table

from stillroom.config import MICRO, Price
from stillroom.store.tables import RowId, metadata

PICO = 1_000_000_000_000
SECONDS_PER_HOUR = 3600
LABELLING = "distillation:"
"""How the key begins under which a distillation asks for labels: they are no traffic that comes every day."""

ledger = Table(
    "ledger",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("model", String(256), nullable=False),
    # The name that was called: a deployment's, a teacher's or a model's. NULL where nothing was called.
    Column("deployment", String(256)),
    Column("key_id", String(64)),
    Column("subject", String(64)),
    Column("prompt_tokens", BigInteger, nullable=False, default=0),
    Column("cached_tokens", BigInteger, nullable=False, default=0),
    Column("completion_tokens", BigInteger, nullable=False, default=0),
    # Of the prompt, what its caller sent and the model did not need: they are not among its tokens.
    Column("saved_tokens", BigInteger, nullable=False, default=0),
    Column("trained_tokens", BigInteger, nullable=False, default=0),
    Column("hosted_seconds", BigInteger, nullable=False, default=0),
    Column("estimated", Boolean, nullable=False, default=False),
    Column("cost_picousd", BigInteger, nullable=False),
    Index("ix_ledger_project_created_at", "project", "created_at"),
    Index("ix_ledger_project_subject", "project", "subject"),
)


class Kind(enum.StrEnum):
    """What a ledger row counts."""

    ANSWER = "answer"
    EVALUATION = "evaluation"
    """An answer that an eval run or a grader asked for: nobody's traffic."""
    TRAINING = "training"
    HOSTING = "hosting"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One ledger row. `subject` is the completion, run, job or deployment it is about; `deployment` is the
    name that was called for it, if one was."""

    project: int
    kind: Kind
    model: str
    deployment: str | None = None
    subject: str | None = None
    key_id: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    saved_tokens: int = 0
    trained_tokens: int = 0
    hosted_seconds: int = 0
    estimated: bool = False


def cost_picousd(entry: Entry, price: Price) -> int:
    """What the entry costs, in pico-USD."""
    cached = price.input if price.cached_input is None else price.cached_input
    hosting = entry.hosted_seconds * microusd(price.hosting_hour) * MICRO // SECONDS_PER_HOUR
    return (
        (entry.prompt_tokens - entry.cached_tokens) * microusd(price.input)
        + entry.cached_tokens * microusd(cached)
        + entry.completion_tokens * microusd(price.output)
        + entry.trained_tokens * microusd(price.training)
        + hosting
    )


def microusd(usd: float) -> int:
    """A configured or asked amount as the integer it is counted in."""
    return round(usd * MICRO)


def rounded_microusd(picousd: int) -> int:
    """A sum for display, half a micro-USD rounded up."""
    return (picousd + MICRO // 2) // MICRO
