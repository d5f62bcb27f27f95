"""Evals, their runs and what the runs found."""

from __future__ import annotations

from typing import Any

from stillroom.api.wire import Call, Reply, listing
from stillroom.errors import InvalidRequest
from stillroom.evals import order
from stillroom.evals.owner import Page
from stillroom.evals.table import Eval, Outcome, OutputItem, Run
from stillroom.jobs import State

PAGE, LARGEST_PAGE = 20, 100
STATUS = {
    State.QUEUED: "queued",
    State.RUNNING: "in_progress",
    State.SUCCEEDED: "completed",
    State.CANCELLED: "canceled",
    State.FAILED: "failed",
}
OUTCOMES = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "error": Outcome.ERROR}
SHOWN_RESULT = ("name", "type", "score", "passed", "sample")


def create(call: Call) -> Reply:
    """Create an eval: where its items come from, and what they are graded by."""
    made = call.platform.evals.create(call.project, order.parse_eval(call.json()))
    return Reply(body=_eval(made), status=201)


def list_evals(call: Call) -> Reply:
    """List evals by creation or last change, oldest first unless told otherwise."""
    ordered_by = call.query.get("order_by", "created_at")
    if ordered_by not in ("created_at", "updated_at"):
        raise InvalidRequest(
            f"Invalid 'order_by': {ordered_by!r}. Expected 'created_at' or 'updated_at'.", param="order_by"
        )
    found, more = call.platform.evals.page(call.project, _page(call), by_update=ordered_by == "updated_at")
    return Reply(body=listing([_eval(one) for one in found], more))


def retrieve(call: Call) -> Reply:
    """Retrieve an eval."""
    return Reply(body=_eval(call.platform.evals.get(call.project, call.parameters["id"])))


def update(call: Call) -> Reply:
    """Rename an eval, or set its metadata."""
    changes = order.parse_change(call.json())
    return Reply(body=_eval(call.platform.evals.change(call.project, call.parameters["id"], changes)))


def delete(call: Call) -> Reply:
    """Delete an eval, its runs and what they found."""
    call.platform.evals.delete(call.project, call.parameters["id"])
    return Reply(body={"object": "eval.deleted", "deleted": True, "eval_id": call.parameters["id"]})


def create_run(call: Call) -> Reply:
    """Start a run of an eval."""
    definition = call.platform.evals.get(call.project, call.parameters["id"])
    asked = order.parse_run(call.json(), definition.data_source_config)
    run = call.platform.evals.start(call.project, call.principal.key_id, definition.id, asked)
    return Reply(body=_run(call, run, definition), status=201)


def list_runs(call: Call) -> Reply:
    """List an eval's runs, oldest first unless told otherwise."""
    definition = call.platform.evals.get(call.project, call.parameters["id"])
    found, more = call.platform.evals.runs(call.project, definition.id, _page(call), state=_state(call))
    return Reply(body=listing([_run(call, run, definition) for run in found], more))


def retrieve_run(call: Call) -> Reply:
    """Retrieve a run, with its counts as far as it has come."""
    definition, run = _found(call)
    return Reply(body=_run(call, run, definition))


def cancel_run(call: Call) -> Reply:
    """Cancel a run at once; what it has found stays."""
    definition = call.platform.evals.get(call.project, call.parameters["id"])
    run = call.platform.evals.cancel(call.project, definition.id, call.parameters["run"])
    return Reply(body=_run(call, run, definition))


def delete_run(call: Call) -> Reply:
    """Delete a run and what it found."""
    call.platform.evals.delete_run(call.project, call.parameters["id"], call.parameters["run"])
    return Reply(body={"object": "eval.run.deleted", "deleted": True, "run_id": call.parameters["run"]})


def list_output_items(call: Call) -> Reply:
    """List what a run found, all of it or by status."""
    definition, run = _found(call)
    asked = call.query.get("status")
    if asked is not None and asked not in OUTCOMES:
        raise InvalidRequest(f"Invalid 'status': {asked!r}. Expected one of {', '.join(OUTCOMES)}.", param="status")
    outcome = OUTCOMES[asked] if asked is not None else None
    found, more = call.platform.evals.output_items(call.project, definition.id, run.id, _page(call), outcome=outcome)
    return Reply(body=listing([_output_item(run, item) for item in found], more))


def retrieve_output_item(call: Call) -> Reply:
    """Retrieve one thing a run found."""
    definition, run = _found(call)
    item = call.platform.evals.output_item(call.project, definition.id, run.id, call.parameters["item"])
    return Reply(body=_output_item(run, item))


def _found(call: Call) -> tuple[Eval, Run]:
    definition = call.platform.evals.get(call.project, call.parameters["id"])
    return definition, call.platform.evals.get_run(call.project, definition.id, call.parameters["run"])


def _page(call: Call) -> Page:
    return Page(
        after=call.query.get("after") or None, descending=call.descending("asc"), limit=call.limit(PAGE, LARGEST_PAGE)
    )


def _state(call: Call) -> State | None:
    asked = call.query.get("status")
    if asked is None:
        return None
    for state, word in STATUS.items():
        if word == asked:
            return state
    raise InvalidRequest(f"Invalid 'status': {asked!r}. Expected one of {', '.join(STATUS.values())}.", param="status")


def _eval(definition: Eval) -> dict[str, Any]:
    return {
        "id": definition.id,
        "object": "eval",
        "created_at": definition.created_at,
        "name": definition.name,
        "metadata": definition.metadata,
        "data_source_config": definition.data_source_config,
        "testing_criteria": definition.testing_criteria,
    }


def _run(call: Call, run: Run, definition: Eval) -> dict[str, Any]:
    ended = run.finished_at is not None
    address = f"{call.scheme}://{call.headers.get('host', 'localhost')}"
    counts = run.counts
    return {
        "id": run.id,
        "object": "eval.run",
        "created_at": run.created_at,
        "status": STATUS[run.state],
        "name": run.name,
        "model": run.model or run.data_source.get("source", {}).get("model") or "",
        "eval_id": run.eval,
        "metadata": run.metadata,
        "data_source": run.data_source,
        "error": run.error,
        "report_url": f"{address}/v1/stillroom/evals/{run.eval}/report?format=html",
        "result_counts": {
            "total": counts.total,
            "passed": counts.passed,
            "failed": counts.failed,
            "errored": counts.errored,
        },
        "per_model_usage": [{"model_name": model, **used} for model, used in run.usage.items()] if ended else None,
        "per_testing_criteria_results": [
            {"testing_criteria": criterion["name"], **result}
            for criterion, result in zip(definition.testing_criteria, run.criteria, strict=True)
        ]
        if ended
        else None,
        # Ours: how much of what was asked the model was trained on, and what was left out.
        "lineage": run.lineage,
    }


def _output_item(run: Run, item: OutputItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "object": "eval.run.output_item",
        "created_at": item.created_at,
        "run_id": run.id,
        "eval_id": run.eval,
        "status": item.outcome.value,
        "datasource_item_id": item.item,
        "datasource_item": item.body["item"],
        "results": [_result(result) for result in item.body["results"]],
        "sample": item.body["sample"],
    }


def _result(result: dict[str, Any]) -> dict[str, Any]:
    shown = {name: result[name] for name in SHOWN_RESULT}
    if result["problem"] is not None:
        shown["error"] = {"code": result["problem"]["kind"], "message": result["problem"]["details"]}
    return shown
