"""The tables of fine-tuning, and their rows as objects.

The queue (`jobs.py`) says where a job stands; here is what it is about. Functions take the caller's
connection, so that what they write is part of its transaction.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    insert,
    select,
    update,
)

from stillroom import ids, jobs
from stillroom.errors import NotFound, StillroomError, shortened
from stillroom.fine_tuning.integrations import Integration
from stillroom.fine_tuning.method import Hyperparameters
from stillroom.jobs import State
from stillroom.store.tables import RowId, as_json, metadata, parsed
from stillroom.student.hyperparameters import MethodType

KIND = "fine_tuning"
METRICS = "metrics"

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
    Column("method", String(16), nullable=False, server_default=MethodType.SUPERVISED.value),
    Column("hyperparameters", Text, nullable=False),
    # The model that judges what the student of an on-policy job says; NULL: the student itself.
    Column("teacher", String(256)),
    Column("metadata", Text),
    Column("integrations", Text),
    Column("result_files", Text, nullable=False),
    Column("trained_tokens", BigInteger),
    # What its training process has run for so far; and the sum of the rows it ran on, to find its quote by.
    Column("running_milliseconds", BigInteger),
    Column("training_digest", String(64)),
    Column("error", Text),
    # Where the training file came from, which may be deleted: see `files`.
    Column("selection", Text),
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
    method: MethodType
    hyperparameters: Hyperparameters
    teacher: str | None
    metadata: dict[str, str] | None
    integrations: tuple[Integration, ...]
    result_files: list[str]
    trained_tokens: int | None
    running_milliseconds: int | None
    training_digest: str | None
    error: dict[str, Any] | None
    selection: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job. `data` holds a step's numbers when `type` is "metrics", and the
    steps to come when it is the job's start."""

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


def get_job(connection: Connection, project: int, job_id: str) -> Job:
    """Raises NotFound when the project has no such job."""
    row = fine_tuning_jobs.c
    record = connection.execute(joined().where(row.project == project, row.id == job_id)).first()
    if record is None:
        raise NotFound(f"Could not find fine tune: {shortened(job_id)}", param="fine_tuning_job_id")
    return job_of(record)


def fail_job(connection: Connection, job_id: str, error: StillroomError, *, expected: tuple[State, ...]) -> None:
    if not jobs.move(connection, job_id, expected=expected, to=State.FAILED):
        return
    problem = {"code": error.code, "message": error.message, "param": error.param}
    set_job(connection, job_id, error=as_json(problem), finished_at=int(time.time()), estimated_finish=None)
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
    text = as_json(data) if data is not None else None
    connection.execute(insert(fine_tuning_events).values(**row, type=type_, message=message, data=text))


def joined() -> Any:
    return select(fine_tuning_jobs, jobs.jobs.c.state).join(jobs.jobs, jobs.jobs.c.subject == fine_tuning_jobs.c.id)


def job_of(row: Row[Any]) -> Job:
    values = dict(row._mapping)
    for name in ("metadata", "error", "result_files", "selection"):
        values[name] = parsed(values[name])
    values["hyperparameters"] = msgspec.json.decode(values["hyperparameters"], type=Hyperparameters)
    values["integrations"] = msgspec.json.decode(values["integrations"] or "[]", type=tuple[Integration, ...])
    values["method"] = MethodType(values["method"])
    values["state"] = State(values["state"])
    return Job(**values)


def set_job(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(fine_tuning_jobs).where(fine_tuning_jobs.c.id == job_id).values(**values))


def event_of(row: Mapping[str, Any]) -> Event:
    values = {name: value for name, value in row.items() if name != "job"}
    return Event(**{**values, "data": parsed(row["data"])})


def checkpoint_of(row: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(**{**row, "metrics": parsed(row["metrics"])})


def last_step(connection: Connection, job_id: str) -> int:
    """The last training step that has an event; 0 before the first."""
    events = fine_tuning_events.c
    query = select(events.data).where(events.job == job_id, events.type == METRICS).order_by(events.number.desc())
    data = parsed(connection.execute(query.limit(1)).scalar())
    return int(data["step"]) if data else 0
