"""Fine-tuning jobs as their owner sees them: asked for, watched, paused, cancelled, finished.

The queue (`jobs.py`) says where a job stands; here is what it is about. The functions named
`record_*` and `finish` are for the worker, and refuse a worker whose claim no longer holds. Owns the
tables `fine_tuning_jobs`, `fine_tuning_events` and `fine_tuning_checkpoints`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from stillroom import billing, catalog, ids, jobs
from stillroom.chat import check_metadata
from stillroom.config import SCRATCH, Price, Settings
from stillroom.datasets.files import File, Files
from stillroom.datasets.files import Status as FileStatus
from stillroom.datasets.selection import MINIMUM
from stillroom.errors import Conflict, InvalidRequest, InvalidTrainingFile, NotFound, StillroomError
from stillroom.jobs import Claim, State
from stillroom.store.database import Database
from stillroom.store.tables import RowId, metadata
from stillroom.store.writer import Writer

KIND = "fine_tuning"
DEPLOYABLE_CHECKPOINTS = 3
SUFFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_SEED = 2**31 - 1
AUTO = ("auto", -1, None)  # Azure's documents spell "auto" as -1
KNOWN_METHODS = ("supervised", "dpo", "reinforcement")

fine_tuning_jobs = Table(
    "fine_tuning_jobs",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("estimated_finish", BigInteger),
    Column("model", String(256), nullable=False),
    Column("base", String(256), nullable=False),
    Column("openai_name", String(256), nullable=False),
    Column("azure_name", String(256), nullable=False),
    Column("suffix", String(64)),
    Column("seed", BigInteger, nullable=False),
    Column("training_file", String(64), nullable=False),
    Column("validation_file", String(64)),
    Column("hyperparameters", Text, nullable=False),
    Column("metadata", Text),
    Column("result_files", Text, nullable=False),
    Column("trained_tokens", BigInteger),
    Column("error", Text),
    Index("ix_fine_tuning_jobs_project_number", "project", "number"),
)

fine_tuning_events = Table(
    "fine_tuning_events",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("job", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("level", String(8), nullable=False),
    Column("type", String(8), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", Text),
    Index("ix_fine_tuning_events_job_number", "job", "number"),
)

fine_tuning_checkpoints = Table(
    "fine_tuning_checkpoints",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("job", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("step", Integer, nullable=False),
    Column("openai_name", String(256), nullable=False),
    Column("azure_name", String(256), nullable=False),
    Column("metrics", Text, nullable=False),
    Index("ix_fine_tuning_checkpoints_job_number", "job", "number"),
)


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may choose; "auto" until the job has started, then the number that was chosen."""

    n_epochs: int | Literal["auto"] = "auto"
    """Passes over the training file, 1 to 50."""
    batch_size: int | Literal["auto"] = "auto"
    """Examples in one optimizer step, 1 to 256."""
    learning_rate_multiplier: float | Literal["auto"] = "auto"
    """Times the base model's own learning rate; above 0."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job as it was asked for, with every value checked."""

    model: str
    training_file: str
    validation_file: str | None
    hyperparameters: Hyperparameters
    suffix: str | None
    seed: int
    metadata: dict[str, str] | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job and where it stands."""

    number: int
    id: str
    project: int
    state: State
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    base: str
    openai_name: str
    azure_name: str
    suffix: str | None
    seed: int
    training_file: str
    validation_file: str | None
    hyperparameters: Hyperparameters
    metadata: dict[str, str] | None
    result_files: list[str]
    trained_tokens: int | None
    error: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job. `data` holds a step's numbers when `type` is "metrics"."""

    number: int
    id: str
    created_at: int
    level: str
    type: str
    message: str
    data: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A deployable state after an epoch."""

    number: int
    id: str
    job: str
    created_at: int
    step: int
    openai_name: str
    azure_name: str
    metrics: dict[str, Any]


# --- asking for a job -----------------------------------------------------------------------------


def parse_order(body: Mapping[str, Any]) -> Order:
    """The order in a request's body. Raises InvalidRequest naming the first wrong field."""
    known = {"model", "training_file", "validation_file", "method", "hyperparameters", "suffix", "seed"}
    known |= {"metadata", "integrations", "trainingType"}
    if unknown := sorted(set(body) - known):
        raise InvalidRequest(f"Unrecognized request argument supplied: {unknown[0]}", code="unknown_parameter")
    for name in ("model", "training_file"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise InvalidRequest(
                f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
            )
    if body.get("integrations"):
        raise InvalidRequest("Integrations are not supported; leave 'integrations' out.", param="integrations")
    check_metadata(body.get("metadata"))
    warnings = ("trainingType has no effect: jobs run on this machine.",) if body.get("trainingType") else ()
    return Order(
        model=body["model"],
        training_file=body["training_file"],
        validation_file=_optional_text(body, "validation_file"),
        hyperparameters=_hyperparameters(body),
        suffix=_suffix(body.get("suffix")),
        seed=_seed(body.get("seed")),
        metadata=body.get("metadata"),
        warnings=warnings,
    )


def _optional_text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"Invalid type for '{name}': expected a string.", param=name, code="invalid_type")
    return value or None


