"""The training loop.

Owns the order of things: batches, loss, update, validation, checkpoints, resume. The same run (student,
examples, numbers, seed, threads) gives the same weights, also when it was killed in between. Reports
through `emit`; knows no processes and no streams.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from stillroom.errors import TrainingFailed
from stillroom.student.base_models import Student
from stillroom.student.checkpoint import (
    CHECKPOINTS_KEPT,
    Artefact,
    Progress,
    keep_last,
    load_resume_state,
    save_resume_state,
    step_folder,
    write_artefact,
)
from stillroom.student.hyperparameters import Resolved, Training, learning_rate_at, steps_per_epoch
from stillroom.student.losses import Losses, TargetLogits, cross_entropy
from stillroom.student.metrics import MetricsFile
from stillroom.student.muon import Muon
from stillroom.student.packing import epoch_batches, padded, within_budget
from stillroom.student.template import Example

WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
MUON_RATE = 16.0
"""Muon's rate, in AdamW's: its updates have size one per direction, AdamW's size one per weight."""
MAX_GRADIENT_NORM = 1.0
MAX_TOKENS_PER_PASS = 16_384
"""Padded tokens in one forward pass; a larger step is accumulated from several."""
VALIDATIONS_PER_RUN = 50
"""How often, at most, a validation batch is looked at between epochs."""

Figures = dict[str, float | int | None]
Emit = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a training run is made of."""

    folder: Path
    student: Student
    model_name: str
    train: Sequence[Example]
    valid: Sequence[Example]
    numbers: Resolved
    seed: int
    checkpoint_seconds: float
    """Between resume states, and between the checkpoints of shorter epochs (the last three always have one)."""
    fingerprint: str
    """Of all that decides the weights."""


def train(run: Run, *, emit: Emit, stop: Callable[[], bool]) -> None:
    """Trains to the end, or until `stop()`; goes on from the folder's resume state when it holds one."""
    optimizers = optimizers_of(run.student)
    progress = _resumed(run, optimizers, emit)
    done = progress or Progress(step=0, fingerprint=run.fingerprint, metrics={})
    with closing(MetricsFile(run.folder / "metrics.csv", after_step=done.step)) as metrics:
        emit(_started(run, progress))
        last = _steps(run, done, optimizers, metrics, emit=emit, stop=stop)
    if last < run.numbers.total_steps:
        emit({"type": "stopped", "step": last})
    else:
        emit(_done(run))


def _steps(
    run: Run,
    progress: Progress,
    optimizers: Sequence[Optimizer],
    metrics: MetricsFile,
    *,
    emit: Emit,
    stop: Callable[[], bool],
) -> int:
    """One optimizer step after the other; the number of the last one."""
    logits_of = TargetLogits(run.student.model)
    steps_an_epoch = steps_per_epoch(len(run.train), run.numbers.batch_size)
    saved_at = checkpoint_at = time.monotonic()
    batches: list[list[Example]] = []
    while progress.step < run.numbers.total_steps and not stop():
        # 1) The step's number alone says which epoch and which batch it is.
        epoch, index = divmod(progress.step, steps_an_epoch)
        if index == 0 or not batches:
            batches = batches_of(run, epoch)

        # 2) One update.
        step = progress.step + 1
        figures = take_step(run, step, batches[index], logits_of, optimizers)
        figures |= _validated(run, step, logits_of)
        emit({"type": "step", "total_steps": run.numbers.total_steps, "epoch": epoch, **figures})

        # 3) At an epoch's end the whole validation file, and a model that can be deployed.
        is_checkpoint = False
        if step % steps_an_epoch == 0:
            figures |= _fully_validated(run, logits_of)
            elapsed = time.monotonic() - checkpoint_at
            is_checkpoint = _is_one_of_the_last(run, epoch) or elapsed >= run.checkpoint_seconds
        if is_checkpoint:
            write_checkpoint(run, step, epoch, figures, emit)
            checkpoint_at = time.monotonic()

        # 4) A state to go on from; behind the checkpoint's event, so that a kill repeats the event, never loses it.
        metrics.append(figures)
        progress = Progress(step=step, fingerprint=run.fingerprint, metrics=figures)
        if is_checkpoint or time.monotonic() - saved_at >= run.checkpoint_seconds:
            _save(run, optimizers, metrics, progress)
            saved_at = time.monotonic()
    if progress.step < run.numbers.total_steps:
        _save(run, optimizers, metrics, progress)
    return progress.step


