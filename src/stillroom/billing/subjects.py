"""What one thing came to: a job, a deployment, a completion."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select

from stillroom.billing.ledger import Kind, ledger

_COSTS = (
    select(ledger.c.subject, func.sum(ledger.c.cost_picousd))
    .where(
        ledger.c.project == bindparam("of"),
        ledger.c.subject.in_(bindparam("these", expanding=True)),
        ledger.c.kind == bindparam("counted_as"),
    )
    .group_by(ledger.c.subject)
)


def cost_of(connection: Connection, project: int, kind: Kind, subject: str, *, since: int, until: int) -> int | None:
    """In pico-USD, by what the ledger got from `since` to `until` (both included); None when that is nothing.

    The span is what the ledger is searched by, so it should be short.
    """
    row = ledger.c
    query = select(row.cost_picousd).where(row.project == project, row.created_at >= since, row.created_at <= until)
    costs = connection.execute(query.where(row.kind == kind.value, row.subject == subject)).scalars().all()
    return sum(int(cost) for cost in costs) if costs else None


def costs_of(connection: Connection, project: int, kind: Kind, subjects: Sequence[str]) -> dict[str, int]:
    """In pico-USD, of each that the ledger knows."""
    if not subjects:
        return {}
    found = connection.execute(_COSTS, {"of": project, "counted_as": kind.value, "these": subjects})
    return {subject: int(cost) for subject, cost in found}
