"""A student's weights and all that moves them: one update at a time.

Owns the optimizers and what is measured of a step. Knows nothing of epochs, files or events' readers; `loop` says
which lessons make up which step, `learning` what is learned from them, `computation` how.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from stillroom.errors import TrainingFailed
from stillroom.student.bases.base_models import Student
from stillroom.student.chats.template import Lesson, examples_of
from stillroom.student.events import Emit, Figures
from stillroom.student.hyperparameters import FROM_NOTHING, Resolved, learning_rate_at
from stillroom.student.training.computation import Computation
from stillroom.student.training.fsdp import is_sharded, whole
from stillroom.student.training.learning import learning_of, loss_of
from stillroom.student.training.losses import cross_entropy
from stillroom.student.training.muon import Muon
from stillroom.student.training.packing import Layout, Passes
from stillroom.student.training.processes import ALONE, Processes

WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
MUON_RATE = 16.0
"""Muon's rate, in AdamW's: its updates have size one per direction, AdamW's size one per weight."""
MAX_GRADIENT_NORM = 1.0


class Trainer:
    """Moves the weights of one student. Says through `emit` what its owner should know of how it does."""

    def __init__(
        self,
        student: Student,
        numbers: Resolved,
        *,
        emit: Emit,
        processes: Processes = ALONE,
        teacher: Student | None = None,
    ) -> None:
        """`teacher`: another model, which judges what the student says."""
        method = student.method.type
        self.optimizers = optimizers_of(student)
        self.computation = Computation(student, loss_of(method, numbers), emit=emit, processes=processes)
        self._teacher = Computation(teacher, cross_entropy, emit=emit, processes=processes) if teacher else None
        self.kept: dict[str, Tensor] = {}
        """What the method cannot find out again: part of the run's state."""
        self._learning = learning_of(method, numbers, self.computation, self._teacher)
        self._numbers = numbers

    @property
    def layout(self) -> Layout:
        return self.computation.layout

    @property
    def passes(self) -> Passes:
        return self.computation.passes

    def plan(self, lessons: Sequence[Lesson], passes: Passes | None, *, limit_bytes: int | None) -> None:
        """Decides how steps are computed: as in `passes`, or as memory allows. To be called before the first."""
        self.computation.plan(examples_of(lessons), passes, limit_bytes=limit_bytes)
        if self._teacher:
            self._teacher.do_as(self.computation)

    def begin(self, lessons: Sequence[Lesson], looked_at: Sequence[Lesson]) -> str | None:
        """Lets the method see all lessons, and what is only looked at, with the weights that the run begins or goes on
        with. Gives what the run's owner should know of that."""
        return self._learning.begin(lessons, looked_at, self.kept)

    def step(self, number: int, lessons: Sequence[Lesson]) -> Figures:
        """One update."""
        began = time.perf_counter()
        rate = learning_rate_at(number, total_steps=self._numbers.total_steps, peak=self._numbers.learning_rate)
        self._set_rates(rate)
        learned = self._learning.learn(lessons)
        _check_finite("loss", learned.loss, number)
        norm = nn.utils.clip_grad_norm_(self.computation.trained(), MAX_GRADIENT_NORM)
        _check_finite("gradient's size", float(whole(norm)), number)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
        return {
            "step": number,
            "train_loss": learned.loss,
            "train_mean_token_accuracy": learned.accuracy,
            "valid_loss": None,
            "valid_mean_token_accuracy": None,
            "learning_rate": rate,
            "tokens_per_second": sum(len(each.ids) for each in examples_of(lessons)) / seconds,
            "computed_tokens_per_second": learned.computed / seconds,
            "memory_bytes": self.computation.peak_bytes(),
            **learned.more,
        }

    def evaluate(self, lessons: Sequence[Lesson], *, step: int) -> tuple[float, float]:
        """Loss and accuracy over all of the lessons, as of a step."""
        learned = self._learning.look(lessons)
        _check_finite("validation loss", learned.loss, step)
        return learned.loss, learned.accuracy

    def _set_rates(self, rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * MUON_RATE if isinstance(optimizer, Muon) else rate


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


def _check_finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingFailed(
            f"The {what} is {value} at step {step}. Lower learning_rate_multiplier, or look for broken rows.",
            param="learning_rate_multiplier",
        )
