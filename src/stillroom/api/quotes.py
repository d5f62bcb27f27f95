"""Quotes before fine-tuning jobs, the comparison after, and break-even: below `/v1/stillroom`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from stillroom import fine_tuning
from stillroom.api.extensions import SelectionRequest, body_as, selected
from stillroom.api.wire import Call, Reply
from stillroom.billing import PICO, rounded_microusd
from stillroom.billing.break_even import BreakEven
from stillroom.config import MICRO
from stillroom.errors import InvalidRequest
from stillroom.fine_tuning.quote import Actual, Quote
from stillroom.serving.savings import break_even_of
from stillroom.worker.fine_tune import digest_of
from stillroom.worker.measure import measure

NO_TEACHER = "No break-even: name the teacher or deployment that the student is to replace in 'replaces'."
OF_AN_ORDER = ("method", "hyperparameters")
AS_OF_A_JOB = {"$ref": "#/components/schemas/Hyperparameters"}


class QuoteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a fine-tuning job would be asked for; instead of `training_file` there may be a `selection`.
    `replaces`: the teacher or deployment for the break-even, where the rows do not tell."""

    model: str
    training_file: str | None = None
    selection: SelectionRequest | None = None
    validation_file: str | None = None
    method: dict[str, Any] | None = None
    hyperparameters: Annotated[dict[str, Any], msgspec.Meta(extra_json_schema=AS_OF_A_JOB)] | None = None
    replaces: Annotated[str, msgspec.Meta(min_length=1)] | None = None


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The files to quote. Those of a selection are `ours` to remove."""

    training_file: str
    validation_file: str | None
    ours: tuple[str, ...]
    warnings: tuple[str, ...]


async def create(call: Call) -> Reply:
    """Quote a fine-tuning job: its tokens, steps, cost, minutes and break-even, measured on this machine."""
    asked = body_as(call, QuoteRequest)
    rows = await _rows(call, asked)
    try:
        quote = await _quoted(call, asked, rows)
    finally:
        for file_id in rows.ours:
            await asyncio.to_thread(call.platform.files.delete, call.project, file_id)
    return Reply(body=_shown(quote))


def retrieve(call: Call) -> Reply:
    """Retrieve a quote."""
    return Reply(body=_shown(call.platform.quotes.get(call.project, call.parameters["id"])))


def compare(call: Call) -> Reply:
    """Compare a job with the quote made before it: predicted, actual, relative errors; nulls where there is none."""
    found = call.platform.quotes.compare(call.project, call.parameters["id"])
    predicted = _predicted(found.quote) if found.quote else None
    actual = _actual(found.actual) if found.actual else None
    body = {
        "object": "stillroom.quote.comparison",
        "job": found.job.id,
        "status": found.job.state.value,
        "quote": found.quote.id if found.quote else None,
        "predicted": predicted,
        "actual": actual,
        "relative_error": _errors(found.quote, found.actual) if found.quote and found.actual else None,
    }
    return Reply(body=body)


def break_even(call: Call) -> Reply:
    """When `student` has earned its training by answering instead of `teacher`, at the last 30 days' traffic."""
    for name in ("teacher", "student"):
        if not call.query.get(name):
            raise InvalidRequest(
                f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
            )
    found = break_even_of(
        call.platform.settings,
        call.platform.database,
        call.project,
        teachers=[call.query["teacher"]],
        student=call.query["student"],
        now=int(time.time()),
        training_picousd=_training_picousd(call),
    )
    return Reply(body={"object": "stillroom.break_even", **shown_break_even(found)})


def shown_break_even(found: BreakEven) -> dict[str, Any]:
    """As the API shows it: micro-USD, tokens a call, and the window it is derived from."""
    traffic = found.traffic
    calls = max(1, traffic.calls)
    return {
        "teachers": list(traffic.models),
        "window": {"since": traffic.since, "until": traffic.until, "days": traffic.seconds / 86_400},
        "calls": traffic.calls,
        "calls_per_day": traffic.calls * 86_400 / traffic.seconds,
        "tokens_per_call": {
            "prompt": traffic.prompt_tokens / calls,
            "completion": traffic.completion_tokens / calls,
        },
        "teacher_microusd_per_day": rounded_microusd(found.teacher_day_picousd),
        "student_microusd_per_day": rounded_microusd(
            found.student_tokens_day_picousd + found.student_hosting_day_picousd
        ),
        "student_tokens_microusd_per_day": rounded_microusd(found.student_tokens_day_picousd),
        "student_hosting_microusd_per_day": rounded_microusd(found.student_hosting_day_picousd),
        "saved_microusd_per_day": rounded_microusd(found.saved_day_picousd),
        "training_microusd": rounded_microusd(found.training_picousd),
        "break_even_days": found.days,
        "break_even_date": found.date,
        "reason": found.reason,
    }


