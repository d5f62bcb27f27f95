"""How well the last student that was compared agrees with its teacher: the one figure of a report that
stands beside the bill.

A run's items are read once, for they may be thousands; what they came to is remembered by the run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Connection

from stillroom.evals.owner import Evals
from stillroom.evals.reporting.statistics import Share, share
from stillroom.evals.table import Run, eval_runs, joined, run_of
from stillroom.jobs import State
from stillroom.jobs import jobs as queue
from stillroom.store.database import Database

STORED = '%"stored_completions"%'


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How many of a run's answers say the same as the stored ones, word for word. `teacher` is who gave
    most of those."""

    eval: str
    run: str
    model: str
    teacher: str
    agreeing: Share
    created_at: int


class Agreements:
    """The newest comparison of each project. Blocks."""

    def __init__(self, database: Database, evals: Evals) -> None:
        self._database = database
        self._evals = evals
        self._known: dict[int, tuple[str, Agreement | None]] = {}

    def newest(self, project: int) -> Agreement | None:
        """None when no run has succeeded that asked a model what is stored."""
        with self._database.read() as connection:
            run = _newest_comparison(connection, project)
        if run is None or run.model is None:
            return None
        known = self._known.get(project)
        if known is None or known[0] != run.id:
            known = self._known[project] = (run.id, self._count(run, run.model))
        return known[1]

    def _count(self, run: Run, model: str) -> Agreement | None:
        agreeing, teachers = Counter[bool](), Counter[str]()
        for item in self._evals.walk(run):
            agrees, reference = item.body.get("agrees"), item.body.get("reference")
            if agrees is not None and reference is not None:
                agreeing[agrees] += 1
                teachers[reference["model"]] += 1
        found = share(agreeing[True], agreeing.total())
        if found is None:
            return None
        teacher = teachers.most_common(1)[0][0]
        return Agreement(
            eval=run.eval, run=run.id, model=model, teacher=teacher, agreeing=found, created_at=run.created_at
        )


def _newest_comparison(connection: Connection, project: int) -> Run | None:
    row = eval_runs.c
    query = joined().where(row.project == project, row.model.is_not(None), row.data_source.like(STORED))
    query = query.where(queue.c.state == State.SUCCEEDED.value).order_by(row.number.desc()).limit(1)
    found = connection.execute(query).first()
    return run_of(found) if found is not None else None
