"""Stored completions -> training file: what the Distill button and `stillroom distill` do first.

Only completed answers are used. The rows are ordinary chat examples in an ordinary file, which can
be downloaded, kept and trained on anywhere.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO

import msgspec

from stillroom import ids
from stillroom.completions import soft_labels, table
from stillroom.curation.splitting import held_out_of
from stillroom.datasets.answers import PLAIN, Style, has_labels, message_of
from stillroom.datasets.files import File, Files
from stillroom.datasets.lineage import digest
from stillroom.errors import InvalidRequest
from stillroom.store.database import Database

MINIMUM = 10
FEW = 300
CUT_SHORT = ("length", "content_filter")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The completions that match and can be used, in order, and who answered each. `prompts`: what its prompt is known
    by, and `ratings`: how good its metadata calls it; both are empty when nobody asked. `skipped` counts, by reason,
    those that match and cannot be used. `labelled` have soft labels, when `style` asks for them."""

    chosen: table.Filter
    numbers: list[int]
    answered_by: list[str]
    prompts: list[bytes]
    ratings: list[float | None]
    cut_short: frozenset[int]
    skipped: Counter[str]
    style: Style = PLAIN
    labelled: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which completions are trained on and which are held out, by their numbers. `skipped` counts by reason those that
    curation leaves out; `report` is its report as JSON, None when nothing was curated."""

    training: list[int]
    validation: list[int]
    skipped: Mapping[str, int] = field(default_factory=dict)
    report: bytes | None = None
    curation: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a selection made, or in a dry run would make; then there are no files. `skipped` counts, by reason,
    completions that matched and were left out; `soft_labels`, examples that have some, when they were asked for."""

    training_file: File | None
    validation_file: File | None
    training_examples: int
    validation_examples: int
    skipped: dict[str, int]
    warnings: list[str]
    report: bytes | None = None
    soft_labels: int | None = None


def select(
    database: Database,
    files: Files,
    project: int,
    chosen: table.Filter,
    *,
    validation_fraction: float = 0.0,
    seed: int = 0,
    filename: str | None = None,
    style: Style = PLAIN,
) -> Selection:
    """Writes the matching completions to a training file, oldest first, and by `seed` a fraction of
    them to a validation file instead. Raises InvalidRequest when fewer than 10 would be trained on."""
    found = survey(database, project, chosen, with_prompts=validation_fraction > 0, style=style)
    return write(database, files, project, found, split(found, validation_fraction, seed), filename=filename)


def survey(
    database: Database,
    project: int,
    chosen: table.Filter,
    *,
    with_prompts: bool = False,
    rows: BinaryIO | None = None,
    rating: str | None = None,
    style: Style = PLAIN,
) -> Candidates:
    """Looks at every completion that matches. What can be used is written to `rows`, for curation; `rating` is the
    key of the metadata that says how good an answer is."""
    numbers: list[int] = []
    answered_by: list[str] = []
    prompts: list[bytes] = []
    ratings: list[float | None] = []
    cut_short: set[int] = set()
    labelled: set[int] = set()
    unlabelled = replace(style, soft_labels=False)
    skipped: Counter[str] = Counter()
    with database.read() as connection:
        for stored in table.walk(connection, project, chosen):
            row = example(stored, unlabelled) if stored.status is table.Status.COMPLETED else None
            if row is None:
                skipped["incomplete" if stored.status is not table.Status.COMPLETED else "empty"] += 1
                continue
            numbers.append(stored.number)
            answered_by.append(stored.model)
            if with_prompts:
                prompts.append(digest(stored.request["messages"]))
            if rating is not None:
                ratings.append(_number(stored.metadata.get(rating)))
            if stored.response["choices"][0].get("finish_reason") in CUT_SHORT:
                cut_short.add(stored.number)
            if style.soft_labels and (has_labels(stored.response) or soft_labels.sizes(connection, stored.number)):
                labelled.add(stored.number)
            if rows is not None:
                rows.write(msgspec.json.encode(_told_of(stored, row)) + b"\n")
    return Candidates(
        chosen=chosen,
        numbers=numbers,
        answered_by=answered_by,
        prompts=prompts,
        ratings=ratings,
        cut_short=frozenset(cut_short),
        skipped=skipped,
        style=style,
        labelled=frozenset(labelled),
    )


