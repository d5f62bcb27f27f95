"""`stillroom evals`: put students beside their teacher, and read what came of it."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stillroom.cli.client import Client, connect, segment
from stillroom.cli.options import Data, Json, Metadata, metadata, since
from stillroom.cli.output import as_json, err, fail, note, say, table, when
from stillroom.evals.reporting import page
from stillroom.evals.reporting.report import Report

app = typer.Typer(help="Evals of the running server: how good a student is beside its teacher.", no_args_is_help=True)

EVALS = "/v1/evals"
LOOK_SECONDS = 0.5
ENDED = ("completed", "failed", "canceled")
FORMAT_OF = {".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown", ".json": "json"}

EvalId = Annotated[str, typer.Argument(metavar="EVAL_ID")]


@app.command("list")
def list_evals(
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20, json: Json = False, data: Data = None
) -> None:
    """List evals, newest first."""
    reached = connect(data)
    found = list(reached.pages(EVALS, {"order": "desc"}, limit))
    for one in found:
        one["runs"] = list(reached.pages(f"{EVALS}/{one['id']}/runs", {}))
    if json:
        as_json(found)
        return
    rows = [(one["id"], when(one["created_at"]), _states(one["runs"]), one["name"]) for one in found]
    table(
        ("ID", "CREATED", "RUNS", "NAME"), rows, "No evals. `stillroom evals run --job ftjob-... --holdout` makes one."
    )


@app.command()
def run(
    jobs: Annotated[
        list[str] | None,
        typer.Option("--job", metavar="ftjob-...", help="A finished job whose model is compared; may be repeated."),
    ] = None,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Only ask what none of the models was trained on.")
    ] = False,
    models: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="A model to compare too; may be repeated.")
    ] = None,
    metadata_: Metadata = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="Only this teacher's stored answers.")] = None,
    since_: Annotated[
        str | None, typer.Option("--since", metavar="T", help="Only from 30m, 2h, 7d ago, or ISO.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="NAME", help="A model that gives its opinion.")
    ] = None,
    base: Annotated[bool, typer.Option(help="Put the base model beside the fine-tuned one.")] = True,
    limit: Annotated[int, typer.Option(help="How many items to ask at most, the newest.", min=1)] = 1000,
    name: Annotated[str | None, typer.Option(help="What the eval is called.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the runs and show the report.")] = True,
    json: Json = False,
    data: Data = None,
) -> None:
    """Ask students what their teacher was asked, and compare the answers."""
    reached = connect(data)
    if not jobs and not models:
        raise typer.BadParameter("give the job whose model is to be compared, or --model.", param_hint="--job")
    conditions = {"metadata": metadata(metadata_), "model": teacher, "created_after": since(since_)}
    asked = {
        "jobs": jobs or [],
        "models": models or [],
        "filter": conditions if any(conditions.values()) else None,
        "held_out": holdout,
        "judge": judge,
        "base": base,
        "limit": limit,
        "name": name,
    }
    made = reached.post("/v1/stillroom/comparisons", {key: value for key, value in asked.items() if value is not None})
    for told in made["notes"]:
        note(f"Note: {told}")
    if not wait:
        if json:
            as_json(made)
        else:
            say(made["eval_id"])
        return
    ended = [_follow(reached, made["eval_id"], run_id) for run_id in made["runs"]]
    _show(reached, made["eval_id"], json=json)
    came_through = [_came_through(one) for one in ended]  # each says why not
    if not all(came_through):
        raise typer.Exit(1)
    note(
        f"The whole report, with slices and disagreements: stillroom evals report {made['eval_id']} --output report.html"
    )


@app.command()
def show(eval_id: EvalId, json: Json = False, data: Data = None) -> None:
    """Show an eval and its runs."""
    reached = connect(data)
    found = reached.get(f"{EVALS}/{segment(eval_id)}")
    found["runs"] = list(reached.pages(f"{EVALS}/{segment(eval_id)}/runs", {}))
    if json:
        as_json(found)
        return
    say(f"{found['id']}: {found['name']}")
    for criterion in found["testing_criteria"]:
        say(f"criterion: {criterion['name']} ({criterion['type']})")
    for one in found["runs"]:
        counts = one["result_counts"]
        say(
            f"run: {one['id']} {one['status']} {one['model'] or '-'}: {counts['passed']} passed, {counts['failed']} "
            f"failed, {counts['errored']} in error, of {counts['total']}"
        )
        if one["error"]:
            fail(one["error"]["message"])


@app.command()
def report(
    eval_id: EvalId,
    runs: Annotated[
        list[str] | None, typer.Option("--run", metavar="RUN_ID", help="Only these runs; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the page to this file: .html, .md or .json. Default: a summary here.")
    ] = None,
    json: Json = False,
    data: Data = None,
) -> None:
    """Show teacher beside student, or write it as a page that stands alone."""
    reached = connect(data)
    if output is None:
        _show(reached, eval_id, json=json, runs=runs)
        return
    wanted = FORMAT_OF.get(output.suffix.lower())
    if wanted is None:
        raise typer.BadParameter(f"{output.name!r} must end in .html, .md or .json.", param_hint="--output")
    page = b"".join(reached.content(f"{_report(eval_id)}?format={wanted}{_only(runs)}"))
    try:
        output.write_bytes(page)
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written: {error.strerror}.", param_hint="--output") from error
    say(str(output))


@app.command()
def cancel(
    eval_id: EvalId,
    runs: Annotated[
        list[str] | None, typer.Option("--run", metavar="RUN_ID", help="Only this run; may be repeated.")
    ] = None,
    data: Data = None,
) -> None:
    """Cancel an eval's runs that are queued or under way; what they found stays."""
    reached = connect(data)
    path = f"{EVALS}/{segment(eval_id)}/runs"
    under_way = [one["id"] for one in reached.pages(path, {}) if one["status"] not in ENDED]
    for run_id in runs or under_way:
        reached.post(f"{path}/{segment(run_id)}/cancel")
        say(f"{run_id} is cancelled.")
    if not runs and not under_way:
        note("No run of this eval is under way.")


