"""Evals and runs as their owner sees them: defined, started, watched, cancelled, deleted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update

from stillroom import catalog, ids, jobs
from stillroom.billing.budget import Budgets
from stillroom.config import SCRATCH, Settings
from stillroom.datasets.files import Files
from stillroom.errors import Conflict, InvalidRequest, NotFound, SandboxUnavailable, shortened
from stillroom.evals import items
from stillroom.evals.order import EvalOrder, FileId, RunOrder, StoredCompletions, held_out_jobs, read_criterion
from stillroom.evals.table import (
    KIND,
    Eval,
    Outcome,
    OutputItem,
    Run,
    eval_of,
    eval_output_items,
    eval_runs,
    evals,
    get_eval,
    get_run,
    joined,
    output_item_of,
    run_of,
    set_run,
)
from stillroom.graders import sandbox
from stillroom.graders.order import Grader, models_of, runs_python
from stillroom.jobs import State
from stillroom.store.database import Database
from stillroom.store.tables import as_json
from stillroom.store.writer import Writer

RUNNING = (State.QUEUED, State.RUNNING)
TRIED_AT_ONCE = 4  # graders tried out alone; others wait
CHUNK = 200  # output items read at a time when all are walked


@dataclass(frozen=True, kw_only=True)
class Page:
    """Where a page of a list begins, and how long it is."""

    after: str | None
    descending: bool
    limit: int


class Evals:
    """The evals of all projects. All methods block; none is for the event loop."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        writer: Writer,
        files: Files,
        budgets: Budgets,
    ) -> None:
        self._settings = settings
        self._database = database
        self._writer = writer
        self._files = files
        self._budgets = budgets
        self.trying = asyncio.Semaphore(TRIED_AT_ONCE)
        """Graders tried out alone: each takes a process."""

    # --- definitions ------------------------------------------------------------------------------

    def create(self, project: int, order: EvalOrder) -> Eval:
        """Raises InvalidRequest when a judge is a model that is not there."""
        for position, criterion in enumerate(order.testing_criteria):
            for model in models_of(read_criterion(criterion, position)):
                self._check_model(project, model, f"testing_criteria[{position}].model")
        now = int(time.time())
        row = {
            "id": ids.random_id("eval_"),
            "project": project,
            "created_at": now,
            "updated_at": now,
            "name": order.name,
            "metadata": as_json(order.metadata) if order.metadata is not None else None,
            "data_source_config": as_json(order.data_source_config),
            "testing_criteria": as_json(order.testing_criteria),
        }
        self._writer.write(lambda connection: connection.execute(insert(evals).values(**row)))
        return self.get(project, str(row["id"]))

    def get(self, project: int, eval_id: str) -> Eval:
        """Raises NotFound when the project has no such eval."""
        with self._database.read() as connection:
            return get_eval(connection, project, eval_id)

    def page(self, project: int, page: Page, *, by_update: bool) -> tuple[list[Eval], bool]:
        """A page of evals by creation, or by their last change, and whether more follow."""
        order = [evals.c.updated_at, evals.c.number] if by_update else [evals.c.number]
        query = select(evals).where(evals.c.project == project)
        if page.after is not None:
            last = self.get(project, page.after)
            place = [last.updated_at, last.number] if by_update else [last.number]
            query = query.where(_beyond(order, place, page.descending))
        query = query.order_by(*[column.desc() if page.descending else column.asc() for column in order])
        with self._database.read() as connection:
            found = [eval_of(row) for row in connection.execute(query.limit(page.limit + 1))]
        return found[: page.limit], len(found) > page.limit

    def change(self, project: int, eval_id: str, changes: dict[str, Any]) -> Eval:
        """Sets the columns given."""
        values = {**changes, "updated_at": int(time.time())}
        if values.get("metadata") is not None:
            values["metadata"] = as_json(values["metadata"])

        def write(connection: Connection) -> None:
            found = get_eval(connection, project, eval_id)
            connection.execute(update(evals).where(evals.c.number == found.number).values(**values))

        self._writer.write(write)
        return self.get(project, eval_id)

    def delete(self, project: int, eval_id: str) -> None:
        """Removes the eval, its runs and what they found. A run under way ends."""
        self.get(project, eval_id)
        for run in self._runs_of(project, eval_id):
            self.delete_run(project, eval_id, run, even_running=True)

        def write(connection: Connection) -> None:
            connection.execute(delete(evals).where(evals.c.id == get_eval(connection, project, eval_id).id))

        self._writer.write(write)

    # --- runs -------------------------------------------------------------------------------------

    def start(self, project: int, key_id: str, eval_id: str, order: RunOrder) -> Run:
        """Queues a run. Raises InvalidRequest when it could not succeed, BudgetSpent when nothing is left."""
        self._budgets.refuse_if_spent(project)
        definition = self.get(project, eval_id)
        criteria = [read_criterion(criterion, i) for i, criterion in enumerate(definition.testing_criteria)]
        self._check_run(project, order, criteria)
        run_id = ids.random_id("evalrun_")
        row = {
            "id": run_id,
            "eval": eval_id,
            "project": project,
            "key_id": key_id,
            "created_at": int(time.time()),
            "name": order.name or order.model or "given answers",
            "model": order.model,
            "metadata": as_json(order.metadata) if order.metadata is not None else None,
            "data_source": as_json(order.asked),
            "per_criterion": as_json([{"passed": 0, "failed": 0} for _ in criteria]),
        }

        def write(connection: Connection) -> None:
            get_eval(connection, project, eval_id)
            connection.execute(insert(eval_runs).values(**row))
            jobs.enqueue(connection, project=project, kind=KIND, subject=run_id, state=State.QUEUED)

        self._writer.write(write)
        return self.get_run(project, eval_id, run_id)

    def get_run(self, project: int, eval_id: str, run_id: str) -> Run:
        """Raises NotFound when the eval has no such run."""
        with self._database.read() as connection:
            run = get_run(connection, project, run_id)
        if run.eval != eval_id:
            raise NotFound(f"The eval '{shortened(eval_id)}' has no run '{run_id}'.", param="run_id")
        return run

    def runs(self, project: int, eval_id: str, page: Page, *, state: State | None) -> tuple[list[Run], bool]:
        """A page of the eval's runs, and whether more follow."""
        self.get(project, eval_id)
        query = joined().where(eval_runs.c.project == project, eval_runs.c.eval == eval_id)
        if state is not None:
            query = query.where(jobs.jobs.c.state == state.value)
        if page.after is not None:
            last = self.get_run(project, eval_id, page.after).number
            query = query.where(_beyond([eval_runs.c.number], [last], page.descending))
        number = eval_runs.c.number
        query = query.order_by(number.desc() if page.descending else number.asc()).limit(page.limit + 1)
        with self._database.read() as connection:
            found = [run_of(row) for row in connection.execute(query)]
        return found[: page.limit], len(found) > page.limit

    def latest_runs(self, project: int, eval_id: str, most: int) -> list[Run]:
        """The eval's newest runs, oldest first."""
        page = Page(after=None, descending=True, limit=most)
        return self.runs(project, eval_id, page, state=None)[0][::-1]

    def cancel(self, project: int, eval_id: str, run_id: str) -> Run:
        """Ends the run at once; what it has found stays. Raises Conflict when it has ended."""
        self.get_run(project, eval_id, run_id)

        def write(connection: Connection) -> None:
            if not jobs.move(connection, run_id, expected=RUNNING, to=State.CANCELLED):
                state = jobs.state_of(connection, run_id)
                raise Conflict(f"Run {run_id} is {state}; it is too late to cancel it.", param="run_id")
            set_run(connection, run_id, finished_at=int(time.time()))

        self._writer.write(write)
        return self.get_run(project, eval_id, run_id)

    def delete_run(self, project: int, eval_id: str, run_id: str, *, even_running: bool = False) -> None:
        """Removes a run and what it found. Raises Conflict while it is under way."""
        run = self.get_run(project, eval_id, run_id)
        if run.state in RUNNING:
            if not even_running:
                raise Conflict(f"Run {run_id} is under way; cancel it first.", param="run_id")
            with contextlib.suppress(Conflict):  # it has ended meanwhile
                self.cancel(project, eval_id, run_id)

        while self._writer.write(lambda connection: _delete_some_items(connection, run_id)):
            pass  # a part at a time, so that other writes need not wait for a large run to go

        def write(connection: Connection) -> None:
            connection.execute(delete(eval_runs).where(eval_runs.c.id == run_id))
            jobs.remove(connection, run_id)

        self._writer.write(write)  # last: who is interrupted before can delete the run again

    # --- what runs found --------------------------------------------------------------------------

    def output_items(
        self, project: int, eval_id: str, run_id: str, page: Page, *, outcome: Outcome | None
    ) -> tuple[list[OutputItem], bool]:
        """A page of what the run found, in the order of the data source, and whether more follow."""
        self.get_run(project, eval_id, run_id)
        table = eval_output_items
        query = select(table).where(table.c.run == run_id)
        if outcome is not None:
            query = query.where(table.c.status == outcome.value)
        if page.after is not None:
            last = self.output_item(project, eval_id, run_id, page.after).item
            query = query.where(_beyond([table.c.item], [last], page.descending))
        query = query.order_by(table.c.item.desc() if page.descending else table.c.item.asc())
        with self._database.read() as connection:
            found = [output_item_of(row) for row in connection.execute(query.limit(page.limit + 1))]
        return found[: page.limit], len(found) > page.limit

    def output_item(self, project: int, eval_id: str, run_id: str, item_id: str) -> OutputItem:
        """Raises NotFound when the run has no such output item."""
        self.get_run(project, eval_id, run_id)
        table = eval_output_items
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.run == run_id, table.c.id == item_id)).first()
        if row is None:
            raise NotFound(f"The run '{run_id}' has no output item '{shortened(item_id)}'.", param="output_item_id")
        return output_item_of(row)

    def walk(self, run: Run) -> Iterator[OutputItem]:
        """Everything the run found, in the order of the data source, some hundreds in memory at a time."""
        table = eval_output_items
        last = -1  # items count from 0
        while True:
            query = select(table).where(table.c.run == run.id, table.c.item > last).order_by(table.c.item)
            with self._database.read() as connection:
                found = [output_item_of(row) for row in connection.execute(query.limit(CHUNK))]
            yield from found
            if len(found) < CHUNK:
                return
            last = found[-1].item

    # --- checks -----------------------------------------------------------------------------------

    def check_grader(self, project: int, grader: Grader, param: str) -> None:
        """Raises when a grader calls a model that is not there, or needs a sandbox that cannot be had."""
        for model in models_of(grader):
            self._check_model(project, model, param)
        if runs_python(grader):
            self._check_sandbox()

    def _check_run(self, project: int, order: RunOrder, criteria: Iterable[Grader]) -> None:
        if order.model is not None:
            self._check_model(project, order.model, "data_source.model")
        for position, grader in enumerate(criteria):
            self.check_grader(project, grader, f"testing_criteria[{position}].model")
        if isinstance(order.source, FileId):
            try:
                self._files.get(project, order.source.id)
            except NotFound:
                raise InvalidRequest(
                    f"There is no file '{shortened(order.source.id)}'.",
                    param="data_source.source.id",
                    code="file_not_found",
                ) from None
            items.check_file(self._files.path(project, order.source.id))
        elif isinstance(order.source, StoredCompletions):
            for job in held_out_jobs(order.source):
                self._check_job(project, job)

    def _check_sandbox(self) -> None:
        lacking = None if self._settings.evals.unsafe_python_graders else sandbox.why_unavailable()
        if lacking is not None:
            raise SandboxUnavailable(lacking)

    def _check_model(self, project: int, name: str, param: str) -> None:
        if name in self._settings.teachers or (name in self._settings.students and name != SCRATCH):
            return
        with self._database.read() as connection:
            known = catalog.find_deployment(connection, project, name) or catalog.find_model(connection, project, name)
        if known is None:
            raise InvalidRequest(
                f"The model `{shortened(name)}` does not exist or you do not have access to it.",
                param=param,
                code="model_not_found",
            )

    def _check_job(self, project: int, job_id: str) -> None:
        with self._database.read() as connection:
            found = [model for model in catalog.list_models(connection, project) if model.job == job_id]
        if not found:
            raise InvalidRequest(
                f"'{shortened(job_id)}' is no fine-tuning job that has made a model.",
                param="data_source.source.held_out_from",
            )

    def _runs_of(self, project: int, eval_id: str) -> list[str]:
        query = select(eval_runs.c.id).where(eval_runs.c.project == project, eval_runs.c.eval == eval_id)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())


def _beyond(columns: list[Any], place: list[int], descending: bool) -> Any:
    """Rows after a place in the order of one column, or of one and, where that is equal, another."""
    *first, last = columns
    *first_place, last_place = place
    beyond = last < last_place if descending else last > last_place
    for column, value in zip(reversed(first), reversed(first_place), strict=True):
        further = column < value if descending else column > value
        beyond = further | ((column == value) & beyond)
    return beyond


def _delete_some_items(connection: Connection, run_id: str) -> int:
    table: Table = eval_output_items
    some = select(table.c.number).where(table.c.run == run_id).limit(CHUNK)
    return connection.execute(delete(table).where(table.c.number.in_(some))).rowcount
