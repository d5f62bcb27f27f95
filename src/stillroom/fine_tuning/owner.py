"""Fine-tuning jobs as their owner sees them: asked for, watched, paused, resumed, cancelled."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, insert, select

from stillroom import catalog, ids, jobs
from stillroom.billing import Budgets
from stillroom.config import SCRATCH, Settings, Student
from stillroom.datasets.files import File, Files
from stillroom.datasets.files import Status as FileStatus
from stillroom.datasets.selection import MINIMUM
from stillroom.errors import (
    Conflict,
    InvalidRequest,
    InvalidTrainingFile,
    NotFound,
    StillroomError,
    TrainingFailed,
    shortened,
)
from stillroom.fine_tuning.integrations import refuse_impossible
from stillroom.fine_tuning.method import wanted_of
from stillroom.fine_tuning.order import Order
from stillroom.fine_tuning.progress import Curve, Progress, curve_of, progress_of
from stillroom.fine_tuning.table import (
    KIND,
    Checkpoint,
    Event,
    Job,
    add_event,
    checkpoint_of,
    event_of,
    fail_job,
    fine_tuning_checkpoints,
    fine_tuning_events,
    fine_tuning_jobs,
    get_job,
    job_of,
    joined,
    set_job,
)
from stillroom.jobs import State
from stillroom.store.blobs import Blobs
from stillroom.store.database import Database
from stillroom.store.tables import as_json
from stillroom.store.writer import Writer
from stillroom.student.hyperparameters import BUILT_IN, MethodType, Origin, Training, method_of
from stillroom.student.manifest import origin_of


class FineTuning:
    """The jobs of all projects. All methods block; none is for the event loop."""

    def __init__(
        self, settings: Settings, database: Database, writer: Writer, blobs: Blobs, files: Files, budgets: Budgets
    ) -> None:
        self._settings = settings
        self._database = database
        self._writer = writer
        self._blobs = blobs
        self._files = files
        self._budgets = budgets

    def create(self, project: int, order: Order) -> Job:
        """Accepts the job; its files are validated next, by whoever runs jobs. Raises BudgetSpent."""
        self._budgets.refuse_if_spent(project)
        base = self.base_of(project, order.model)
        self.check_method(project, order, base)
        refuse_impossible(order.integrations, self._settings.training)
        training = self._check_file(project, order.training_file, "training_file")
        if order.validation_file:
            self._check_file(project, order.validation_file, "validation_file")
        job_id = ids.random_id("ftjob-")
        row = {
            "id": job_id,
            "project": project,
            "created_at": int(time.time()),
            "model": order.model,
            "base": base,
            **self._names(base, order.suffix),
            "suffix": order.suffix,
            "seed": order.seed,
            "training_file": order.training_file,
            "validation_file": order.validation_file,
            "method": order.method.value,
            "hyperparameters": as_json(order.hyperparameters),
            "teacher": order.teacher,
            "metadata": as_json(order.metadata) if order.metadata is not None else None,
            "integrations": as_json(order.integrations) if order.integrations else None,
            "result_files": "[]",
            "selection": as_json(training.selection) if training.selection else None,
        }

        def write(connection: Connection) -> None:
            connection.execute(insert(fine_tuning_jobs).values(**row))
            jobs.enqueue(connection, project=project, kind=KIND, subject=job_id)
            add_event(connection, job_id, f"Created fine-tuning job: {job_id}")
            add_event(connection, job_id, f"Validating training file: {order.training_file}")
            for warning in order.warnings:
                add_event(connection, job_id, warning, level="warn")

        self._writer.write(write)
        return self.get(project, job_id)

    def check(self, project: int, order: Order) -> str:
        """The base of an order that a job could be made of and would pass its validation. Raises what
        either of them says."""
        base = self.base_of(project, order.model)
        self.check_method(project, order, base)
        refuse_impossible(order.integrations, self._settings.training)
        self.check_files(project, order)
        return base

    def check_files(self, project: int, order: Order) -> None:
        """Raises what a job of the order would be told of its files."""
        for file_id, param in ((order.training_file, "training_file"), (order.validation_file, "validation_file")):
            if file_id:
                self._check_file(project, file_id, param)
                self._check_contents(project, file_id, param, order.method)

    def get(self, project: int, job_id: str) -> Job:
        """Raises NotFound when the project has no such job."""
        with self._database.read() as connection:
            return get_job(connection, project, job_id)

    def page(
        self, project: int, *, after: str | None, limit: int, metadata: Mapping[str, str] | None, without_metadata: bool
    ) -> tuple[list[Job], bool]:
        """A page, newest first, and whether more follow."""
        row = fine_tuning_jobs.c
        query = joined().where(row.project == project).order_by(row.number.desc())
        if after is not None:
            query = query.where(row.number < self.get(project, after).number)
        if without_metadata:
            query = query.where(row.metadata.is_(None) | (row.metadata == "{}"))
        found: list[Job] = []
        with self._database.read() as connection:
            for record in connection.execute(query):
                job = job_of(record)
                if (metadata or {}).items() <= (job.metadata or {}).items():
                    found.append(job)
                if len(found) > limit:
                    break
        return found[:limit], len(found) > limit

    def events(self, project: int, job_id: str, *, after: str | None, limit: int) -> tuple[list[Event], bool]:
        """A page of the job's events, newest first, and whether more follow."""
        self.get(project, job_id)
        rows, more = self._page(fine_tuning_events, job_id, after, limit)
        return [event_of(row) for row in rows], more

    def progress(self, jobs: Collection[Job]) -> dict[str, Progress]:
        """How far each of the jobs is, by its id."""
        with self._database.read() as connection:
            return progress_of(connection, [job.id for job in jobs])

    def curve(self, project: int, job_id: str, *, after_step: int) -> Curve:
        """The figures of the job's steps after that one."""
        with self._database.read() as connection:
            return curve_of(connection, get_job(connection, project, job_id).id, after_step=after_step)

    def count_running(self, project: int) -> int:
        """How many jobs of the project are being trained now."""
        with self._database.read() as connection:
            return jobs.count(connection, project, KIND, State.RUNNING)

    def checkpoints(self, project: int, job_id: str, *, after: str | None, limit: int) -> tuple[list[Checkpoint], bool]:
        """A page of the job's checkpoints, newest first, and whether more follow."""
        self.get(project, job_id)
        rows, more = self._page(fine_tuning_checkpoints, job_id, after, limit)
        return [checkpoint_of(row) for row in rows], more

    def checkpoint(self, project: int, checkpoint_id: str) -> Checkpoint | None:
        """The checkpoint of that id; None when the project has none."""
        table = fine_tuning_checkpoints
        query = select(table).join(fine_tuning_jobs, fine_tuning_jobs.c.id == table.c.job)
        query = query.where(table.c.id == checkpoint_id, fine_tuning_jobs.c.project == project)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return checkpoint_of(dict(row)) if row else None

    def cancel(self, project: int, job_id: str) -> Job:
        """Ends the job at once; whoever runs it finds its claim gone. Raises Conflict when it has ended."""
        running = (State.VALIDATING, State.QUEUED, State.RUNNING, State.PAUSED)
        self._move(project, job_id, running, State.CANCELLED, "The job was cancelled.", "cancelled")
        return self.get(project, job_id)

    def pause(self, project: int, job_id: str) -> Job:
        """Stops the job where it can go on later. A running one pauses after the step it is in."""

        def write(connection: Connection) -> None:
            get_job(connection, project, job_id)
            if jobs.move(connection, job_id, expected=(State.VALIDATING, State.QUEUED), to=State.PAUSED):
                add_event(connection, job_id, "The job was paused.")
            elif not jobs.ask_to_pause(connection, job_id):
                raise Conflict(f"Job {job_id} is {jobs.state_of(connection, job_id)}; it cannot be paused.", param="id")

        self._writer.write(write)
        return self.get(project, job_id)

    def resume(self, project: int, job_id: str) -> Job:
        """Queues a paused job again. Raises Conflict when it is not paused."""
        self._move(project, job_id, (State.PAUSED,), State.VALIDATING, "The job was resumed.", "resumed")
        return self.get(project, job_id)

    def _move(self, project: int, job_id: str, expected: tuple[State, ...], to: State, event: str, verb: str) -> None:
        def write(connection: Connection) -> None:
            get_job(connection, project, job_id)
            if not jobs.move(connection, job_id, expected=expected, to=to):
                now = jobs.state_of(connection, job_id)
                only = " or ".join(state.value for state in expected)
                raise Conflict(f"Job {job_id} is {now}; only one that is {only} can be {verb}.", param="id")
            add_event(connection, job_id, event)
            if to in jobs.ENDED:
                set_job(connection, job_id, finished_at=int(time.time()), estimated_finish=None)

        self._writer.write(write)

    def _page(self, table: Table, job_id: str, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        query = select(table).where(table.c.job == job_id).order_by(table.c.number.desc()).limit(limit + 1)
        with self._database.read() as connection:
            if after is not None:
                cursor = connection.execute(select(table.c.number).where(table.c.id == after)).scalar()
                if cursor is None:
                    raise InvalidRequest(f"No object with id '{shortened(after)}' to list after.", param="after")
                query = query.where(table.c.number < cursor)
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return rows[:limit], len(rows) > limit

    def base_of(self, project: int, model: str) -> str:
        """The base of what can be fine-tuned. Raises InvalidRequest for anything else."""
        if model == SCRATCH or model in self._settings.students:
            return model
        with self._database.read() as connection:
            tuned = catalog.find_model(connection, project, model)
        if tuned is not None:
            return tuned.base
        students = ", ".join(sorted({SCRATCH, *self._settings.students}))
        teacher = " It is a teacher." if model in self._settings.teachers else ""
        raise InvalidRequest(
            f"The model '{shortened(model)}' cannot be fine-tuned here.{teacher} Choose one of {students}, or a fine-tuned model.",
            param="model",
            code="model_not_found",
        )

    def base_reference(self, project: int, model: str, base: str) -> dict[str, Any]:
        """What a training process opens for `model`, which is `base` or descends from it: see `student/training/run.py`."""
        with self._database.read() as connection:
            tuned = catalog.find_model(connection, project, model)
        if tuned is not None:
            return {"name": tuned.base, "path": str(self._blobs.path(tuned.blob)), "revision": None}
        student = self._settings.students.get(base, Student())
        if student.path:
            numbers = {"precision": student.precision, "quantization": student.quantization}
            return {"name": model, "path": student.path, "revision": student.revision or None, **numbers}
        if model != SCRATCH and model not in self._settings.students:
            raise TrainingFailed(f"The model '{model}' is gone; it was the base of this job.", param="model")
        return {"name": SCRATCH, "path": None, "revision": None}

    def teacher_reference(self, project: int, teacher: str | None) -> dict[str, Any] | None:
        """As `base_reference`, of the model that judges what a student says. Raises InvalidRequest for one whose
        weights are not here."""
        if teacher is None:
            return None
        param = "method.on_policy.teacher"
        if teacher == SCRATCH:
            raise InvalidRequest(f"{SCRATCH} has no weights to judge by. Choose a model that has learned.", param=param)
        try:
            return self.base_reference(project, teacher, self.base_of(project, teacher))
        except InvalidRequest:
            choices = ", ".join([*sorted(self._settings.students), "a fine-tuned model"])
            raise InvalidRequest(
                f"The weights of '{shortened(teacher)}' are not here, and an on-policy teacher judges every token by them. "
                f'Choose {choices} or "self".',
                param=param,
                code="model_not_found",
            ) from None

    def origin_of(self, project: int, model: str, base: str) -> Origin:
        """What a job on the model would start from, as far as it decides what the job may choose."""
        path = self.base_reference(project, model, base)["path"]
        return origin_of(Path(path).expanduser() if path else None)

    def check_method(self, project: int, order: Order, base: str) -> None:
        """Raises InvalidRequest when the order asks for a way of training that its model cannot have."""
        self.teacher_reference(project, order.teacher)
        origin = self.origin_of(project, order.model, base)
        if origin == BUILT_IN and order.method is not MethodType.SUPERVISED:
            raise InvalidRequest(
                f"'{order.model}' starts from nothing and has no answers yet, which the method '{order.method}' needs. "
                "Fine-tune it by imitation first (method 'supervised'), then name the model that comes of it.",
                param="model",
            )
        method = method_of(wanted_of(order.hyperparameters), origin, order.method)
        student = self._settings.students.get(base, Student())
        if order.model == base and method.training is Training.FULL and student.quantization != "none":
            raise InvalidRequest(
                f"'training' is 'full', but {base} is opened in 4 bits here, which cannot be trained. Leave 'training' "
                "out, or have `quantization` removed from its settings.",
                param="hyperparameters.training",
            )

    def _check_file(self, project: int, file_id: str, param: str) -> File:
        try:
            file = self._files.get(project, file_id)
        except NotFound:
            raise InvalidRequest(
                f"invalid {param}: {shortened(file_id)}: no such file.", param=param, code="file_not_found"
            ) from None
        if file.purpose != "fine-tune":
            raise InvalidRequest(
                f"The file {file_id} has purpose '{file.purpose}'; a {param} needs 'fine-tune'.", param=param
            )
        return file

    def _names(self, base: str, suffix: str | None) -> dict[str, str]:
        short = ids.random_id("")[:8]
        tail = f"-{suffix}" if suffix else ""
        return {
            "openai_name": f"ft:{base}:{self._settings.organization}:{suffix or ''}:{short}",
            "azure_name": f"{base}.ft-{secrets.token_hex(16)}{tail}",
        }

    # --- validation -------------------------------------------------------------------------------

    def validate_waiting(self) -> None:
        """Moves every new job on to the queue, or to failed when its files cannot be trained on."""
        with self._database.read() as connection:
            waiting = jobs.validating(connection, KIND)
        for job_id in waiting:
            self._validate(job_id)

    def _validate(self, job_id: str) -> None:
        with self._database.read() as connection:
            job = job_of(connection.execute(joined().where(fine_tuning_jobs.c.id == job_id)).one())
        try:
            self._check_contents(job.project, job.training_file, "training_file", job.method)
            if job.validation_file:
                self._check_contents(job.project, job.validation_file, "validation_file", job.method)
        except StillroomError as error:
            problem = error
            self._writer.write(lambda c: fail_job(c, job_id, problem, expected=(State.VALIDATING,)))
            return

        def queue(connection: Connection) -> None:
            if jobs.move(connection, job_id, expected=(State.VALIDATING,), to=State.QUEUED):
                add_event(connection, job_id, "Files validated, moving job to queued state")

        self._writer.write(queue)

    def _check_contents(self, project: int, file_id: str, param: str, method: MethodType) -> None:
        try:
            file = self._files.get(project, file_id)
        except NotFound:
            raise InvalidTrainingFile(f"The file {file_id} was deleted before the job began.", param=param) from None
        if file.status is FileStatus.ERROR:
            raise InvalidTrainingFile(f"The file {file_id} cannot be trained on. {file.status_details}", param=param)
        examples = file.examples or 0
        if param == "training_file" and examples < MINIMUM:
            raise InvalidTrainingFile(
                f"{file_id} has {examples} example(s), but must have at least {MINIMUM} examples.",
                param=param,
                code="invalid_n_examples",
            )
        _check_kind(file, param, method)


def _check_kind(file: File, param: str, method: MethodType) -> None:
    if file.image_line is not None:
        raise InvalidTrainingFile(
            f"Line {file.image_line} of {file.id} has an image; students here read text only. Leave image rows out.",
            param=param,
        )
    if not file.examples:
        raise InvalidTrainingFile(f"The file {file.id} has no examples.", param=param, code="invalid_n_examples")
    if method is MethodType.DPO and file.preference_line is None:
        raise InvalidTrainingFile(
            f"The rows of {file.id} are conversations; the method 'dpo' learns from preference pairs (`input`, "
            f"`preferred_output`, `non_preferred_output`). {_remedy(param, 'supervised', 'preference pairs')}",
            param=param,
        )
    if method is not MethodType.DPO and file.preference_line is not None:
        raise InvalidTrainingFile(
            f"Line {file.preference_line} of {file.id} is a preference pair; the method '{method}' learns from "
            f"conversations (`messages`). {_remedy(param, 'dpo', 'conversations')}",
            param=param,
        )


def _remedy(param: str, other: str, rows: str) -> str:
    if param == "training_file":
        return f"Choose the method '{other}' for this file."
    return f"This is the validation file: give one of {rows}, as the training file has, or none."