def _optional_object(body: Mapping[str, Any], name: str, param: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"Invalid type for '{param}': expected an object.", param=param, code="invalid_type")
    return value or {}


def _hyperparameters(body: Mapping[str, Any]) -> Hyperparameters:
    method = body.get("method") or {"type": "supervised"}
    if not isinstance(method, dict) or method.get("type", "supervised") not in KNOWN_METHODS:
        raise InvalidRequest(f"Invalid 'method': expected a type among {', '.join(KNOWN_METHODS)}.", param="method")
    kind = method.get("type", "supervised")
    if kind != "supervised":
        raise InvalidRequest(f"The method '{kind}' is not supported; use 'supervised'.", param="method.type")
    inner = _optional_object(method, kind, f"method.{kind}")
    given = {
        **_optional_object(body, "hyperparameters", "hyperparameters"),
        **_optional_object(inner, "hyperparameters", "hyperparameters"),
    }
    if unknown := sorted(set(given) - set(Hyperparameters.__struct_fields__)):
        raise InvalidRequest(
            f"Unknown hyperparameter '{unknown[0]}'; known are {', '.join(Hyperparameters.__struct_fields__)}.",
            param=f"hyperparameters.{unknown[0]}",
        )
    return Hyperparameters(
        n_epochs=_whole(given, "n_epochs", 50),
        batch_size=_whole(given, "batch_size", 256),
        learning_rate_multiplier=_multiplier(given.get("learning_rate_multiplier")),
    )


def _whole(given: Mapping[str, Any], name: str, most: int) -> int | Literal["auto"]:
    value = given.get(name)
    if value in AUTO and not isinstance(value, bool):
        return "auto"
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidRequest(
            f"Invalid '{name}': {value!r}. Expected \"auto\" or a whole number from 1 to {most}.",
            param=f"hyperparameters.{name}",
        )
    return value


def _multiplier(value: Any) -> float | Literal["auto"]:
    if value in AUTO:
        return "auto"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1000:
        raise InvalidRequest(
            f"Invalid 'learning_rate_multiplier': {value!r}. Expected \"auto\" or a number above 0.",
            param="hyperparameters.learning_rate_multiplier",
        )
    return float(value)


