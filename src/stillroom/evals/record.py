"""What a worker records of the run it carries out. Every function refuses a claim that no longer holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, insert, select

from stillroom import ids, jobs
from stillroom.errors import StillroomError
from stillroom.evals.items import Laid
from stillroom.evals.table import (
    Outcome,
    eval_output_items,
    eval_runs,
    packed,
    set_run,
)
from stillroom.evals.usage import add_usage
from stillroom.jobs import Claim, State
from stillroom.store.tables import as_json, parsed

COLUMN_OF = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.ERROR: "errored"}
NOT_KEPT = ("type", "number", "status")


def record_start(connection: Connection, claim: Claim, laid: Laid) -> None:
    """The run's items are laid out."""
    jobs.guard(connection, claim)
    set_run(connection, claim.subject, total=laid.total, lineage=as_json(asdict(laid)), started_at=int(time.time()))


def graded_items(connection: Connection, run_id: str) -> list[int]:
    """The items that are recorded."""
    table = eval_output_items
    return list(connection.execute(select(table.c.item).where(table.c.run == run_id)).scalars())


def record_items(connection: Connection, claim: Claim, found: Iterable[Mapping[str, Any]]) -> None:
    """Items with their grades, and what they add to the run's counts and usage: one transaction."""
    jobs.guard(connection, claim)
    # Not the whole run: its data source may be large, and everybody's writes wait for this one.
    columns = [eval_runs.c[name] for name in (*COLUMN_OF.values(), "per_model_usage", "per_criterion")]
    *counted, usage_text, criteria_text = connection.execute(
        select(*columns).where(eval_runs.c.id == claim.subject)
    ).one()
    counts = dict(zip(COLUMN_OF.values(), counted, strict=True))
    usage, criteria = parsed(usage_text), parsed(criteria_text)
    now = int(time.time())
    rows = []
    for one in found:
        body = {name: value for name, value in one.items() if name not in NOT_KEPT}
        row = {"id": ids.random_id("outputitem_"), "run": claim.subject, "item": one["number"], "created_at": now}
        rows.append({**row, "status": one["status"], "body": packed(body)})
        counts[COLUMN_OF[Outcome(one["status"])]] += 1
        _add_results(criteria, one["results"])
        add_usage(usage, one["usage"])
    connection.execute(insert(eval_output_items), rows)
    jobs.forget_crashes(connection, claim)
    set_run(connection, claim.subject, **counts, per_criterion=as_json(criteria), per_model_usage=as_json(usage))


def finish(connection: Connection, claim: Claim) -> None:
    """Every item is recorded."""
    jobs.release(connection, claim, State.SUCCEEDED)
    set_run(connection, claim.subject, finished_at=int(time.time()))


def fail(connection: Connection, claim: Claim, error: StillroomError) -> None:
    """The run cannot go on; what it found stays."""
    jobs.release(connection, claim, State.FAILED)
    problem = as_json({"code": error.code, "message": error.message})
    set_run(connection, claim.subject, error=problem, finished_at=int(time.time()))


def _add_results(criteria: list[dict[str, int]], results: Iterable[Mapping[str, Any]]) -> None:
    for total, result in zip(criteria, results, strict=False):  # an item in error may have none
        if result["problem"] is None:
            total["passed" if result["passed"] else "failed"] += 1


def set_aside(connection: Connection, claim: Claim, to: State) -> None:
    """The worker stops; the run goes on later from what is recorded."""
    jobs.release(connection, claim, to)
