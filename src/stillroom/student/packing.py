"""Examples -> padded batches, in an order that seed and epoch decide.

Examples of like length share a batch, so that little is padded; no example is dropped or cut. Knows
tensors, not models.

B batch, T tokens, N trained tokens of a batch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillroom.student.template import Example

GROUP_BATCHES = 16
"""Batches whose examples are sorted by length together: long enough to pad little, short enough to stay random."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded on the right: with causal attention no real token ever sees the padding."""

    ids_BT: Tensor
    rows_N: Tensor
    columns_N: Tensor
    """Row and column of each position whose *next* token is trained."""
    targets_N: Tensor
    num_tokens: int
    """Real tokens, padding not counted."""

    def to(self, device: torch.device) -> Batch:
        return Batch(
            ids_BT=self.ids_BT.to(device),
            rows_N=self.rows_N.to(device),
            columns_N=self.columns_N.to(device),
            targets_N=self.targets_N.to(device),
            num_tokens=self.num_tokens,
        )


def epoch_batches(examples: Sequence[Example], *, batch_size: int, seed: int, epoch: int) -> list[list[Example]]:
    """Every example once, in groups of at most `batch_size`; the same for the same seed and epoch."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(examples), generator=generator).tolist()
    batches: list[list[Example]] = []
    for group in _chunks(order, batch_size * GROUP_BATCHES):
        by_length = sorted(group, key=lambda index: len(examples[index].ids))
        batches += [[examples[index] for index in chunk] for chunk in _chunks(by_length, batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def padded(examples: Sequence[Example]) -> Batch:
    """One batch. The first token of an example is never a target: nothing precedes it."""
    ids_BT = torch.zeros(len(examples), max(len(example.ids) for example in examples), dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids_BT[row, : len(example.ids)] = torch.tensor(example.ids)
        mask_BT[row, : len(example.mask)] = torch.tensor(list(example.mask), dtype=torch.bool)
    rows_N, columns_N = mask_BT[:, 1:].nonzero(as_tuple=True)
    return Batch(
        ids_BT=ids_BT,
        rows_N=rows_N,
        columns_N=columns_N,
        targets_N=ids_BT[rows_N, columns_N + 1],
        num_tokens=sum(len(example.ids) for example in examples),
    )


def within_budget(examples: Sequence[Example], *, max_tokens: int) -> list[list[Example]]:
    """A step's examples in passes of at most `max_tokens` padded tokens (or one example), longest first."""
    passes: list[list[Example]] = []
    for example in sorted(examples, key=lambda each: -len(each.ids)):
        if passes and len(passes[-1][0].ids) * (len(passes[-1]) + 1) <= max_tokens:
            passes[-1].append(example)
        else:
            passes.append([example])
    return passes


def _chunks(items: list[int], size: int) -> Iterator[list[int]]:
    return (items[at : at + size] for at in range(0, len(items), size))
