"""A student's weights and all that moves them: one update at a time.

Owns the optimizers, how a step is cut into passes, and what happens when memory runs out in one. Knows
nothing of epochs, files or events' readers; `loop` says which examples make up which step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from stillroom.errors import TrainingFailed
from stillroom.student.bases.adapters import recompute_activations
from stillroom.student.bases.base_models import Student
from stillroom.student.chats.template import Example
from stillroom.student.child import is_out_of_memory
from stillroom.student.events import Emit, Figures
from stillroom.student.hyperparameters import FROM_NOTHING, Resolved, learning_rate_at
from stillroom.student.training.fsdp import is_sharded, whole
from stillroom.student.training.losses import Objective, Sums
from stillroom.student.training.memory import peak_bytes, plan
from stillroom.student.training.muon import Muon
from stillroom.student.training.packing import PADDED, SHARED, Batch, Layout, Passes, shares
from stillroom.student.training.processes import ALONE, Processes
from stillroom.student.training.sharing import why_not_shared

WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
MUON_RATE = 16.0
"""Muon's rate, in AdamW's: its updates have size one per direction, AdamW's size one per weight."""
MAX_GRADIENT_NORM = 1.0


class Trainer:
    """Moves the weights of one student. Says through `emit` what its owner should know of how it does."""

    def __init__(self, student: Student, numbers: Resolved, *, emit: Emit, processes: Processes = ALONE) -> None:
        self.optimizers = optimizers_of(student)
        self.layout = SHARED
        self.passes = Passes(max_tokens=0)
        self._student = student
        self._numbers = numbers
        self._emit = emit
        self._processes = processes
        self._has_halved = False
        self._is_sharded = is_sharded(student.model)
        student.model.train()
        self._objective = Objective(student.model, compute_dtype=student.compute_dtype)
        self._device = next(student.model.parameters()).device

    def plan(self, examples: Sequence[Example], passes: Passes | None, *, limit_bytes: int | None) -> None:
        """Decides how steps are computed: as in `passes`, or as memory allows. To be called before the first."""
        longest = max(examples, key=lambda example: len(example.ids))
        self._shortest = min(examples, key=lambda example: len(example.ids))
        # What is tried beforehand must not move the generator that a run's dropout draws from.
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            self.layout = self._layout(passes)
            self.passes = passes or self._planned(longest, limit_bytes)
        if self.passes.recomputed:
            recompute_activations(self._student.model)
            self._say("info", "To fit the longest row into memory, layers are computed twice (gradient checkpointing).")

    def step(self, number: int, examples: Sequence[Example]) -> Figures:
        """One update. The loss is the mean over all trained tokens of the step, however many passes it takes."""
        began = time.perf_counter()
        rate = learning_rate_at(number, total_steps=self._numbers.total_steps, peak=self._numbers.learning_rate)
        self._set_rates(rate)
        self._student.model.train()
        sums = self._with_gradients(examples)
        loss = sums.loss / sums.tokens
        _check_finite("loss", loss, number)
        norm = nn.utils.clip_grad_norm_(self._trained(), MAX_GRADIENT_NORM)
        _check_finite("gradient's size", float(whole(norm)), number)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
        return {
            "step": number,
            "train_loss": loss,
            "train_mean_token_accuracy": sums.correct / sums.tokens,
            "valid_loss": None,
            "valid_mean_token_accuracy": None,
            "learning_rate": rate,
            "tokens_per_second": sum(len(each.ids) for each in examples) / seconds,
            "computed_tokens_per_second": sums.computed / seconds,
            "memory_bytes": int(self._processes.largest(peak_bytes(self._device))),
        }

    def evaluate(self, examples: Sequence[Example], *, step: int) -> tuple[float, float]:
        """Mean loss and accuracy over all trained tokens of the examples, as of a step."""
        self._student.model.eval()
        sums = Sums()
        passes = self._passes_of(self._own(examples))
        idle = self._idle_passes(passes)
        for some in passes:
            sums += self._objective.evaluate(self._batch(some))
        for _ in range(idle):
            self._objective.evaluate(self._batch([self._shortest]))
        sums = self._processes.added(sums)
        loss = sums.loss / sums.tokens
        _check_finite("validation loss", loss, step)
        return loss, sums.correct / sums.tokens

    def _layout(self, begun: Passes | None) -> Layout:
        """As the model allows; a run that has begun keeps its own, whatever this machine finds."""
        if begun and not begun.shares:
            return PADDED
        why = why_not_shared(self._objective)
        if why is None:
            return SHARED
        name = self._student.base.name
        if begun:
            raise TrainingFailed(
                f"The run was begun with rows that share what they have in common. Here, {name} cannot: {why}. Let it "
                "go on where it was begun, or start it anew in another folder.",
                param="model",
            )
        self._say(
            "info", f"What rows of a batch have in common is computed for each of them: {name} cannot share, {why}."
        )
        return PADDED

    def _planned(self, longest: Example, limit_bytes: int | None) -> Passes:
        """What fits in each of the processes."""
        beside = 1 if self._device.type == "cuda" else self._processes.on_this_machine
        planned = self._processes.together(
            lambda: plan(
                self._objective,
                longest=longest,
                most_tokens=self.layout.most_tokens,
                limit_bytes=limit_bytes,
                processes=beside,
            )
        )
        return Passes(
            max_tokens=min(each.max_tokens for each in planned),
            recomputed=any(each.recomputed for each in planned),
            shares=self.layout is SHARED,
        )

    def _own(self, examples: Sequence[Example]) -> list[Example]:
        """This process's part of them; it may get none."""
        parts = shares(examples, self.layout, self._processes.count)
        return parts[self._processes.rank] if self._processes.rank < len(parts) else []

    def _with_gradients(self, examples: Sequence[Example]) -> Sums:
        """The step's gradients, in all processes; once in a run, passes of half the size when memory runs out."""
        own, scale = self._own(examples), _scale(examples)
        sums = self._accumulated_if_it_fits(own, scale)
        if self._processes.any(sums is None):
            self._halve_passes(own)
            sums = self._accumulated(own, scale)
        assert sums is not None
        if not self._is_sharded:
            self._processes.sum_gradients(self._trained())
        return self._processes.added(sums)

    def _accumulated_if_it_fits(self, examples: Sequence[Example], scale: float) -> Sums | None:
        """None when memory ran out for the first time."""
        try:
            return self._accumulated(examples, scale)
        except (MemoryError, RuntimeError) as error:
            # With shards, the others wait in the middle of this pass: it cannot be tried again.
            if self._has_halved or self._is_sharded or not is_out_of_memory(error):
                raise
        # Out here, the exception no longer holds on to the pass that failed.
        return None

    def _halve_passes(self, examples: Sequence[Example]) -> None:
        self._has_halved = True
        self._objective.model.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        computed = (self._computed_tokens(some) for some in self._passes_of(examples))
        largest = self._processes.largest(max(computed, default=0))
        self.passes = replace(self.passes, max_tokens=max(1, min(self.passes.max_tokens, int(largest)) // 2))
        self._say("warn", f"Memory ran out; from here on a pass computes at most {self.passes.max_tokens} tokens.")

    def _passes_of(self, examples: Sequence[Example]) -> list[list[Example]]:
        return self.layout.passes(examples, self.passes.max_tokens)

    def _accumulated(self, examples: Sequence[Example], scale: float) -> Sums:
        sums = Sums()
        passes = self._passes_of(examples)
        idle = self._idle_passes(passes)
        for some in passes:
            sums += self._objective.backward(self._batch(some), scale=scale)
        for _ in range(idle):
            self._objective.backward(self._batch([self._shortest]), scale=0.0)
        return sums

    def _idle_passes(self, own: Sequence[object]) -> int:
        """How many passes more than its own this process takes part in, for the shards that it holds."""
        return int(self._processes.largest(len(own))) - len(own) if self._is_sharded else 0

    def _batch(self, examples: Sequence[Example]) -> Batch:
        return self.layout.batch(examples).to(self._device)

    def _computed_tokens(self, examples: Sequence[Example]) -> int:
        return self.layout.batch(examples).num_tokens

    def _trained(self) -> list[Tensor]:
        return [parameter for parameter in self._student.model.parameters() if parameter.requires_grad]

    def _set_rates(self, rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * MUON_RATE if isinstance(optimizer, Muon) else rate

    def _say(self, level: str, message: str) -> None:
        self._emit({"type": "message", "level": level, "message": message})


def optimizers_of(student: Student) -> list[Optimizer]:
    """A student from nothing: Muon for hidden matrices, AdamW for the rest. A trained base, whole or below an
    adapter: AdamW. Vectors are not decayed."""
    trained = {name: each for name, each in student.model.named_parameters() if each.requires_grad}
    hidden = {name: each for name, each in trained.items() if _is_hidden_matrix(name, each)}
    if student.method.recipe is not FROM_NOTHING or is_sharded(student.model):
        hidden = {}  # and Muon needs whole matrices
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


def _scale(examples: Sequence[Example]) -> float:
    """Of a sum over the examples' trained tokens, to their mean."""
    return 1 / sum(sum(example.mask[1:]) for example in examples)


def _check_finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingFailed(
            f"The {what} is {value} at step {step}. Lower learning_rate_multiplier, or look for broken rows.",
            param="learning_rate_multiplier",
        )
