"""The training loop.

Owns the order of things: batches, loss, update, validation, checkpoints, resume. The same run (student,
examples, numbers, seed, threads) gives the same weights, also when it was killed in between. Each of its
`processes` goes through the same steps; the first writes and reports, through `emit`. Knows no streams.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import DiskFull, TrainingFailed
from stillroom.student.bases.base_models import Student
from stillroom.student.bases.checkpoint import (
    CHECKPOINTS_KEPT,
    Artefact,
    DroppedPrompt,
    clear_drafts,
    keep_last,
    step_folder,
    write_artefact,
)
from stillroom.student.bases.identity import identity_of
from stillroom.student.chats.template import Lesson, examples_of
from stillroom.student.events import Emit, Figures
from stillroom.student.hyperparameters import Resolved, steps_per_epoch
from stillroom.student.records.metrics import CHECKPOINT_FIGURES
from stillroom.student.records.record import RunRecord
from stillroom.student.training.fsdp import is_sharded, whole_weights
from stillroom.student.training.packing import epoch_batches
from stillroom.student.training.processes import ALONE, Processes
from stillroom.student.training.resume import Progress, keep_plan, kept_plan, load_resume_state, save_resume_state
from stillroom.student.training.trainer import Trainer

VALIDATIONS_PER_RUN = 50
"""How often, at most, a validation batch is looked at between epochs."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a training run is made of."""

    folder: Path
    student: Student
    model_name: str
    train: Sequence[Lesson]
    valid: Sequence[Lesson]
    numbers: Resolved
    seed: int
    checkpoint_seconds: float
    """Between resume states, and between the checkpoints of shorter epochs (the last three always have one)."""
    fingerprint: str
    """Of all that decides the weights."""
    memory_bytes: int | None = None
    """What each process may use. None: what is free when it starts."""
    processes: Processes = ALONE
    """Those that compute it together; the first reports and writes."""
    integrations: Sequence[Mapping[str, Any]] = ()
    """Where else its figures are shown: see `record`."""
    teacher: Student | None = None
    """Another model, which judges what the student says; None where the method needs none."""
    dropped_prompt: DroppedPrompt | None = None
    """The system prompt that all rows began with and none has now."""
    soft_label_positions: float | None = None
    """The share of trained tokens with a teacher's distribution; None where nobody asked for any."""


def train(run: Run, *, emit: Emit, stop: Callable[[], bool]) -> None:
    """Trains to the end, or until `stop()`; goes on from the folder's resume state when it holds one."""
    trainer = Trainer(run.student, run.numbers, emit=emit, processes=run.processes, teacher=run.teacher)
    with run.processes.first_then_others():
        progress = _resumed(run, trainer, emit)
        begun = progress.passes if progress else kept_plan(run.folder / "resume", run.fingerprint)
    _check_same_step(run.processes, progress)
    trainer.plan([*run.train, *run.valid], begun, limit_bytes=run.memory_bytes)
    if run.processes.is_first and begun is None:
        keep_plan(run.folder / "resume", run.fingerprint, trainer.passes)
    if note := trainer.begin(run.train, run.valid):
        emit({"type": "message", "level": "info", "message": note})
    done = progress or Progress(step=0, fingerprint=run.fingerprint, metrics={}, passes=trainer.passes)
    with _record(run, after_step=done.step, emit=emit) as record:
        emit(_started(run, progress))
        last = _steps(run, trainer, done, record, emit=emit, stop=stop)
    if last < run.numbers.total_steps:
        emit({"type": "stopped", "step": last})
    else:
        emit(_done(run))


