"""What a student makes of some examples: gradients, losses, log-probabilities, in passes that fit into memory.

Owns how examples are cut into passes and shared among processes, and what happens when memory runs out in one.
What comes out is that of all examples, in every process. Knows no optimizers, and not what is learned from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from stillroom.errors import TrainingFailed
from stillroom.student.bases.adapters import recompute_activations
from stillroom.student.bases.base_models import Student
from stillroom.student.chats.template import Example
from stillroom.student.child import is_out_of_memory
from stillroom.student.events import Emit
from stillroom.student.training.fsdp import is_sharded
from stillroom.student.training.losses import Loss
from stillroom.student.training.memory import peak_bytes, plan
from stillroom.student.training.objective import Objective, Sums
from stillroom.student.training.packing import PADDED, SHARED, Batch, Layout, Passes, shares
from stillroom.student.training.processes import ALONE, Processes
from stillroom.student.training.sharing import why_not_shared


class Computation:
    """Of one student. Says through `emit` what its owner should know of how it is done."""

    def __init__(self, student: Student, loss: Loss, *, emit: Emit, processes: Processes = ALONE) -> None:
        self.layout = SHARED
        self.passes = Passes(max_tokens=0)
        self.model = student.model
        self._student = student
        self._emit = emit
        self._processes = processes
        self._has_halved = False
        self._is_sharded = is_sharded(student.model)
        student.model.train()
        self._objective = Objective(student.model, loss=loss, compute_dtype=student.compute_dtype)
        self._device = next(student.model.parameters()).device

    def plan(self, examples: Sequence[Example], passes: Passes | None, *, limit_bytes: int | None) -> None:
        """Decides how it is done: as in `passes`, or as memory allows. To be called before all else."""
        longest = max(examples, key=lambda example: len(example.ids))
        self._shortest = min(examples, key=lambda example: len(example.ids))
        # What is tried beforehand must not move the generator that a run's dropout draws from.
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            self.layout = self._layout(passes)
            self.passes = passes or self._planned(longest, limit_bytes)
        if self.passes.recomputed:
            recompute_activations(self._student.model)
            self._say("info", "To fit the longest row into memory, layers are computed twice (gradient checkpointing).")

    def gradients(self, examples: Sequence[Example], *, scale: float) -> Sums:
        """Adds the gradients of `scale` times the examples' summed loss to the parameters'; once in a run, in passes
        of half the size when memory runs out."""
        self.model.train()
        own = self._own(examples)
        sums = self._accumulated_if_it_fits(own, scale)
        if self._processes.any(sums is None):
            self._halve_passes(own)
            sums = self._accumulated(own, scale)
        assert sums is not None
        if not self._is_sharded:
            self._processes.sum_gradients(self.trained())
        return self._processes.added(sums)

    def sums(self, examples: Sequence[Example]) -> Sums:
        """Loss and accuracy, and nothing else."""
        self.model.eval()
        sums = Sums()
        for batch, some in self._batches(self._own(examples)):
            found = self._objective.evaluate(batch)
            sums += found if some else Sums()
        return self._processes.added(sums)

    def log_probs(self, examples: Sequence[Example]) -> list[float]:
        """How likely the trained tokens of each example are together: the logarithm, in nats."""
        self.model.eval()
        places = {id(example): place for place, example in enumerate(examples)}
        found: list[tuple[int, float]] = []
        for batch, some in self._batches(self._own(examples)):
            found += zip((places[id(each)] for each in some), self._objective.log_probs(batch).tolist(), strict=False)
        known = dict(chain.from_iterable(self._processes.together(lambda: found)))
        return [known[places[id(example)]] for example in examples]

    def trained(self) -> list[Tensor]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def peak_bytes(self) -> int:
        """The most that one of the processes has used."""
        return int(self._processes.largest(peak_bytes(self._device)))

    # --- how it is cut -----------------------------------------------------------------------------------

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

    def _passes_of(self, examples: Sequence[Example]) -> list[list[Example]]:
        return self.layout.passes(examples, self.passes.max_tokens)

    def _batches(self, own: Sequence[Example]) -> Iterable[tuple[Batch, list[Example]]]:
        """Pass by pass, with the examples in it: none in those that this process takes part in for the others."""
        passes = self._passes_of(own)
        idle = int(self._processes.largest(len(passes))) - len(passes) if self._is_sharded else 0
        yield from ((self._batch(some), some) for some in passes)
        yield from ((self._batch([self._shortest]), []) for _ in range(idle))

    def _batch(self, examples: Sequence[Example]) -> Batch:
        return self.layout.batch(examples).to(self._device)

    # --- and what happens when it does not fit ------------------------------------------------------------

    def _accumulated(self, examples: Sequence[Example], scale: float) -> Sums:
        sums = Sums()
        for batch, some in self._batches(examples):
            found = self._objective.backward(batch, scale=scale if some else 0.0)
            sums += found if some else Sums()
        return sums

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
        computed = (self.layout.batch(some).num_tokens for some in self._passes_of(examples))
        largest = self._processes.largest(max(computed, default=0))
        self.passes = replace(self.passes, max_tokens=max(1, min(self.passes.max_tokens, int(largest)) // 2))
        self._say("warn", f"Memory ran out; from here on a pass computes at most {self.passes.max_tokens} tokens.")

    def _say(self, level: str, message: str) -> None:
        self._emit({"type": "message", "level": level, "message": message})
