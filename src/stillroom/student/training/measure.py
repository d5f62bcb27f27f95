"""The quote's child: `python -m stillroom.student.training.measure FOLDER` says what a training run will be.

FOLDER/spec.json is that of `run`. The base is opened and the rows are read as a run would, then the
run's own first steps are taken, timed and forgotten. Standard output carries JSON lines:

    planned     hyperparameters (numbers), total_steps, examples, valid_examples, tokens_per_epoch, trained_tokens,
                dropped_prompt (see `run`)
    message     level (info, warn), message
    then one of measured, error (code, message, param)

    measured    begin_seconds (for what the method looks at before the first step), step_seconds (one number a
                step, behind a warm-up step), validation_batch_seconds (null without a validation file),
                validation_batches (in the whole run), checkpoint_seconds

Streams, signals and exit codes are those of `run`. Owns how long it may take and when it has seen enough.
"""

from __future__ import annotations

import math
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from stillroom.student.chats.template import Lesson
from stillroom.student.child import as_child
from stillroom.student.events import Emit, Figures
from stillroom.student.hyperparameters import steps_per_epoch
from stillroom.student.training.loop import (
    Run,
    batches_of,
    tokens_per_epoch,
    trained_tokens,
    validation_interval,
    write_checkpoint,
)
from stillroom.student.training.resume import Progress, save_resume_state
from stillroom.student.training.run import open_run
from stillroom.student.training.trainer import Trainer

SECONDS = 8.0
"""For steps. A step that takes longer than a third of it makes this longer: three are always taken."""
FEWEST_STEPS = 3
ENOUGH_STEPS = 12
ENOUGH_SECONDS = 3.0
ENOUGH_ERROR = 0.03
"""The standard error of the mean, as a share of it, at which more steps tell nothing, behind so many seconds: what
makes a machine slow comes and goes, and steps of one moment are alike."""


def measure(folder: Path, emit: Emit, stopping: threading.Event) -> None:
    """Times the parts of the run that a folder's spec describes."""
    run = open_run(folder, emit)
    emit(_planned(run))
    trainer = Trainer(run.student, run.numbers, emit=emit, teacher=run.teacher)
    trainer.plan([*run.train, *run.valid], None, limit_bytes=run.memory_bytes)
    beginning = _begin_seconds(run, trainer)
    seconds: list[float] = []
    figures: Figures = {}
    for step, batch in _first_batches(run, trainer):
        began = time.perf_counter()
        figures = trainer.step(step, batch)
        if step > 1 or run.numbers.total_steps == 1:  # the first warms up: memory, kernels, optimizer state
            seconds.append(time.perf_counter() - began)
        if stopping.is_set() or _is_enough(seconds):
            break
    began = time.perf_counter()
    write_checkpoint(run, len(seconds), 0, figures, _unheard)
    progress = Progress(step=len(seconds), fingerprint=run.fingerprint, metrics={}, passes=trainer.passes)
    save_resume_state(folder / "resume", run.student.model, trainer.optimizers, progress, kept=trainer.kept)
    saving = time.perf_counter() - began
    emit(
        {
            "type": "measured",
            "begin_seconds": beginning,
            "step_seconds": seconds,
            "validation_batch_seconds": _validation_seconds(run, trainer),
            "validation_batches": _validation_batches(run),
            "checkpoint_seconds": saving,
        }
    )


def _planned(run: Run) -> dict[str, Any]:
    numbers = run.numbers
    return {
        "type": "planned",
        "hyperparameters": numbers.shown(),
        "total_steps": numbers.total_steps,
        "examples": len(run.train),
        "valid_examples": len(run.valid),
        "tokens_per_epoch": tokens_per_epoch(run),
        "trained_tokens": trained_tokens(run),
        "dropped_prompt": asdict(run.dropped_prompt) if run.dropped_prompt else None,
    }


def _first_batches(run: Run, trainer: Trainer) -> Iterator[tuple[int, list[Lesson]]]:
    """The steps as the run would take them, from 1."""
    epochs = range(run.numbers.n_epochs)
    return enumerate(chain.from_iterable(batches_of(run, trainer, epoch) for epoch in epochs), start=1)


def _is_enough(seconds: list[float]) -> bool:
    if len(seconds) < FEWEST_STEPS:
        return False
    if sum(seconds) >= SECONDS:
        return True
    if len(seconds) < ENOUGH_STEPS or sum(seconds) < ENOUGH_SECONDS:
        return False
    error = statistics.stdev(seconds) / math.sqrt(len(seconds))
    return error <= ENOUGH_ERROR * statistics.mean(seconds)


def _begin_seconds(run: Run, trainer: Trainer) -> float:
    """As long as a batch of both files takes, for all batches."""
    some, looked_at = (lessons[: run.numbers.batch_size] for lessons in (run.train, run.valid))
    began = time.perf_counter()
    trainer.begin(some, looked_at)
    share = (len(some) + len(looked_at)) / (len(run.train) + len(run.valid))
    return (time.perf_counter() - began) / share


def _validation_seconds(run: Run, trainer: Trainer) -> float | None:
    if not run.valid:
        return None
    began = time.perf_counter()
    trainer.evaluate(run.valid[: run.numbers.batch_size], step=0)
    return time.perf_counter() - began


def _validation_batches(run: Run) -> int:
    """One at intervals, and all at every epoch's end."""
    if not run.valid:
        return 0
    whole = steps_per_epoch(len(run.valid), run.numbers.batch_size)
    return run.numbers.total_steps // validation_interval(run) + whole * run.numbers.n_epochs


def _unheard(event: object) -> None:
    """A checkpoint that nobody is to hear of."""


if __name__ == "__main__":
    sys.exit(as_child("stillroom.student.training.measure", sys.argv[1:], measure))