def _steps(
    run: Run, trainer: Trainer, progress: Progress, record: RunRecord | None, *, emit: Emit, stop: Callable[[], bool]
) -> int:
    """One optimizer step after the other; the number of the last one."""
    steps_an_epoch = steps_per_epoch(len(run.train), run.numbers.batch_size)
    saved_at = checkpoint_at = time.monotonic()
    batches: list[list[Lesson]] = []
    while progress.step < run.numbers.total_steps and not run.processes.any(stop()):
        # 1) The step's number alone says which epoch and which batch it is.
        epoch, index = divmod(progress.step, steps_an_epoch)
        if index == 0 or not batches:
            batches = batches_of(run, trainer, epoch)

        # 2) One update.
        step = progress.step + 1
        run.processes.draw_apart(run.seed, step)
        figures = trainer.step(step, batches[index])
        figures |= _validated(run, trainer, step)
        emit({"type": "step", "total_steps": run.numbers.total_steps, "epoch": epoch, **figures})

        # 3) At an epoch's end the whole validation file, and a model that can be deployed.
        is_checkpoint = False
        if step % steps_an_epoch == 0:
            figures |= _fully_validated(run, trainer, step)
            elapsed = time.monotonic() - checkpoint_at
            is_checkpoint = _is_one_of_the_last(run, epoch) or run.processes.any(elapsed >= run.checkpoint_seconds)
        if is_checkpoint:
            write_checkpoint(run, step, epoch, figures, emit)
            checkpoint_at = time.monotonic()

        # 4) A state to go on from; behind the checkpoint's event, so that a kill repeats the event, never loses it.
        if record:
            record.step(figures)
        progress = Progress(step=step, fingerprint=run.fingerprint, metrics=figures, passes=trainer.passes)
        if is_checkpoint or run.processes.any(time.monotonic() - saved_at >= run.checkpoint_seconds):
            _save(run, trainer, record, progress, emit)
            saved_at = time.monotonic()
    if progress.step < run.numbers.total_steps:
        _save(run, trainer, record, progress, emit)
    return progress.step


@contextmanager
def _record(run: Run, *, after_step: int, emit: Emit) -> Iterator[RunRecord | None]:
    """Where the figures go; None in all processes but the first."""
    if run.processes.is_first:
        with RunRecord(run.folder, after_step=after_step, emit=emit, integrations=run.integrations) as record:
            yield record
    else:
        yield None


def batches_of(run: Run, trainer: Trainer, epoch: int) -> list[list[Lesson]]:
    """The steps of an epoch, counted from 0."""
    return epoch_batches(run.train, trainer.layout, batch_size=run.numbers.batch_size, seed=run.seed, epoch=epoch)


def tokens_per_epoch(run: Run) -> int:
    """Every token of every example, prompts and control tokens too."""
    return sum(len(example.ids) for example in examples_of(run.train))


def trained_tokens(run: Run) -> int:
    """What a job is billed for: the tokens of an epoch, in every epoch."""
    return tokens_per_epoch(run) * run.numbers.n_epochs


