"""How well the last student that was compared agrees with its teacher: the one figure of a report that
stands beside the bill.

A run's items are read once, for they may be thousands, and so is where its items came from, which may be a whole
file; what they came to is remembered by the run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stillroom.errors import NotFound
from stillroom.evals.owner import Evals
from stillroom.evals.reporting.statistics import Share, share
from stillroom.evals.table import Run, eval_runs, get_run, joined
from stillroom.jobs import State
from stillroom.jobs import jobs as queue
from stillroom.store.database import Database

STORED = "stored_completions"
RUNS = 50  # looked at, newest first


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
        self._known: dict[int, dict[str, Agreement | None]] = {}

    def newest(self, project: int) -> Agreement | None:
        """None when none of the last runs that succeeded asked a model what is stored."""
        before = self._known.get(project, {})
        known = self._known[project] = dict[str, Agreement | None]()
        for run in self._newest_runs(project):
            known[run] = before[run] if run in before else self._found(project, run)
            if known[run] is not None:
                return known[run]
        return None

    def _newest_runs(self, project: int) -> list[str]:
        row = eval_runs.c
        query = joined().with_only_columns(row.id).where(row.project == project, row.model.is_not(None))
        query = query.where(queue.c.state == State.SUCCEEDED.value).order_by(row.number.desc()).limit(RUNS)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def _found(self, project: int, run_id: str) -> Agreement | None:
        """None when the run compared nothing."""
        try:
            with self._database.read() as connection:
                run = get_run(connection, project, run_id)
        except NotFound:  # deleted just now
            return None
        if run.model is None or run.data_source["source"]["type"] != STORED:
            return None
        return self._count(run, run.model)

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
