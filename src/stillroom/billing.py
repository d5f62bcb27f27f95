"""What was used and what it costs: one ledger row for each answer, training run and hosted span.

Money is an integer: tokens times micro-USD per million tokens are pico-USD, which are rounded only
for display. Owns the table `ledger`.
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass

from sqlalchemy import BigInteger, Boolean, Column, Connection, ForeignKey, Index, String, Table, func, insert, select

from stillroom.config import MICRO, Price
from stillroom.store.database import Database
from stillroom.store.tables import RowId, metadata

PICO = 1_000_000_000_000
SECONDS_PER_HOUR = 3600

ledger = Table(
    "ledger",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("model", String(256), nullable=False),
    Column("key_id", String(64)),
    Column("subject", String(64)),
    Column("prompt_tokens", BigInteger, nullable=False, default=0),
    Column("cached_tokens", BigInteger, nullable=False, default=0),
    Column("completion_tokens", BigInteger, nullable=False, default=0),
    Column("trained_tokens", BigInteger, nullable=False, default=0),
    Column("hosted_seconds", BigInteger, nullable=False, default=0),
    Column("estimated", Boolean, nullable=False, default=False),
    Column("cost_picousd", BigInteger, nullable=False),
    Index("ix_ledger_project_created_at", "project", "created_at"),
)


_INSERT = insert(ledger)


class Kind(enum.StrEnum):
    """What a ledger row counts."""

    ANSWER = "answer"
    TRAINING = "training"
    HOSTING = "hosting"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One ledger row. `subject` is the completion, job or deployment it is about."""

    project: int
    kind: Kind
    model: str
    subject: str | None = None
    key_id: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    trained_tokens: int = 0
    hosted_seconds: int = 0
    estimated: bool = False


def record(connection: Connection, entry: Entry, price: Price) -> None:
    """Writes the entry with its cost at `price`, inside the caller's transaction."""
    values = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    connection.execute(_INSERT, {**values, "created_at": int(time.time()), "cost_picousd": cost_picousd(entry, price)})


def cost_picousd(entry: Entry, price: Price) -> int:
    """What the entry costs, in pico-USD."""
    cached = price.input if price.cached_input is None else price.cached_input
    hosting = entry.hosted_seconds * _micro(price.hosting_hour) * MICRO // SECONDS_PER_HOUR
    return (
        (entry.prompt_tokens - entry.cached_tokens) * _micro(price.input)
        + entry.cached_tokens * _micro(cached)
        + entry.completion_tokens * _micro(price.output)
        + entry.trained_tokens * _micro(price.training)
        + hosting
    )


def _micro(usd: float) -> int:
    return round(usd * MICRO)


@dataclass(frozen=True, kw_only=True)
class Total:
    """The ledger of one kind and model, summed."""

    kind: str
    model: str
    events: int
    prompt_tokens: int
    completion_tokens: int
    trained_tokens: int
    hosted_seconds: int
    cost_usd: float


def totals(database: Database, project: int, since: int = 0) -> list[Total]:
    """The project's ledger by kind and model, from `since` (seconds since the epoch)."""
    summed = [ledger.c.prompt_tokens, ledger.c.completion_tokens, ledger.c.trained_tokens, ledger.c.hosted_seconds]
    query = (
        select(ledger.c.kind, ledger.c.model, func.count(), *map(func.sum, summed), func.sum(ledger.c.cost_picousd))
        .where(ledger.c.project == project, ledger.c.created_at >= since)
        .group_by(ledger.c.kind, ledger.c.model)
        .order_by(ledger.c.kind, ledger.c.model)
    )
    with database.read() as connection:
        return [_total(tuple(row)) for row in connection.execute(query)]


def _total(row: tuple[object, ...]) -> Total:
    kind, model, *numbers = row
    events, prompt, completion, trained, seconds, cost = (int(str(n)) for n in numbers)
    return Total(
        kind=str(kind),
        model=str(model),
        events=events,
        prompt_tokens=prompt,
        completion_tokens=completion,
        trained_tokens=trained,
        hosted_seconds=seconds,
        cost_usd=cost / PICO,
    )