def split(found: Candidates, fraction: float, seed: int) -> Parts:
    """Holds a fraction of them out, chosen by the seed. Those with the same prompt are never separated: a student would
    be tried on what it was taught."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    if fraction:
        for number, prompt in zip(found.numbers, found.prompts, strict=True):
            groups[prompt].append(number)
    held_out = set(held_out_of(list(groups.values()), fraction, seed))
    return Parts(training=[number for number in found.numbers if number not in held_out], validation=sorted(held_out))


def write(
    database: Database,
    files: Files,
    project: int,
    found: Candidates,
    parts: Parts,
    *,
    filename: str | None = None,
    dry_run: bool = False,
) -> Selection:
    """Makes the files of the parts. Raises InvalidRequest when fewer than 10 would be trained on."""
    training, held_out = parts.training, parts.validation
    skipped = found.skipped + Counter(parts.skipped)
    usable = len(training) + len(held_out)
    training_file = validation_file = None
    if not dry_run:
        if len(training) < MINIMUM:
            raise InvalidRequest(_too_few(usable, len(training), skipped), param="filter", code="invalid_n_examples")
        stem = (filename or "stored-completions").removesuffix(".jsonl")
        told = _told(found, parts)
        lines = partial(_lines, database, project, found.style)
        training_file = _write(files, project, f"{stem}.jsonl", lines(training), told, parts.report)
        if held_out:
            name = f"{stem}-validation.jsonl"
            validation_file = _write(files, project, name, lines(held_out), told, parts.report)
    cut_short = len(found.cut_short.intersection(training)) + len(found.cut_short.intersection(held_out))
    labelled = len(found.labelled.intersection((*training, *held_out))) if found.style.soft_labels else None
    return Selection(
        training_file=training_file,
        validation_file=validation_file,
        training_examples=len(training),
        validation_examples=len(held_out),
        skipped=dict(skipped),
        warnings=[*_warnings(len(training), cut_short), *_unlabelled(usable, labelled), *parts.notes],
        report=parts.report,
        soft_labels=labelled,
    )


def example(stored: table.StoredCompletion, style: Style = PLAIN, labels: bytes | None = None) -> dict[str, Any] | None:
    """The chat example a completion makes: its conversation and first choice. None when the answer
    has neither text nor calls. `labels`: the soft labels that are kept with it."""
    answer = message_of(stored.response, style, labels)
    if answer is None:
        return None
    row: dict[str, Any] = {"messages": [*stored.request["messages"], answer]}
    for name in ("tools", "functions", "parallel_tool_calls"):
        if stored.request.get(name) is not None:
            row[name] = stored.request[name]
    return row


def _told_of(stored: table.StoredCompletion, row: dict[str, Any]) -> dict[str, Any]:
    """The row with what curation asks about besides: how it is called, and how its answer ended."""
    choice = stored.response["choices"][0]
    refusal = (choice.get("message") or {}).get("refusal")
    return {
        "id": ids.completion_id(stored.number),
        "finish_reason": choice.get("finish_reason"),
        "refusal": refusal,
        **row,
    }


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _told(found: Candidates, parts: Parts) -> dict[str, Any]:
    """What the file remembers of where it comes from. Ids that were named one by one are not kept."""
    chosen = found.chosen
    conditions = {
        "model": chosen.model,
        "metadata": dict(chosen.metadata),
        "created_after": chosen.created_after,
        "created_before": chosen.created_before,
        "search": chosen.search,
        "up_to": None if chosen.up_to is None else ids.completion_id(chosen.up_to),
    }
    told = {"filter": conditions, "models": dict(_models(found, parts))}
    return {**told, "curation": dict(parts.curation)} if parts.curation is not None else told


def _models(found: Candidates, parts: Parts) -> Counter[str]:
    used = {*parts.training, *parts.validation}
    pairs = zip(found.numbers, found.answered_by, strict=True)
    return Counter(model for number, model in pairs if number in used)


def _write(
    files: Files, project: int, name: str, lines: Iterator[bytes], told: dict[str, Any], report: bytes | None
) -> File:
    return files.create(project, name, "fine-tune", lines, selection=told, report=report)


def _lines(database: Database, project: int, style: Style, numbers: list[int]) -> Iterator[bytes]:
    for start in range(0, len(numbers), table.CHUNK):
        part = table.Filter(numbers=tuple(numbers[start : start + table.CHUNK]))
        with database.read() as connection:
            for stored in table.walk(connection, project, part):
                labels = soft_labels.of_one(connection, stored.number) if style.soft_labels else None
                row = example(stored, style, labels)
                if row is not None:
                    yield msgspec.json.encode(row) + b"\n"


def _too_few(usable: int, training: int, skipped: Counter[str]) -> str:
    left_out = "".join(f" ({count} more were {reason} and left out)" for reason, count in skipped.items())
    split = f"; the split leaves {training} of them to train on" if training != usable else ""
    return f"The selection matches {usable} completions{left_out}{split}; a fine-tuning job needs at least {MINIMUM}."


def _unlabelled(usable: int, labelled: int | None) -> list[str]:
    if labelled is None or labelled == usable:
        return []
    return [f"{usable - labelled} of {usable} examples have no soft labels: what their teacher weighed is not stored."]


def _warnings(training: int, cut_short: int) -> list[str]:
    found = []
    if training < FEW:
        found.append(f"{training} examples are few; hundreds or thousands make a better student.")
    if cut_short:
        found.append(f"{cut_short} answers were cut short (finish_reason length or content_filter).")
    return found
