"""Teacher beside student, below `/v1/stillroom`: a comparison started in one call, and its report."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

import msgspec

from stillroom import chat
from stillroom.api.extensions import SelectionFilter
from stillroom.api.wire import Call, Reply
from stillroom.billing import rounded_microusd
from stillroom.config import SCRATCH
from stillroom.errors import Conflict, InvalidRequest, ModelNotFound
from stillroom.evals import order
from stillroom.evals.reporting import comparison, page, report
from stillroom.evals.table import Run
from stillroom.fine_tuning import Job
from stillroom.jobs import State
from stillroom.serving.prices import price_book
from stillroom.serving.savings import break_even_of

FORMATS = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
}
MOST_RUNS = 20
ITEMS = 1000  # asked of each model unless told otherwise


class ComparisonRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give `job` (its model, asked about what it was not trained on), `models`, or both.

    `filter` says which stored completions; default: those the job's were selected by. `judge` names a
    model that gives its opinion too; `base` puts the base that the job fine-tuned beside its model.
    """

    job: str | None = None
    models: list[str] = []
    filter: SelectionFilter | None = None
    held_out: bool = True
    judge: str | None = None
    base: bool = True
    limit: Annotated[int, msgspec.Meta(ge=1)] = ITEMS
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    name: str | None = None


def compare(call: Call) -> Reply:
    """Put students beside their teacher on held-out stored completions: makes an eval and starts its runs."""
    try:
        asked = msgspec.convert(call.json(), ComparisonRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The request body is wrong: {error}.") from error
    job = _finished(call, asked.job) if asked.job else None
    models, notes = _models(call, asked, job)
    chosen = _filter(asked, job)
    definition = call.platform.evals.create(
        call.project,
        order.parse_eval(
            {
                "name": asked.name or f"{' and '.join(models)[:200]} beside the teacher",
                "data_source_config": {"type": "stored_completions", "metadata": chosen.metadata},
                "testing_criteria": comparison.criteria(asked.judge),
            }
        ),
    )
    try:
        runs = [_start(call, asked, definition.id, model, chosen, job) for model in models]
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
        headers["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    return Reply(body=text, headers=headers)


def _text(made: report.Report, wanted: str) -> str:
    return page.as_html(made) if wanted == "html" else page.as_markdown(made)


def _runs(call: Call) -> list[Run]:
    eval_id = call.parameters["id"]
    if named := call.query.get("runs"):
        return [call.platform.evals.get_run(call.project, eval_id, run) for run in named.split(",")]
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
        saved_microusd_per_day=rounded_microusd(found.saved_day_picousd),
        days=found.days,
        date=found.date,
        reason=found.reason,
    )


def _finished(call: Call, job_id: str) -> Job:
    job = call.platform.fine_tuning.get(call.project, job_id)
    if job.state is not State.SUCCEEDED:
        raise Conflict(f"The job {job_id} is {job.state}; compare its model when it has succeeded.", param="job")
    return job


def _models(call: Call, asked: ComparisonRequest, job: Job | None) -> tuple[list[str], list[str]]:
    """The models to ask, and what is to be said of those that are not."""
    if job is None:
        if not asked.models:
            raise InvalidRequest("Give 'job', 'models', or both: nothing is to be compared.", param="models")
        return asked.models, []
    notes = []
    before: list[str] = []
    if asked.base and job.model == SCRATCH:
        notes.append(f"{SCRATCH} starts from random weights, so there is no base to put beside {job.openai_name}.")
    elif asked.base:
        before = [job.model]
    return list(dict.fromkeys([*before, job.openai_name, *asked.models])), notes


def _filter(asked: ComparisonRequest, job: Job | None) -> SelectionFilter:
    if asked.filter is not None:
        chat.check_metadata(asked.filter.metadata)
        return asked.filter
    if job is None:
        return SelectionFilter()
    if job.selection is None:
        raise InvalidRequest(
            f"The training file of {job.id} was uploaded, so it is not known which stored completions it stands for. "
            "Say which to ask about by 'filter'.",
            param="filter",
        )
    # Also what came later: that the student has not seen either.
    known = job.selection["filter"]
    return SelectionFilter(model=known["model"], metadata=known["metadata"], created_after=known["created_after"])


def _start(
    call: Call, asked: ComparisonRequest, eval_id: str, model: str, chosen: SelectionFilter, job: Job | None
) -> Run:
    source = {
        "type": "stored_completions",
        "metadata": chosen.metadata,
        "model": chosen.model,
        "created_after": chosen.created_after,
        "created_before": chosen.created_before,
        "limit": asked.limit,
        "held_out_from": job.id if job is not None and asked.held_out else None,
    }
    data_source = {
        "type": "completions",
        "source": {name: value for name, value in source.items() if value is not None},
        "model": model,
        "input_messages": {"type": "item_reference", "item_reference": "item.input"},
        "sampling_params": {"temperature": asked.temperature},
    }
    definition = call.platform.evals.get(call.project, eval_id)
    parsed = order.parse_run({"name": model[:200], "data_source": data_source}, definition.data_source_config)
    return call.platform.evals.start(call.project, call.principal.key_id, eval_id, parsed)
