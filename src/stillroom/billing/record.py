"""Writes the ledger's rows, and sums them up a thousand at a time.

Rows are never changed, so what was summed once stays true: every thousandth row takes the ones before it
into the table `ledger_days`, in its own transaction. Sums over a month then read some days of each name
and the last thousand rows at most, however many there are. Owns the table `ledger_days`.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)

from stillroom.billing.ledger import Entry, cost_picousd, ledger
from stillroom.clock import DAY_SECONDS
from stillroom.config import MICRO, Price
from stillroom.store.tables import RowId, metadata

FOLD_ROWS = 1000

ledger_days = Table(
    "ledger_days",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    # Days in UTC since the epoch.
    Column("day", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("model", String(256), nullable=False),
    # Empty where the ledger has NULL, which would be unequal to itself.
    Column("deployment", String(256), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("saved_tokens", BigInteger, nullable=False),
    Column("trained_tokens", BigInteger, nullable=False),
    Column("hosted_seconds", BigInteger, nullable=False),
    # In two parts, as SUMS has them.
    Column("cost_microusd", BigInteger, nullable=False),
    Column("cost_rest_picousd", BigInteger, nullable=False),
    # The last ledger row that is in these sums.
    Column("folded_to", BigInteger, nullable=False),
    UniqueConstraint("project", "day", "kind", "model", "deployment", "key_id"),
    Index("ix_ledger_days_folded_to", "folded_to"),
)

DAY = ledger.c.created_at // literal_column(str(DAY_SECONDS), Integer)
COUNTED = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "saved_tokens",
    "trained_tokens",
    "hosted_seconds",
)
# Money in two parts, each exact: the pico-USD of ten million dollars are more than a database's integer holds.
SUMS = (
    func.count().label("events"),
    *[func.sum(ledger.c[name]).label(name) for name in COUNTED],
    func.sum(ledger.c.cost_picousd // MICRO).label("cost_microusd"),
    func.sum(ledger.c.cost_picousd % MICRO).label("cost_rest_picousd"),
)
SUMMED = tuple(each.name for each in SUMS)
_SAME = ("project", "day", "kind", "model", "deployment", "key_id")
_INSERT = insert(ledger)
_BEGIN_DAY = insert(ledger_days)
_ADD_TO_DAY = (
    update(ledger_days)
    .where(*[ledger_days.c[name] == bindparam(f"same_{name}") for name in _SAME])
    .values({**{name: ledger_days.c[name] + bindparam(f"add_{name}") for name in SUMMED}, "folded_to": bindparam("to")})
)


def record(connection: Connection, entry: Entry, price: Price, *, at: float | None = None) -> None:
    """Writes the entry with its cost at `price`, inside the caller's transaction. `at`: seconds since
    the epoch; default now."""
    values = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    when = int(time.time() if at is None else at)
    added = connection.execute(_INSERT, {**values, "created_at": when, "cost_picousd": cost_picousd(entry, price)})
    (number,) = added.inserted_primary_key or (0,)
    if number % FOLD_ROWS == 0:
        fold(connection, number)


def fold(connection: Connection, to: int) -> None:
    """Takes the ledger's rows up to this one into the sums of their days."""
    row = ledger.c
    groups = [
        row.project,
        DAY.label("day"),
        row.kind,
        row.model,
        func.coalesce(row.deployment, "").label("deployment"),
        func.coalesce(row.key_id, "").label("key_id"),
    ]
    query = select(*groups, *SUMS).where(row.id > folded_to(connection), row.id <= to)
    for group in connection.execute(query.group_by(*groups)).mappings().all():
        _add(connection, {name: value if isinstance(value, str) else int(value) for name, value in group.items()}, to)


def folded_to(connection: Connection) -> int:
    """The last ledger row that is in the sums of its day; those after it are not."""
    return int(connection.execute(select(func.max(ledger_days.c.folded_to))).scalar() or 0)


def _add(connection: Connection, group: dict[str, Any], to: int) -> None:
    same = {f"same_{name}": group[name] for name in _SAME}
    more = {f"add_{name}": group[name] for name in SUMMED}
    if not connection.execute(_ADD_TO_DAY, {**same, **more, "to": to}).rowcount:
        connection.execute(_BEGIN_DAY, {**group, "folded_to": to})