def validation_interval(run: Run) -> int:
    """Steps from one validation batch to the next."""
    return max(1, run.numbers.total_steps // VALIDATIONS_PER_RUN)


def _resumed(run: Run, trainer: Trainer, emit: Emit) -> Progress | None:
    for folder in (run.folder, run.folder / "checkpoints"):
        clear_drafts(folder)

    def warn(message: str) -> None:
        emit({"type": "message", "level": "warn", "message": message})

    model, fingerprint = run.student.model, run.fingerprint
    return load_resume_state(
        run.folder / "resume", model, trainer.optimizers, kept=trainer.kept, fingerprint=fingerprint, warn=warn
    )


def _check_same_step(processes: Processes, progress: Progress | None) -> None:
    if len(set(processes.together(lambda: progress.step if progress else 0))) > 1:
        raise TrainingFailed(
            "The processes of this run see different saved states. Give it a folder that all its machines share."
        )


def _validated(run: Run, trainer: Trainer, step: int) -> Figures:
    """Loss and accuracy of one validation batch, at intervals; the batches take turns."""
    interval = validation_interval(run)
    if not run.valid or step % interval:
        return {}
    size = run.numbers.batch_size
    at = (step // interval - 1) * size % (size * steps_per_epoch(len(run.valid), size))
    loss, accuracy = trainer.evaluate(run.valid[at : at + size], step=step)
    return {"valid_loss": loss, "valid_mean_token_accuracy": accuracy}


def _fully_validated(run: Run, trainer: Trainer, step: int) -> Figures:
    if not run.valid:
        return {"full_valid_loss": None, "full_valid_mean_token_accuracy": None}
    loss, accuracy = trainer.evaluate(run.valid, step=step)
    return {"full_valid_loss": loss, "full_valid_mean_token_accuracy": accuracy}


def _is_one_of_the_last(run: Run, epoch: int) -> bool:
    return epoch >= run.numbers.n_epochs - CHECKPOINTS_KEPT


def write_checkpoint(run: Run, step: int, epoch: int, figures: Figures, emit: Emit) -> None:
    student = run.student
    if not run.processes.is_first and not is_sharded(student.model):
        return
    # Of a model in shards, all processes must ask.
    weights = whole_weights(student.model, kept=run.processes.is_first)
    identity = identity_of(student.model, student.template, context_tokens=student.context_tokens)
    if not run.processes.is_first:
        return
    folder = step_folder(run.folder / "checkpoints", step)
    artefact = Artefact(
        training=student.training,
        model_name=run.model_name,
        base=student.base,
        hyperparameters=asdict(run.numbers) | {"seed": run.seed},
        step=step,
        end_ids=list(student.template.end_ids),
        method=student.method.type,
        dropped_prompt=run.dropped_prompt,
    )
    write_artefact(folder, student.model, student.template, artefact, identity, weights=weights)
    keep_last(run.folder / "checkpoints", CHECKPOINTS_KEPT)
    reported = {name: figures.get(name) for name in CHECKPOINT_FIGURES}
    emit(
        {
            "type": "checkpoint",
            "step": step,
            "epoch": epoch + 1,
            "path": str(folder.resolve()),
            "metrics": reported,
            "dropped_prompt": _told(run.dropped_prompt),
        }
    )


def _save(run: Run, trainer: Trainer, record: RunRecord | None, progress: Progress, emit: Emit) -> None:
    """Where it finds no room, the run goes on without: a state only saves time after a crash."""
    if record:
        record.sync()
    folder, model, writes = run.folder / "resume", run.student.model, run.processes.is_first
    try:
        save_resume_state(folder, model, trainer.optimizers, progress, kept=trainer.kept, writes=writes)
    except (DiskFull, OSError) as error:
        message = f"The state after step {progress.step} could not be saved; the run goes on without it. {error}"
        emit({"type": "message", "level": "warn", "message": message})


def _started(run: Run, progress: Progress | None) -> dict[str, Any]:
    numbers, parameters = run.numbers, list(run.student.model.parameters())
    return {
        "type": "started",
        "hyperparameters": numbers.shown(),
        "total_steps": numbers.total_steps,
        "examples": len(run.train),
        "valid_examples": len(run.valid),
        "parameters": sum(each.numel() for each in parameters),
        "trainable_parameters": sum(each.numel() for each in parameters if each.requires_grad),
        "resumed_from_step": progress.step if progress else None,
        "soft_label_positions": run.soft_label_positions,
        "dropped_prompt": _told(run.dropped_prompt),
    }


def _done(run: Run) -> dict[str, Any]:
    return {
        "type": "done",
        "trained_tokens": trained_tokens(run),
        "path": str(step_folder(run.folder / "checkpoints", run.numbers.total_steps).resolve()),
        "metrics_csv": str((run.folder / "metrics.csv").resolve()),
        "dropped_prompt": _told(run.dropped_prompt),
    }


def _told(dropped: DroppedPrompt | None) -> dict[str, Any] | None:
    return asdict(dropped) if dropped else None
