"""What one thing came to: a job, a deployment, a completion."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from stillroom.billing.ledger import Kind, ledger


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
    row = ledger.c
    query = select(row.subject, func.sum(row.cost_picousd)).where(row.project == project, row.subject.in_(subjects))
    found = connection.execute(query.where(row.kind == kind.value).group_by(row.subject))
    return {subject: int(cost) for subject, cost in found}