def tokens_per_epoch(run: Run) -> int:
    """Every token of every example, prompts and control tokens too."""
    return sum(len(example.ids) for example in run.train)


def trained_tokens(run: Run) -> int:
    """What a job is billed for: the tokens of an epoch, in every epoch."""
    return tokens_per_epoch(run) * run.numbers.n_epochs


def validation_interval(run: Run) -> int:
    """Steps from one validation batch to the next."""
    return max(1, run.numbers.total_steps // VALIDATIONS_PER_RUN)


def _resumed(run: Run, optimizers: Sequence[Optimizer], emit: Emit) -> Progress | None:
    def warn(state: Path) -> None:
        emit(
            {
                "type": "message",
                "level": "warn",
                "message": f"Resume state {state.name} is damaged; trying an older one.",
            }
        )

    progress = load_resume_state(run.folder / "resume", run.student.model, optimizers, on_damaged=warn)
    if progress is not None and progress.fingerprint != run.fingerprint:
        raise TrainingFailed(
            f"{run.folder} holds a run with another file, base model, seed or other hyperparameters. "
            "Give the job a folder of its own."
        )
    return progress


def optimizers_of(student: Student) -> list[Optimizer]:
    """Full training: Muon for hidden matrices, AdamW for the rest. An adapter: AdamW. Vectors are not decayed."""
    trained = {name: each for name, each in student.model.named_parameters() if each.requires_grad}
    hidden = {name: each for name, each in trained.items() if _is_hidden_matrix(name, each)}
    if student.training is Training.ADAPTER:
        hidden = {}
    others = [each for name, each in trained.items() if name not in hidden]
    groups = [
        {"params": [each for each in others if each.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [each for each in others if each.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = AdamW([group for group in groups if group["params"]], betas=BETAS, fused=True)
    return [adamw, Muon(hidden.values(), lr=0.0, weight_decay=WEIGHT_DECAY)] if hidden else [adamw]


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Neither a vector nor the embedding or the output head, whose rows are words and no directions."""
    return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name


def _set_rates(optimizers: Sequence[Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * MUON_RATE if isinstance(optimizer, Muon) else rate


def batches_of(run: Run, epoch: int) -> list[list[Example]]:
    return epoch_batches(run.train, batch_size=run.numbers.batch_size, seed=run.seed, epoch=epoch)


def take_step(
    run: Run, step: int, examples: list[Example], logits_of: TargetLogits, optimizers: Sequence[Optimizer]
) -> Figures:
    """One update. The loss is the mean over all trained tokens of the step, however many passes it takes."""
    began = time.perf_counter()
    rate = learning_rate_at(step, total_steps=run.numbers.total_steps, peak=run.numbers.learning_rate)
    _set_rates(optimizers, rate)
    run.student.model.train()
    num_targets = sum(sum(example.mask[1:]) for example in examples)
    loss, num_correct = 0.0, 0
    for some in within_budget(examples, max_tokens=MAX_TOKENS_PER_PASS):
        part = _losses(run, some, logits_of)
        share = part.loss * (part.num_targets / num_targets)
        share.backward()  # type: ignore[no-untyped-call]
        loss += float(share.detach())
        num_correct += part.num_correct
    _check_finite(loss, step)
    nn.utils.clip_grad_norm_(_trained(run.student.model), MAX_GRADIENT_NORM)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {
        "step": step,
        "train_loss": loss,
        "train_mean_token_accuracy": num_correct / num_targets,
        "valid_loss": None,
        "valid_mean_token_accuracy": None,
        "learning_rate": rate,
        "tokens_per_second": sum(len(each.ids) for each in examples) / (time.perf_counter() - began),
    }


def _losses(run: Run, examples: Sequence[Example], logits_of: TargetLogits) -> Losses:
    batch = padded(examples).to(next(run.student.model.parameters()).device)
    return cross_entropy(logits_of(batch), batch.targets_N)


def _trained(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingFailed(
            f"The loss is {loss} at step {step}. Lower learning_rate_multiplier, or look for broken rows.",
            param="learning_rate_multiplier",
        )


def _validated(run: Run, step: int, logits_of: TargetLogits) -> Figures:
    """Loss and accuracy of one validation batch, at intervals; the batches take turns."""
    interval = validation_interval(run)
    if not run.valid or step % interval:
        return {}
    size = run.numbers.batch_size
    at = (step // interval - 1) * size % (size * steps_per_epoch(len(run.valid), size))
    loss, accuracy = evaluated(run, run.valid[at : at + size], logits_of)
    return {"valid_loss": loss, "valid_mean_token_accuracy": accuracy}


def _fully_validated(run: Run, logits_of: TargetLogits) -> Figures:
    if not run.valid:
        return {"full_valid_loss": None, "full_valid_mean_token_accuracy": None}
    loss, accuracy = evaluated(run, run.valid, logits_of)
    return {"full_valid_loss": loss, "full_valid_mean_token_accuracy": accuracy}


@torch.no_grad()
def evaluated(run: Run, examples: Sequence[Example], logits_of: TargetLogits) -> tuple[float, float]:
    """Mean loss and accuracy over all trained tokens of the examples."""
    run.student.model.eval()
    parts = [_losses(run, some, logits_of) for some in within_budget(examples, max_tokens=MAX_TOKENS_PER_PASS)]
    num_targets = sum(part.num_targets for part in parts)
    loss = sum(float(part.loss) * part.num_targets for part in parts) / num_targets
    return loss, sum(part.num_correct for part in parts) / num_targets


def _is_one_of_the_last(run: Run, epoch: int) -> bool:
    return epoch >= run.numbers.n_epochs - CHECKPOINTS_KEPT


def write_checkpoint(run: Run, step: int, epoch: int, figures: Figures, emit: Emit) -> None:
    folder = step_folder(run.folder / "checkpoints", step)
    student = run.student
    artefact = Artefact(
        training=student.training,
        model_name=run.model_name,
        base=student.base,
        hyperparameters=asdict(run.numbers) | {"seed": run.seed},
        step=step,
        end_ids=list(student.template.end_ids),
    )
    write_artefact(folder, student.model, student.template, artefact)
    keep_last(run.folder / "checkpoints", CHECKPOINTS_KEPT)
    reported = {name: figures.get(name) for name in _REPORTED}
    emit(
        {
            "type": "checkpoint",
            "step": step,
            "epoch": epoch + 1,
            "path": str(folder.resolve()),
            "metrics": reported,
        }
    )


_REPORTED = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


def _save(run: Run, optimizers: Sequence[Optimizer], metrics: MetricsFile, progress: Progress) -> None:
    metrics.sync()
    save_resume_state(run.folder / "resume", run.student.model, optimizers, progress)


def _started(run: Run, progress: Progress | None) -> dict[str, Any]:
    numbers, parameters = run.numbers, list(run.student.model.parameters())
    return {
        "type": "started",
        "hyperparameters": {
            "n_epochs": numbers.n_epochs,
            "batch_size": numbers.batch_size,
            "learning_rate_multiplier": numbers.learning_rate_multiplier,
        },
        "total_steps": numbers.total_steps,
        "examples": len(run.train),
        "valid_examples": len(run.valid),
        "parameters": sum(each.numel() for each in parameters),
        "trainable_parameters": sum(each.numel() for each in parameters if each.requires_grad),
        "resumed_from_step": progress.step if progress else None,
    }


def _done(run: Run) -> dict[str, Any]:
    return {
        "type": "done",
        "trained_tokens": trained_tokens(run),
        "path": str(step_folder(run.folder / "checkpoints", run.numbers.total_steps).resolve()),
        "metrics_csv": str((run.folder / "metrics.csv").resolve()),
    }