def _suffix(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not SUFFIX.fullmatch(value):
        raise InvalidRequest(
            f"Invalid 'suffix': {value!r}. Expected 1 to 64 letters, digits, '-' or '_'.", param="suffix"
        )
    return value


def _seed(value: Any) -> int:
    if value is None:
        return secrets.randbelow(MAX_SEED)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise InvalidRequest(f"Invalid 'seed': {value!r}. Expected a whole number from 0 to {MAX_SEED}.", param="seed")
    return value


class FineTuning:
    """The jobs of all projects. All methods block; none is for the event loop."""

    def __init__(self, settings: Settings, database: Database, writer: Writer, files: Files) -> None:
        self._settings = settings
        self._database = database
        self._writer = writer
        self._files = files

    def create(self, project: int, order: Order) -> Job:
        """Accepts the job; its files are validated next, by whoever runs jobs."""
        base = self._base_of(project, order.model)
        self._check_file(project, order.training_file, "training_file")
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
            "hyperparameters": _json(order.hyperparameters),
            "metadata": _json(order.metadata) if order.metadata is not None else None,
            "result_files": "[]",
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

    def get(self, project: int, job_id: str) -> Job:
        """Raises NotFound when the project has no such job."""
        with self._database.read() as connection:
            return get_job(connection, project, job_id)

    def page(
        self, project: int, *, after: str | None, limit: int, metadata: Mapping[str, str] | None, without_metadata: bool
    ) -> tuple[list[Job], bool]:
        """A page, newest first, and whether more follow."""
        row = fine_tuning_jobs.c
        query = _joined().where(row.project == project).order_by(row.number.desc())
        if after is not None:
            query = query.where(row.number < self.get(project, after).number)
        if without_metadata:
            query = query.where(row.metadata.is_(None) | (row.metadata == "{}"))
        found: list[Job] = []
        with self._database.read() as connection:
            for record in connection.execute(query):
                job = _job(record)
                if (metadata or {}).items() <= (job.metadata or {}).items():
                    found.append(job)
                if len(found) > limit:
                    break
        return found[:limit], len(found) > limit

    def events(self, project: int, job_id: str, *, after: str | None, limit: int) -> tuple[list[Event], bool]:
        """A page of the job's events, newest first, and whether more follow."""
        self.get(project, job_id)
        rows, more = self._page(fine_tuning_events, job_id, after, limit)
        return [Event(**{**_without(row, "job"), "data": _parsed(row["data"])}) for row in rows], more

    def checkpoints(self, project: int, job_id: str, *, after: str | None, limit: int) -> tuple[list[Checkpoint], bool]:
        """A page of the job's checkpoints, newest first, and whether more follow."""
        self.get(project, job_id)
        rows, more = self._page(fine_tuning_checkpoints, job_id, after, limit)
        return [Checkpoint(**{**row, "metrics": _parsed(row["metrics"])}) for row in rows], more

    def checkpoint(self, project: int, checkpoint_id: str) -> Checkpoint | None:
        """The checkpoint of that id; None when the project has none."""
        table = fine_tuning_checkpoints
        query = select(table).join(fine_tuning_jobs, fine_tuning_jobs.c.id == table.c.job)
        query = query.where(table.c.id == checkpoint_id, fine_tuning_jobs.c.project == project)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return Checkpoint(**{**row, "metrics": _parsed(row["metrics"])}) if row else None

    def cancel(self, project: int, job_id: str) -> Job:
        """Ends the job at once; whoever runs it finds its claim gone. Raises Conflict when it has ended."""
        running = (State.VALIDATING, State.QUEUED, State.RUNNING, State.PAUSED)
        self._move(project, job_id, running, State.CANCELLED, "The job was cancelled.", "cancel")
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
        self._move(project, job_id, (State.PAUSED,), State.VALIDATING, "The job was resumed.", "resume")
        return self.get(project, job_id)

    def _move(self, project: int, job_id: str, expected: tuple[State, ...], to: State, event: str, verb: str) -> None:
        def write(connection: Connection) -> None:
            get_job(connection, project, job_id)
            if not jobs.move(connection, job_id, expected=expected, to=to):
                now = jobs.state_of(connection, job_id)
                raise Conflict(f"Job {job_id} is {now}; it is too late to {verb} it.", param="id")
            add_event(connection, job_id, event)
            if to in jobs.ENDED:
                _set(connection, job_id, finished_at=int(time.time()), estimated_finish=None)

        self._writer.write(write)

    def _page(self, table: Table, job_id: str, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        query = select(table).where(table.c.job == job_id).order_by(table.c.number.desc()).limit(limit + 1)
        with self._database.read() as connection:
            if after is not None:
                cursor = connection.execute(select(table.c.number).where(table.c.id == after)).scalar()
                if cursor is None:
                    raise InvalidRequest(f"No object with id '{after}' to list after.", param="after")
                query = query.where(table.c.number < cursor)
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return rows[:limit], len(rows) > limit

    def _base_of(self, project: int, model: str) -> str:
        if model == SCRATCH or model in self._settings.students:
            return model
        with self._database.read() as connection:
            tuned = catalog.find_model(connection, project, model)
        if tuned is not None:
            return tuned.base
        students = ", ".join(sorted({SCRATCH, *self._settings.students}))
        teacher = " It is a teacher." if model in self._settings.teachers else ""
        raise InvalidRequest(
            f"The model '{model}' cannot be fine-tuned here.{teacher} Choose one of {students}, or a fine-tuned model.",
            param="model",
            code="model_not_found",
        )

    def _check_file(self, project: int, file_id: str, param: str) -> None:
        try:
            file = self._files.get(project, file_id)
        except NotFound:
            raise InvalidRequest(
                f"invalid {param}: {file_id}: no such file.", param=param, code="file_not_found"
            ) from None
        if file.purpose != "fine-tune":
            raise InvalidRequest(
                f"The file {file_id} has purpose '{file.purpose}'; a {param} needs 'fine-tune'.", param=param
            )

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
            job = _job(connection.execute(_joined().where(fine_tuning_jobs.c.id == job_id)).one())
        try:
            self._check_contents(job, job.training_file, "training_file")
            if job.validation_file:
                self._check_contents(job, job.validation_file, "validation_file")
        except StillroomError as error:
            problem = error
            self._writer.write(lambda c: _fail(c, job_id, problem, expected=(State.VALIDATING,)))
            return

        def queue(connection: Connection) -> None:
            if jobs.move(connection, job_id, expected=(State.VALIDATING,), to=State.QUEUED):
                add_event(connection, job_id, "Files validated, moving job to queued state")

        self._writer.write(queue)

    def _check_contents(self, job: Job, file_id: str, param: str) -> None:
        try:
            file = self._files.get(job.project, file_id)
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
        _check_kind(file, param)


def _check_kind(file: File, param: str) -> None:
    if file.image_line is not None:
        raise InvalidTrainingFile(
            f"Line {file.image_line} of {file.id} has an image; students here read text only. Leave image rows out.",
            param=param,
        )
    if file.preference_line is not None:
        raise InvalidTrainingFile(
            f"Line {file.preference_line} of {file.id} is a preference pair; supervised training needs `messages`.",
            param=param,
        )
    if not file.examples:
        raise InvalidTrainingFile(f"The file {file.id} has no examples.", param=param, code="invalid_n_examples")


# --- what the worker records ------------------------------------------------------------------------


def get_job(connection: Connection, project: int, job_id: str) -> Job:
    """Raises NotFound when the project has no such job."""
    row = fine_tuning_jobs.c
    record = connection.execute(_joined().where(row.project == project, row.id == job_id)).first()
    if record is None:
        raise NotFound(f"Could not find fine tune: {job_id}", param="fine_tuning_job_id")
    return _job(record)


def record_start(connection: Connection, claim: Claim, started: Mapping[str, Any]) -> None:
    """The trainer has read its data and chosen its numbers."""
    jobs.guard(connection, claim)
    _set(connection, claim.subject, hyperparameters=_json(started["hyperparameters"]))
    resumed = started.get("resumed_from_step")
    if resumed is None:
        add_event(connection, claim.subject, "Fine-tuning job started")
    else:
        add_event(connection, claim.subject, f"Fine-tuning job goes on from step {resumed}")


def record_steps(connection: Connection, claim: Claim, steps: Iterable[Mapping[str, Any]], finish: int | None) -> None:
    """The numbers of training steps, oldest first, and when the job is expected to end."""
    jobs.guard(connection, claim)
    for step in steps:
        add_event(connection, claim.subject, _step_text(step), type_="metrics", data=_step_data(step))
    _set(connection, claim.subject, estimated_finish=finish)


def record_message(connection: Connection, claim: Claim, level: str, message: str) -> None:
    jobs.guard(connection, claim)
    add_event(connection, claim.subject, message, level=level)


def record_checkpoint(
    connection: Connection, claim: Claim, job: Job, step: int, metrics: Mapping[str, Any], blob: str
) -> list[str]:
    """Names the weights after an epoch; gives the blobs of checkpoints that are now too old to keep."""
    jobs.guard(connection, claim)
    names = {"openai_name": f"{job.openai_name}:ckpt-step-{step}", "azure_name": f"{job.azure_name}:ckpt-step-{step}"}
    if catalog.find_model(connection, job.project, names["openai_name"]) is not None:
        return []  # recorded before an interruption
    catalog.add_model(connection, project=job.project, **names, base=job.base, job=job.id, step=step, blob=blob)
    row = {"id": ids.random_id("ftckpt_"), "job": job.id, "created_at": int(time.time()), "step": step, **names}
    connection.execute(insert(fine_tuning_checkpoints).values(**row, metrics=_json(metrics)))
    add_event(connection, job.id, f"Checkpoint created at step {step}")
    jobs.forget_crashes(connection, claim)
    return _drop_old_checkpoints(connection, job)


def _drop_old_checkpoints(connection: Connection, job: Job) -> list[str]:
    table = fine_tuning_checkpoints
    query = select(table).where(table.c.job == job.id).order_by(table.c.number.desc()).offset(DEPLOYABLE_CHECKPOINTS)
    dropped: list[str] = []
    for row in list(connection.execute(query)):
        try:
            dropped.append(catalog.delete_model(connection, job.project, row.openai_name).blob)
        except Conflict:
            continue  # deployed already, so it stays
        connection.execute(delete(table).where(table.c.number == row.number))
    return dropped


def finish(
    connection: Connection, claim: Claim, job: Job, *, blob: str, trained_tokens: int, result_file: str, price: Price
) -> None:
    """The job has succeeded: its model, its bill and its end are one transaction."""
    jobs.release(connection, claim, State.SUCCEEDED)
    names = {"openai_name": job.openai_name, "azure_name": job.azure_name}
    catalog.add_model(connection, project=job.project, **names, base=job.base, job=job.id, step=None, blob=blob)
    entry = billing.Entry(
        project=job.project,
        kind=billing.Kind.TRAINING,
        model=job.base,
        subject=job.id,
        trained_tokens=trained_tokens,
    )
    billing.record(connection, entry, price)
    _set(
        connection,
        job.id,
        finished_at=int(time.time()),
        estimated_finish=None,
        trained_tokens=trained_tokens,
        result_files=_json([result_file]),
    )
    add_event(connection, job.id, f"New fine-tuned model created: {job.openai_name}")
    add_event(connection, job.id, "The job has successfully completed")


def fail(connection: Connection, claim: Claim, error: StillroomError) -> None:
    """The worker gives the job up. Raises StaleClaim when it is no longer its to give up."""
    jobs.guard(connection, claim)
    _fail(connection, claim.subject, error, expected=(State.RUNNING,))


def set_aside(connection: Connection, claim: Claim, to: State) -> None:
    """The worker has stopped the job where it can go on: PAUSED by wish, or QUEUED for another."""
    jobs.release(connection, claim, to)
    text = "The job was paused." if to is State.PAUSED else "The job was interrupted and waits to go on."
    add_event(connection, claim.subject, text, level="info" if to is State.PAUSED else "warn")


def record_crash(connection: Connection, claim: Claim) -> None:
    """The training process has died; the job goes on from its last saved state."""
    jobs.count_crash(connection, claim)
    add_event(
        connection, claim.subject, "The training process died; the job goes on from its last state.", level="warn"
    )


def _fail(connection: Connection, job_id: str, error: StillroomError, *, expected: tuple[State, ...]) -> None:
    if not jobs.move(connection, job_id, expected=expected, to=State.FAILED):
        return
    problem = {"code": error.code, "message": error.message, "param": error.param}
    _set(connection, job_id, error=_json(problem), finished_at=int(time.time()), estimated_finish=None)
    add_event(connection, job_id, error.message, level="error")


def add_event(
    connection: Connection,
    job_id: str,
    message: str,
    *,
    level: str = "info",
    type_: str = "message",
    data: Mapping[str, Any] | None = None,
) -> None:
    row = {"id": ids.random_id("ftevent-"), "job": job_id, "created_at": int(time.time()), "level": level}
    text = _json(data) if data is not None else None
    connection.execute(insert(fine_tuning_events).values(**row, type=type_, message=message, data=text))


def _step_text(step: Mapping[str, Any]) -> str:
    valid = f", validation loss={step['valid_loss']:.2f}" if step.get("valid_loss") is not None else ""
    return f"Step {step['step']}/{step['total_steps']}: training loss={step['train_loss']:.2f}{valid}"


def _step_data(step: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in step.items() if name != "type" and value is not None}


# --- rows <-> objects -------------------------------------------------------------------------------


def _joined() -> Any:
    return select(fine_tuning_jobs, jobs.jobs.c.state).join(jobs.jobs, jobs.jobs.c.subject == fine_tuning_jobs.c.id)


def _job(row: Row[Any]) -> Job:
    values = dict(row._mapping)
    for name in ("metadata", "error", "result_files"):
        values[name] = _parsed(values[name])
    values["hyperparameters"] = msgspec.json.decode(values["hyperparameters"], type=Hyperparameters)
    values["state"] = State(values["state"])
    return Job(**values)


def _set(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(fine_tuning_jobs).where(fine_tuning_jobs.c.id == job_id).values(**values))


def _without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _parsed(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
