"""What a student makes of some examples: gradients, losses, log-probabilities, in passes that fit into memory.

Owns how examples are cut into passes and shared among processes, and what happens when memory runs out in one.
What comes out is that of all examples, in every process. Knows no optimizers, and not what is learned from it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from stillroom.errors import TrainingFailed
from stillroom.student.bases.adapters import recompute_activations
from stillroom.student.bases.base_models import Student
from stillroom.student.chats.labels import SoftLabels
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

Found = TypeVar("Found")


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

    def do_as(self, other: Computation) -> None:
        """In passes as large, and beside each other, which every model can. Instead of a plan."""
        self.layout, self.passes = PADDED, other.passes

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
        return self._of_each(examples, lambda batch: self._objective.log_probs(batch).tolist())

    def likeliest(self, examples: Sequence[Example], count: int) -> list[SoftLabels]:
        """What is held likely at the trained tokens of each example: so many tokens, and the one that is there."""
        return self._of_each(examples, lambda batch: self._objective.likeliest(batch, count))

    def answers(self, prompts: Sequence[array[int]], most_tokens: Sequence[int]) -> list[array[int]]:
        """Drawn from what the student would say to each prompt, in at most so many tokens."""
        self.model.eval()
        own = range(self._processes.rank, len(prompts), self._processes.count)
        lengths = [len(prompt) + most for prompt, most in zip(prompts, most_tokens, strict=True)]
        found: list[tuple[int, array[int]]] = []
        for some in _beside_each_other(sorted(own, key=lambda at: -lengths[at]), lengths, self.passes.max_tokens):
            drawn = self._drawn([prompts[at] for at in some], max(most_tokens[at] for at in some))
            found += [(at, answer[: most_tokens[at]]) for at, answer in zip(some, drawn, strict=True)]
        known = dict(chain.from_iterable(self._processes.together(lambda: found)))
        return [known[at] for at in range(len(prompts))]

    @contextmanager
    def with_weights(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Meanwhile, the trained weights are these."""
        named = self.named()
        own = {name: named[name].data for name in weights}
        try:
            for name, weight in weights.items():
                named[name].data = weight
            yield
        finally:
            for name, weight in own.items():
                named[name].data = weight

    def named(self) -> dict[str, Tensor]:
        """The trained weights."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def trained(self) -> list[Tensor]:
        return list(self.named().values())

    def peak_bytes(self) -> int:
        """The most that one of the processes has used."""
        return int(self._processes.largest(peak_bytes(self._device)))

    def _of_each(self, examples: Sequence[Example], work: Callable[[Batch], Sequence[Found]]) -> list[Found]:
        """What comes of each example, whichever process and pass it was in."""
        self.model.eval()
        places = {id(example): place for place, example in enumerate(examples)}
        found: list[tuple[int, Found]] = []
        for batch, some in self._batches(self._own(examples)):
            found += zip((places[id(each)] for each in some), work(batch), strict=bool(some))
        known = dict(chain.from_iterable(self._processes.together(lambda: found)))
        return [known[places[id(example)]] for example in examples]

    @torch.no_grad()
    def _drawn(self, prompts: Sequence[array[int]], most: int) -> list[array[int]]:
        """Answers with their end, where they have come to one. Prompts are padded on the left."""
        ends, length = torch.tensor(self._student.template.end_ids, device=self._device), max(map(len, prompts))
        ids_BT = torch.zeros(len(prompts), length, dtype=torch.long, device=self._device)
        for row, prompt in enumerate(prompts):
            ids_BT[row, length - len(prompt) :] = torch.tensor(prompt, device=self._device)
        before_B1 = torch.tensor([[length - len(prompt)] for prompt in prompts], device=self._device)
        mask_BT = (torch.arange(length, device=self._device) >= before_B1).long()
        has_ended_B = torch.zeros(len(prompts), dtype=torch.bool, device=self._device)
        drawn: list[Tensor] = []
        cache, next_BT = None, ids_BT
        with self._objective.rounding():
            while len(drawn) < most and not has_ended_B.all():
                positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -next_BT.shape[1] :]
                said = self.model(
                    input_ids=next_BT,
                    attention_mask=mask_BT,
                    position_ids=positions_BT,
                    past_key_values=cache,
                    use_cache=True,
                    **({"logits_to_keep": 1} if self._objective.keeps_columns else {}),
                )
                logits_BV, cache = said.logits[:, -1], said.past_key_values
                chances_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32)).softmax(-1)
                next_BT = chances_BV.multinomial(1)
                drawn.append(next_BT)
                has_ended_B |= torch.isin(next_BT[:, 0], ends)
                mask_BT = torch.cat([mask_BT, torch.ones_like(before_B1)], -1)
        return [_up_to_an_end(row, self._student.template.end_ids) for row in torch.cat(drawn, -1).tolist()]

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


def _beside_each_other(order: Iterable[int], lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Longest first, so many that they are at most `max_tokens` as rows of the longest; or one."""
    some: list[int] = []
    for at in order:
        if some and lengths[some[0]] * (len(some) + 1) > max_tokens:
            yield some
            some = []
        some.append(at)
    if some:
        yield some


def _up_to_an_end(ids: list[int], ends: Sequence[int]) -> array[int]:
    end = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    return array("i", ids[: end + 1])
