"""The tables of evals, their runs and what the runs found, and their rows as objects.

The queue (`jobs.py`) says where a run stands; here is what it is about. Functions take the caller's
connection, so that what they write is part of its transaction. Counts and usage are kept on the run
as its items are recorded, so that nothing has to be summed to show it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    select,
    update,
)

from stillroom import jobs
from stillroom.errors import NotFound, shortened
from stillroom.jobs import State
from stillroom.store.tables import RowId, metadata, parsed

KIND = "eval_run"

evals = Table(
    "evals",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("name", String(256), nullable=False),
    Column("metadata", Text),
    Column("data_source_config", Text, nullable=False),
    Column("testing_criteria", Text, nullable=False),
    Index("ix_evals_project_number", "project", "number"),
    Index("ix_evals_project_updated_at_number", "project", "updated_at", "number"),
)

eval_runs = Table(
    "eval_runs",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("eval", String(64), nullable=False),
    Column("project", ForeignKey("projects.id"), nullable=False),
    # The key whose owner asked for the run, and pays for it.
    Column("key_id", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("name", String(256), nullable=False),
    # The model that answers; NULL when stored or given answers are graded.
    Column("model", String(256)),
    Column("metadata", Text),
    Column("data_source", Text, nullable=False),
    Column("total", Integer, nullable=False, default=0),
    Column("passed", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("errored", Integer, nullable=False, default=0),
    Column("per_model_usage", Text, nullable=False, default="{}"),
    Column("per_criterion", Text, nullable=False, default="[]"),
    # What is known of the items and the model's training; NULL until the items are laid out.
    Column("lineage", Text),
    Column("error", Text),
    Index("ix_eval_runs_eval_number", "eval", "number"),
    Index("ix_eval_runs_project_number", "project", "number"),
)

eval_output_items = Table(
    "eval_output_items",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("run", String(64), nullable=False),
    Column("item", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("status", String(8), nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("run", "item"),
    Index("ix_eval_output_items_run_status_item", "run", "status", "item"),
)


class Outcome(enum.StrEnum):
    """How an item came out. ERROR: it could not be sampled, or a grader could not grade it."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Eval:
    """A definition: where items come from, and what they are graded by."""

    number: int
    id: str
    project: int
    created_at: int
    updated_at: int
    name: str
    metadata: dict[str, str] | None
    data_source_config: dict[str, Any]
    testing_criteria: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Items of a run by outcome; `total` counts those not yet graded too."""

    total: int
    passed: int
    failed: int
    errored: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """A model, or stored answers, put through an eval. `usage` is by model, in tokens; `criteria` has
    each criterion's {passed, failed} in the order of the eval's."""

    number: int
    id: str
    eval: str
    project: int
    key_id: str
    state: State
    created_at: int
    started_at: int | None
    finished_at: int | None
    name: str
    model: str | None
    metadata: dict[str, str] | None
    data_source: dict[str, Any]
    counts: Counts
    usage: dict[str, dict[str, int]]
    criteria: list[dict[str, int]]
    lineage: dict[str, Any] | None
    error: dict[str, str] | None


@dataclass(frozen=True, kw_only=True)
class OutputItem:
    """One item's outcome. `body` is what the runner reported: `item`, `sample`, `results`, and for stored
    completions `agrees`, `latency_ms` and the teacher's side in `reference`."""

    number: int
    id: str
    run: str
    item: int
    created_at: int
    outcome: Outcome
    body: dict[str, Any]


def get_eval(connection: Connection, project: int, eval_id: str) -> Eval:
    """Raises NotFound when the project has no such eval."""
    row = connection.execute(select(evals).where(evals.c.project == project, evals.c.id == eval_id)).first()
    if row is None:
        raise NotFound(f"No eval found with id '{shortened(eval_id)}'.", param="eval_id")
    return eval_of(row)


def get_run(connection: Connection, project: int, run_id: str) -> Run:
    """Raises NotFound when the project has no such run."""
    row = connection.execute(joined().where(eval_runs.c.project == project, eval_runs.c.id == run_id)).first()
    if row is None:
        raise NotFound(f"No eval run found with id '{shortened(run_id)}'.", param="run_id")
    return run_of(row)


def project_of(connection: Connection, run_id: str) -> int | None:
    """Whose run it is; None when it is gone."""
    return connection.execute(select(eval_runs.c.project).where(eval_runs.c.id == run_id)).scalar()


def set_run(connection: Connection, run_id: str, **values: Any) -> None:
    connection.execute(update(eval_runs).where(eval_runs.c.id == run_id).values(**values))


def joined() -> Any:
    return select(eval_runs, jobs.jobs.c.state).join(jobs.jobs, jobs.jobs.c.subject == eval_runs.c.id)


def eval_of(row: Row[Any]) -> Eval:
    values = dict(row._mapping)
    for name in ("metadata", "data_source_config", "testing_criteria"):
        values[name] = parsed(values[name])
    return Eval(**values)


def run_of(row: Row[Any]) -> Run:
    values = dict(row._mapping)
    counts = Counts(**{name: values.pop(name) for name in Counts.__dataclass_fields__})
    usage, criteria = parsed(values.pop("per_model_usage")), parsed(values.pop("per_criterion"))
    for name in ("metadata", "data_source", "lineage", "error"):
        values[name] = parsed(values[name])
    return Run(**{**values, "state": State(values["state"])}, counts=counts, usage=usage, criteria=criteria)


def output_item_of(row: Row[Any]) -> OutputItem:
    return OutputItem(
        number=row.number,
        id=row.id,
        run=row.run,
        item=row.item,
        created_at=row.created_at,
        outcome=Outcome(row.status),
        body=msgspec.json.decode(zstandard.ZstdDecompressor().decompress(row.body)),
    )


def packed(body: dict[str, Any]) -> bytes:
    return zstandard.ZstdCompressor().compress(msgspec.json.encode(body))
