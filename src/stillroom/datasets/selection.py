"""Stored completions -> training file: what the Distill button and `stillroom distill` do first.

Only completed answers are used. The rows are ordinary chat examples in an ordinary file, which can
be downloaded, kept and trained on anywhere.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from stillroom import ids
from stillroom.completions import table
from stillroom.datasets.files import File, Files
from stillroom.errors import InvalidRequest
from stillroom.store.database import Database

MINIMUM = 10
FEW = 300
CUT_SHORT = ("length", "content_filter")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a selection made. `skipped` counts, by reason, completions that matched and were left out."""

    training_file: File
    validation_file: File | None
    training_examples: int
    validation_examples: int
    skipped: dict[str, int]
    warnings: list[str]


def select(
    database: Database,
    files: Files,
    project: int,
    chosen: table.Filter,
    *,
    validation_fraction: float = 0.0,
    seed: int = 0,
    filename: str | None = None,
) -> Selection:
    """Writes the matching completions to a training file, oldest first, and by `seed` a fraction of
    them to a validation file instead. Raises InvalidRequest when fewer than 10 would be trained on."""
    usable, skipped, cut_short = _survey(database, project, chosen)
    told = _told(chosen, usable.values())
    held_out = _held_out(list(usable), validation_fraction, seed)
    training = [number for number in usable if number not in held_out]
    if len(training) < MINIMUM:
        raise InvalidRequest(_too_few(len(usable), len(training), skipped), param="filter", code="invalid_n_examples")
    stem = (filename or "stored-completions").removesuffix(".jsonl")
    training_file = _write(database, files, project, f"{stem}.jsonl", training, told)
    validation_file = None
    if held_out:
        validation_file = _write(database, files, project, f"{stem}-validation.jsonl", sorted(held_out), told)
    return Selection(
        training_file=training_file,
        validation_file=validation_file,
        training_examples=len(training),
        validation_examples=len(held_out),
        skipped=dict(skipped),
        warnings=_warnings(len(training), cut_short),
    )


def example(stored: table.StoredCompletion) -> dict[str, Any] | None:
    """The chat example a completion makes: its conversation and first choice. None when the answer
    has neither text nor calls."""
    choices = stored.response.get("choices") or [{}]
    said = choices[0].get("message") or {}
    if not said.get("content") and not said.get("tool_calls") and not said.get("function_call"):
        return None
    answer = {name: said[name] for name in ("content", "tool_calls", "function_call") if said.get(name) is not None}
    row: dict[str, Any] = {"messages": [*stored.request["messages"], {"role": "assistant", **answer}]}
    for name in ("tools", "functions", "parallel_tool_calls"):
        if stored.request.get(name) is not None:
            row[name] = stored.request[name]
    return row


def _survey(database: Database, project: int, chosen: table.Filter) -> tuple[dict[int, str], Counter[str], int]:
    """The numbers that can be used and who answered, what is left out and why, how many were cut short."""
    usable: dict[int, str] = {}
    skipped: Counter[str] = Counter()
    cut_short = 0
    with database.read() as connection:
        for stored in table.walk(connection, project, chosen):
            if stored.status is not table.Status.COMPLETED:
                skipped["incomplete"] += 1
            elif example(stored) is None:
                skipped["empty"] += 1
            else:
                usable[stored.number] = stored.model
                cut_short += stored.response["choices"][0].get("finish_reason") in CUT_SHORT
    return usable, skipped, cut_short


def _held_out(numbers: list[int], fraction: float, seed: int) -> set[int]:
    if not 0 <= fraction < 1:
        raise InvalidRequest(
            f"`validation_fraction` is {fraction}; it must be at least 0 and below 1.", param="validation_fraction"
        )
    return set(random.Random(seed).sample(numbers, round(len(numbers) * fraction)))


def _told(chosen: table.Filter, models: Iterable[str]) -> dict[str, Any]:
    """What the file remembers of where it comes from. Ids that were named one by one are not kept."""
    conditions = {
        "model": chosen.model,
        "metadata": dict(chosen.metadata),
        "created_after": chosen.created_after,
        "created_before": chosen.created_before,
        "search": chosen.search,
        "up_to": None if chosen.up_to is None else ids.completion_id(chosen.up_to),
    }
    return {"filter": conditions, "models": dict(Counter(models))}


def _write(database: Database, files: Files, project: int, name: str, numbers: list[int], told: dict[str, Any]) -> File:
    return files.create(project, name, "fine-tune", _lines(database, project, numbers), selection=told)


def _lines(database: Database, project: int, numbers: list[int]) -> Iterator[bytes]:
    for start in range(0, len(numbers), table.CHUNK):
        part = table.Filter(numbers=tuple(numbers[start : start + table.CHUNK]))
        with database.read() as connection:
            for stored in table.walk(connection, project, part):
                row = example(stored)
                if row is not None:
                    yield msgspec.json.encode(row) + b"\n"


def _too_few(usable: int, training: int, skipped: Counter[str]) -> str:
    left_out = "".join(f" ({count} more were {reason} and left out)" for reason, count in skipped.items())
    split = f"; the split leaves {training} of them to train on" if training != usable else ""
    return f"The selection matches {usable} completions{left_out}{split}; a fine-tuning job needs at least {MINIMUM}."


def _warnings(training: int, cut_short: int) -> list[str]:
    found = []
    if training < FEW:
        found.append(f"{training} examples are few; hundreds or thousands make a better student.")
    if cut_short:
        found.append(f"{cut_short} answers were cut short (finish_reason length or content_filter).")
    return found
