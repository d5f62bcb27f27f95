"""What happened in a run, kept in its folder: beside the figures, a run one can read.

    run.json          what was trained on what: base, data with sums and counts, numbers and why
    environment.json  what it was carried out with
    events.jsonl      what the run has told, but for steps, with the time in seconds since the epoch
    report.md         all of it for a reader, with loss.png; written anew at the start, at checkpoints and
                      at the end, however that comes

None of them holds a row's words. Owns the first three; `report` the last.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from stillroom.student.chats.template import Lesson, examples_of
from stillroom.student.events import Emit
from stillroom.student.hyperparameters import Hyperparameters, reasons
from stillroom.student.records import report
from stillroom.student.records.environment import environment
from stillroom.student.training.loop import Run

Event = Mapping[str, Any]

ENDS = ("done", "stopped")
REST = 100.0
"""Times what writing a report took, before the next of a run that goes on: that of a long one takes seconds."""


class Story:
    """Passes a run's events on and keeps them. Use it around everything that a run does."""

    def __init__(
        self, folder: Path, emit: Emit, *, failure: Callable[[Exception], Event | None], is_kept: bool = True
    ) -> None:
        """`failure` gives the event that tells of an error; None for one that nobody foresaw. One that is not kept
        only passes events on: of several processes, the first writes."""
        self._is_kept = is_kept
        self._report_from = 0.0
        self._folder = folder
        self._emit = emit
        self._failure = failure
        self._path = folder / report.EVENTS_FILE
        if is_kept and self._path.is_file() and not self._path.read_bytes().endswith(b"\n"):
            self._append("\n")  # the last line of a run that was killed while it wrote

    def emit(self, event: Event) -> None:
        kind = event["type"]
        if kind != "step":
            self._keep(event)
        if kind == "started" or (kind == "checkpoint" and time.monotonic() >= self._report_from):
            self._report(with_plot=False)
        elif kind in ENDS:
            self._report(with_plot=True)
        self._emit(event)

    def describe(self, run: Run, files: tuple[Path, Path | None], *, asked: Hyperparameters) -> None:
        """Writes down what is about to be trained on what, and with what. `files` are the rows to train on and those
        to validate on."""
        if not self._is_kept:
            return
        training_file, validation_file = files
        about = {
            "model_name": run.model_name,
            "base": asdict(run.student.base),
            "seed": run.seed,
            "method": run.student.method.type.value,
            "data": {
                "training": _data(training_file, run.train),
                "validation": _data(validation_file, run.valid) if validation_file else None,
            },
            "hyperparameters": {
                "asked": asdict(asked),
                "chosen": run.numbers.shown(),
                "why": reasons(asked, run.numbers, num_examples=len(run.train), method=run.student.method),
            },
        }
        with _never_fatal():
            _write_json(self._folder / report.RUN_FILE, about)
            _write_json(self._folder / report.ENVIRONMENT_FILE, environment() | {"processes": run.processes.count})

    def __enter__(self) -> Story:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            # The text of what nobody foresaw might quote a row.
            self._keep(self._failure(error) or {"type": "error", "code": "", "message": type(error).__name__})
            self._report(with_plot=True)

    def _keep(self, event: Event) -> None:
        if self._is_kept:
            told = {name: self._without_folder(value) for name, value in _without_words(event).items()}
            self._append(json.dumps({"at": round(time.time(), 3), **told}, ensure_ascii=False) + "\n")

    def _without_folder(self, value: Any) -> Any:
        """A path as seen from the folder, which may be moved, and above which people may be named."""
        return value.removeprefix(f"{self._folder.resolve()}{os.sep}") if isinstance(value, str) else value

    def _append(self, line: str) -> None:
        with _never_fatal(), self._path.open("a", encoding="utf-8") as file:
            file.write(line)

    def _report(self, *, with_plot: bool) -> None:
        if not self._is_kept:
            return
        began = time.monotonic()
        with _never_fatal():
            report.write(self._folder, with_plot=with_plot)
        self._report_from = time.monotonic() + REST * (time.monotonic() - began)


def _without_words(event: Event) -> Event:
    """The model's folder alone has the text of a prompt that was dropped."""
    dropped = event.get("dropped_prompt")
    return {**event, "dropped_prompt": {"tokens": dropped["tokens"]}} if dropped else event


@contextmanager
def _never_fatal() -> Iterator[None]:
    """A run is not lost for what is told of it; what was wrong stands in the log."""
    try:
        yield
    except Exception:
        traceback.print_exc()


def _data(path: Path, lessons: Sequence[Lesson]) -> dict[str, Any]:
    examples = examples_of(lessons)
    digest, rows = hashlib.sha256(), 0
    with path.open("rb") as file:
        for line in file:
            digest.update(line)
            rows += bool(line.strip())
    return {
        "file": path.name,
        "sha256": digest.hexdigest(),
        "rows": rows,
        "examples": len(lessons),
        "tokens": sum(len(example.ids) for example in examples),
        "trained_tokens": sum(sum(example.mask[1:]) for example in examples),
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    draft.rename(path)
