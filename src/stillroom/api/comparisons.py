"""Teacher beside student, below `/v1/stillroom`: a comparison started in one call, and its report."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

import msgspec

from stillroom import catalog, chat
from stillroom.api.extensions import body_as
from stillroom.api.filters import SelectionFilter, filter_of
from stillroom.api.wire import Call, Reply
from stillroom.billing import rounded_microusd
from stillroom.completions import table
from stillroom.config import FINE_TUNED, SCRATCH
from stillroom.errors import Conflict, InvalidRequest, ModelNotFound
from stillroom.evals import comparison, order
from stillroom.evals.reporting import page, report
from stillroom.evals.table import Eval, Run
from stillroom.fine_tuning import Job
from stillroom.jobs import State
from stillroom.serving.prices import price_book
from stillroom.serving.savings import break_even_of

FORMATS = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
}
# The page has a stylesheet in it, and nothing else than text that others wrote.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
MOST_RUNS = 20
ITEMS = 1000  # asked of each model unless told otherwise


class ComparisonRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give `jobs` (their models), `models`, or both.

    `filter` says which stored completions; default: those the first job's were selected by. `held_out`
    leaves out what any of the models was trained on. `judge` names a model that gives its opinion too;
    `base` puts the bases that the jobs fine-tuned beside their models.
    """

    jobs: list[str] = []
    models: list[str] = []
    filter: SelectionFilter | None = None
    held_out: bool = True
    judge: str | None = None
    base: bool = True
    limit: Annotated[int, msgspec.Meta(ge=1)] = ITEMS
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    name: str | None = None


def compare(call: Call) -> Reply:
    """Put students beside their teacher on stored completions: makes an eval and starts its runs."""
    asked: ComparisonRequest = body_as(call, ComparisonRequest)
    jobs = [_finished(call, job_id) for job_id in asked.jobs]
    models, notes = _models(asked, jobs)
    chosen = _filter(asked, jobs)
    _check_any(call, chosen)
    held_out = _jobs_behind(call, jobs, models) if asked.held_out else []
    definition = call.platform.evals.create(
        call.project,
        order.parse_eval(
            {
                "name": asked.name or f"{' and '.join(map(_short, models))[:200]} beside the teacher",
                "data_source_config": {"type": "stored_completions", "metadata": chosen.metadata},
                "testing_criteria": comparison.criteria(asked.judge),
            }
        ),
    )
    try:
        runs = [_start(call, asked, definition, model, chosen, held_out) for model in models]
    except Exception:
        call.platform.evals.delete(call.project, definition.id)  # made for runs that are not to be
        raise
    body = {
        "object": "stillroom.comparison",
        "eval_id": definition.id,
        "runs": [run.id for run in runs],
        "notes": notes,
    }
    return Reply(body=body, status=201)


def show_report(call: Call) -> Reply:
    """The report over an eval's runs: `format` json, html or markdown; `runs` names some of them."""
    wanted = call.query.get("format", "json")
    if wanted not in FORMATS:
        raise InvalidRequest(f"Invalid 'format': {wanted!r}. Expected one of {', '.join(FORMATS)}.", param="format")
    definition = call.platform.evals.get(call.project, call.parameters["id"])
    made = report.make(call.platform.evals, definition, _runs(call), _prices(call), partial(_earning, call))
    text = page.as_json(made) if wanted == "json" else _text(made, wanted).encode()
    headers = {"content-type": FORMATS[wanted]}
    if wanted == "html":
        headers["content-security-policy"] = POLICY
    return Reply(body=text, headers=headers)


def _text(made: report.Report, wanted: str) -> str:
    return page.as_html(made) if wanted == "html" else page.as_markdown(made)


def _runs(call: Call) -> list[Run]:
    eval_id = call.parameters["id"]
    if named := call.query.get("runs"):
        wanted = list(dict.fromkeys(named.split(",")))
        if len(wanted) > MOST_RUNS:
            raise InvalidRequest(f"'runs' names {len(wanted)} runs; a report has at most {MOST_RUNS}.", param="runs")
        return [call.platform.evals.get_run(call.project, eval_id, run) for run in wanted]
    found = call.platform.evals.latest_runs(call.project, eval_id, MOST_RUNS)
    if not found:
        raise Conflict(f"The eval {eval_id} has no runs to report on.", param="id")
    return found