@app.command("delete")
def delete_eval(eval_id: EvalId, data: Data = None) -> None:
    """Delete an eval, its runs and what they found."""
    connect(data).delete(f"{EVALS}/{segment(eval_id)}")
    say(f"{eval_id} is deleted.")


def _show(reached: Client, eval_id: str, *, json: bool, runs: list[str] | None = None) -> None:
    found = reached.get(_report(eval_id), {"runs": ",".join(runs)} if runs else None)
    if json:
        as_json(found)
        return
    made = msgspec.convert(found, Report)
    for told in made.notes:
        note(f"Note: {told}")
    for line in page.headlines(made):
        say(line)
    table(page.columns(made), page.rows(made), "The runs found nothing.")
    for line in page.pair_lines(made):
        say(line)


def _came_through(run: dict[str, Any]) -> bool:
    """Whether a run has something to say; if not, why."""
    if run["status"] != "completed":
        fail(f"{run['name']}: {run['error']['message'] if run['error'] else 'the run was ' + run['status']}")
        return False
    if run["result_counts"]["errored"] == run["result_counts"]["total"]:
        fail(f"{run['name']}: no item could be answered and graded.")
        return False
    return True


def _follow(reached: Client, eval_id: str, run_id: str) -> dict[str, Any]:
    """Shows a run's progress until it ends; gives the run."""
    path = f"{EVALS}/{segment(eval_id)}/runs/{segment(run_id)}"
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as progress:
        bar = progress.add_task("queued", total=None)
        while True:
            one = reached.patiently(path)
            counts = one["result_counts"]
            done = counts["passed"] + counts["failed"] + counts["errored"]
            progress.update(
                bar, description=f"{one['name']} {one['status']}", completed=done, total=counts["total"] or None
            )
            if one["status"] in ENDED:
                return one
            time.sleep(LOOK_SECONDS)


def _states(runs: list[dict[str, Any]]) -> str:
    counted = Counter(one["status"] for one in runs)
    return ", ".join(f"{count} {status}" for status, count in counted.items()) or "-"


def _report(eval_id: str) -> str:
    return f"/v1/stillroom/evals/{segment(eval_id)}/report"


def _only(runs: list[str] | None) -> str:
    return f"&runs={','.join(map(segment, runs))}" if runs else ""