async def _quoted(call: Call, asked: QuoteRequest, rows: _Rows) -> Quote:
    platform = call.platform
    given = {name: getattr(asked, name) for name in OF_AN_ORDER if getattr(asked, name) is not None}
    files = {"training_file": rows.training_file, "validation_file": rows.validation_file}
    order = fine_tuning.parse_order({"model": asked.model, **given, **files})
    base = await asyncio.to_thread(platform.fine_tuning.check, call.project, order)
    teachers = await asyncio.to_thread(_teachers, call, asked, rows)
    path = await asyncio.to_thread(platform.files.path, call.project, order.training_file)
    digest = await asyncio.to_thread(digest_of, path)
    measurement = await measure(platform, call.project, order, base)

    def make() -> Quote:
        return platform.quotes.make(
            call.project,
            order,
            base,
            measurement,
            is_kept=not rows.ours,
            digest=digest,
            teachers=teachers,
            warnings=rows.warnings if teachers else (*rows.warnings, NO_TEACHER),
            now=int(time.time()),
        )

    return await asyncio.to_thread(make)


async def _rows(call: Call, asked: QuoteRequest) -> _Rows:
    if (asked.selection is None) == (asked.training_file is None):
        raise InvalidRequest("Give either 'training_file' or 'selection'.", param="training_file")
    if asked.training_file is not None:
        return _Rows(
            training_file=asked.training_file,
            validation_file=asked.validation_file,
            ours=(),
            warnings=(),
        )
    assert asked.selection is not None
    if asked.selection.validation_fraction and asked.validation_file is not None:
        raise InvalidRequest(
            "Give either 'validation_file' or the selection's 'validation_fraction'.", param="validation_file"
        )
    made = await selected(call, msgspec.structs.replace(asked.selection, dry_run=False), only_counted=True)
    assert made.training_file is not None
    validation = made.validation_file.id if made.validation_file else None
    return _Rows(
        training_file=made.training_file.id,
        validation_file=validation or asked.validation_file,
        ours=tuple(file for file in (made.training_file.id, validation) if file),
        warnings=tuple(made.warnings),
    )


def _teachers(call: Call, asked: QuoteRequest, rows: _Rows) -> list[str]:
    """Whose calls the student is to answer: the one it replaces, else those who answered the rows."""
    if asked.replaces is not None:
        if not call.platform.quotes.is_known(call.project, asked.replaces):
            raise InvalidRequest(
                f"'{asked.replaces}' is neither a teacher, a deployment nor a model here.",
                param="replaces",
                code="model_not_found",
            )
        return [asked.replaces]
    origin = call.platform.files.get(call.project, rows.training_file).selection
    return sorted((origin or {}).get("models") or {})


def _training_picousd(call: Call) -> int | None:
    found = call.number("training_microusd", "a whole number of micro-USD")
    return None if found is None else found * MICRO


def _shown(quote: Quote) -> dict[str, Any]:
    return {
        "id": quote.id,
        "object": "stillroom.quote",
        "created_at": quote.created_at,
        "model": quote.model,
        "training_file": quote.training_file,
        "examples": quote.examples,
        "validation_examples": quote.valid_examples,
        "tokens_per_epoch": quote.tokens_per_epoch,
        "method": quote.method.value,
        **msgspec.to_builtins(quote.numbers),
        "dropped_prompt_tokens": quote.dropped_prompt_tokens,
        "steps": quote.steps,
        **_predicted(quote),
        "hosting_usd_per_month": quote.hosting_month_picousd / PICO,
        "measured": quote.measured,
        "break_even": shown_break_even(quote.break_even) if quote.break_even else None,
        "warnings": quote.warnings,
    }


def _predicted(quote: Quote) -> dict[str, Any]:
    return {
        "trained_tokens": quote.trained_tokens,
        "cost_microusd": rounded_microusd(quote.cost_picousd),
        "cost_usd": quote.cost_picousd / PICO,
        "minutes": msgspec.to_builtins(quote.minutes),
    }


def _actual(actual: Actual) -> dict[str, Any]:
    return {
        "trained_tokens": actual.trained_tokens,
        "cost_microusd": rounded_microusd(actual.cost_picousd),
        "cost_usd": actual.cost_picousd / PICO,
        "minutes": actual.minutes,
    }


def _errors(quote: Quote, actual: Actual) -> dict[str, float | None]:
    """Predicted less actual, as a share of the actual."""
    return {
        "trained_tokens": _error(quote.trained_tokens, actual.trained_tokens),
        "cost": _error(quote.cost_picousd, actual.cost_picousd),
        "minutes": _error(quote.minutes.expected, actual.minutes),
    }


def _error(predicted: float, actual: float | None) -> float | None:
    if not actual:
        return 0.0 if actual is not None and predicted == actual else None
    return (predicted - actual) / actual