def _prices(call: Call) -> dict[str, Any]:
    with call.platform.database.read() as connection:
        book = price_book(call.platform.settings, connection, call.project)
    return {priced.name: priced.price for priced in book}


def _earning(call: Call, teachers: list[str], student: str | None) -> report.Earning | None:
    if student is None or student in call.platform.settings.teachers:
        return None
    try:
        found = break_even_of(
            call.platform.settings,
            call.platform.database,
            call.project,
            teachers=teachers,
            student=student,
            now=int(time.time()),
        )
    except ModelNotFound:
        return None  # it is gone since the run
    return report.Earning(
        training_microusd=rounded_microusd(found.training_picousd),
        teacher_microusd_per_day=rounded_microusd(found.teacher_day_picousd),
        student_microusd_per_day=rounded_microusd(found.student_tokens_day_picousd + found.student_hosting_day_picousd),
        days=found.days,
        date=found.date,
        reason=found.reason,
    )


def _finished(call: Call, job_id: str) -> Job:
    job = call.platform.fine_tuning.get(call.project, job_id)
    if job.state is not State.SUCCEEDED:
        raise Conflict(f"The job {job_id} is {job.state}; compare its model when it has succeeded.", param="job")
    return job


def _models(asked: ComparisonRequest, jobs: list[Job]) -> tuple[list[str], list[str]]:
    """The models to ask, and what is to be said of those that are not."""
    if not jobs and not asked.models:
        raise InvalidRequest("Give 'jobs', 'models', or both: nothing is to be compared.", param="models")
    notes: list[str] = []
    bases: list[str] = []
    for job in jobs if asked.base else []:
        if job.model != SCRATCH:
            bases.append(job.model)
        elif not notes:
            notes.append(f"{SCRATCH} starts from random weights, so there is no base to put beside {job.openai_name}.")
    return list(dict.fromkeys([*bases, *[job.openai_name for job in jobs], *asked.models])), notes


def _jobs_behind(call: Call, jobs: list[Job], models: list[str]) -> list[str]:
    """The jobs that trained any of the models."""
    found = [job.id for job in jobs]
    with call.platform.database.read() as connection:
        for name in models:
            _, tuned = catalog.look_up(connection, call.project, name)
            found += [tuned.job] if tuned else []
    return list(dict.fromkeys(found))


def _filter(asked: ComparisonRequest, jobs: list[Job]) -> SelectionFilter:
    if asked.filter is not None:
        chat.check_metadata(asked.filter.metadata)
        return asked.filter
    if not jobs:
        return SelectionFilter()
    if jobs[0].selection is None:
        raise InvalidRequest(
            f"The training file of {jobs[0].id} was uploaded, so it is not known which stored completions it stands for. "
            "Say which to ask about by 'filter'.",
            param="filter",
        )
    # Also what came later: that the student has not seen either.
    known = jobs[0].selection["filter"]
    return SelectionFilter(
        model=known["model"],
        metadata=known["metadata"],
        created_after=known["created_after"],
        search=known.get("search"),  # files made before there was a search do not say
    )


def _check_any(call: Call, chosen: SelectionFilter) -> None:
    with call.platform.database.read() as connection:
        found = table.numbers(connection, call.project, filter_of(chosen), descending=True, limit=1)
    if not found:
        raise InvalidRequest("No stored completion matches, so there is nothing to compare on.", param="filter")


def _start(
    call: Call, asked: ComparisonRequest, definition: Eval, model: str, chosen: SelectionFilter, held_out: list[str]
) -> Run:
    source = {
        "type": "stored_completions",
        **msgspec.to_builtins(chosen),
        "limit": asked.limit,
        "held_out_from": held_out or None,
    }
    data_source = {
        "type": "completions",
        "source": {name: value for name, value in source.items() if value is not None},
        "model": model,
        "input_messages": {"type": "item_reference", "item_reference": "item.input"},
        "sampling_params": {"temperature": asked.temperature},
    }
    parsed = order.parse_run({"name": _short(model), "data_source": data_source}, definition.data_source_config)
    return call.platform.evals.start(call.project, call.principal.key_id, definition.id, parsed)


def _short(model: str) -> str:
    """What a run is called: a fine-tuned model by what tells it from others, `triage:Ab12Cd34`."""
    if not model.startswith(FINE_TUNED):
        return model[:200]
    base, _organization, suffix, *rest = model.removeprefix(FINE_TUNED).split(":")
    return ":".join([suffix or base, *rest])
