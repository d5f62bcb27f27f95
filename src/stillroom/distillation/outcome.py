"""What a distillation came to, for people and for scripts."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec

from stillroom import auth, billing
from stillroom.assembly import Platform
from stillroom.billing import PICO
from stillroom.distillation.examples import Files, shown
from stillroom.distillation.journal import FAILED, Journal
from stillroom.distillation.rows import TRAINING, VALIDATION
from stillroom.distillation.spec import DPO, Spec
from stillroom.fine_tuning import Job


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Training or validation rows: how many were asked for and not answered, and how many the student got."""

    rows: int
    failed: int
    success_ratio: float
    used: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A distillation that succeeded. Costs are in USD; the teacher's by its price, training by the student's."""

    name: str
    model: str
    model_folder: str
    job: str
    training_file: str
    validation_file: str | None
    training: Part
    validation: Part | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    method: str
    alike: int
    """Of pairs: so many rows make none, because teacher and student said the same."""
    trained_tokens: int
    training_cost_usd: float
    folder: str
    report: dict[str, Any]
    """The data report: what was left out and why, lengths, labels."""
    repeated: bool = False
    """It was there already: nothing was done."""
    warnings: tuple[str, ...] = ()
    asked_as: str = ""
    """A sum of what decided how the model was made."""


def outcome_of(spec: Spec, journal: Journal, platform: Platform, files: Files, job: Job) -> Outcome:
    with platform.database.read() as connection:
        cost = billing.costs_of(connection, auth.DEFAULT_PROJECT, billing.Kind.TRAINING, [job.id]).get(job.id, 0)
    return Outcome(
        name=spec.name,
        model=job.openai_name,
        model_folder=str(platform.blobs.path(f"models/{job.id}")),
        job=job.id,
        training_file=files.training,
        validation_file=files.validation,
        training=_part(journal, TRAINING, files.training_rows),
        validation=_part(journal, VALIDATION, files.validation_rows) if files.validation_rows else None,
        calls=journal.calls,
        prompt_tokens=journal.prompt_tokens,
        completion_tokens=journal.completion_tokens,
        cost_usd=journal.cost_picousd / PICO,
        method=spec.method,
        alike=files.alike,
        trained_tokens=job.trained_tokens or 0,
        training_cost_usd=cost / PICO,
        folder=str(journal.folder),
        report=shown(files.report),
        warnings=spec.warnings,
        asked_as=journal.state.makes,
    )


def lines_of(outcome: Outcome, data: str) -> list[str]:
    """The outcome in words, with the commands that come next."""
    failed = outcome.training.failed + (outcome.validation.failed if outcome.validation else 0)
    lines = [f"model: {outcome.model}", f"weights: {outcome.model_folder}"]
    pairs = " pairs," if outcome.method == DPO else ""
    lines += [f"{name} rows: {_words(part, pairs)}" for name, part in _parts(outcome)]
    if outcome.alike:
        lines.append(f"no pairs: {outcome.alike:,} rows, to which teacher and student said the same")
    if outcome.calls:
        whose = "answers of teacher and student" if pairs else "answers"
        lines.append(
            f"labels: {outcome.calls:,} {whose}, {outcome.prompt_tokens:,} + {outcome.completion_tokens:,} tokens, "
            f"{outcome.cost_usd:.6f} USD"
        )
    lines.append(f"trained: {outcome.trained_tokens:,} tokens, {outcome.training_cost_usd:.6f} USD; job {outcome.job}")
    left_out = ", ".join(f"{each['count']} {each['reason']}" for each in outcome.report["left_out"])
    lines.append(f"data report: {outcome.folder}/report.md" + (f" (left out: {left_out})" if left_out else ""))
    lines += [f"note: {note}" for note in outcome.report["notes"]]
    if failed:
        lines.append(f"failed rows: {outcome.folder}/{FAILED}; `--retry-failed` asks for them again")
    at = f" --data {shlex.quote(data)}"
    lines += ["To serve it:", f"  stillroom serve{at}", f'  stillroom chat {shlex.quote(outcome.model)} "..."{at}']
    return lines


def _parts(outcome: Outcome) -> list[tuple[str, Part]]:
    found = [(TRAINING, outcome.training)]
    return [*found, (VALIDATION, outcome.validation)] if outcome.validation else found


def _part(journal: Journal, part: str, used: int) -> Part:
    rows = sum(row.part == part for row in journal.rows)
    return Part(rows=rows, failed=len(journal.failed(part)), success_ratio=journal.success_ratio(part), used=used)


def _words(part: Part, pairs: str) -> str:
    if not part.rows:
        return f"{part.used:,} held out"
    return f"{part.used:,}{pairs} of {part.rows:,}, {part.failed:,} failed (success ratio {part.success_ratio:.2f})"
