"""Examples -> batches a model can compute, in an order that seed and epoch decide.

Two ways to lay a batch out: as a prefix tree, or in rows padded on the right. Each has an order that suits
it (rows that begin alike, rows of like length, side by side) and a cost in tokens, by which a step is cut into
passes. No example is dropped or cut. Knows tensors, not models.

B rows, T tokens of the longest
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from stillroom.student.chats.template import Example, Lesson
from stillroom.student.training.targets import Owners, Targets, targets_of, trained_tokens
from stillroom.student.training.tree import PrefixTree, grow, in_tree_order, new_tokens

GROUP_BATCHES = 16
"""Batches whose examples are put in order together: long enough to share or pad well, short enough to stay random."""
PREFIX_BLOCK = 16
"""Tokens. Rows count as beginning alike by whole blocks: beyond a shared word or two, their order stays random."""
SHARE_GRAINS = 4096
"""How finely the sizes of several processes' shares are told apart."""

Kind = TypeVar("Kind", bound=Lesson)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One pass through a model."""

    ids_BT: Tensor
    targets: Targets
    """Places count through the rows: row * T + column."""
    owners: Owners
    """Of the targets; stays where it is."""
    examples: Sequence[Example]
    tree: PrefixTree | None
    """The layout of the only row; None: rows padded on the right, where causal attention never looks."""

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return self.ids_BT.numel()

    def to(self, device: torch.device) -> Batch:
        tree = self.tree.to(device) if self.tree else None
        return replace(self, ids_BT=self.ids_BT.to(device), targets=self.targets.to(device), tree=tree)


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How a step is computed. Part of a run's state: other passes round differently."""

    max_tokens: int
    """Computed tokens in one pass, at most; a longer row is a pass of its own."""
    recomputed: bool = False
    """Layers keep only what went into them and are computed again on the way back (gradient checkpointing)."""
    shares: bool = True
    """Whether rows are laid out as a tree, or beside each other: other orders, other batches."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way to lay examples out."""

    batch: Callable[[Sequence[Example]], Batch]
    order: Callable[[Example, int], Any]
    """The key that examples of a group are put in order by, for a seed."""
    passes: Callable[[Sequence[Example], int], list[list[Example]]]
    """A step's examples in passes of at most so many computed tokens, or of one example."""
    most_tokens: int
    """In a pass, however much memory there is. A tree shares the more the larger it is; rows beside each other only
    take memory, and from some thousand tokens on, writing it costs more than larger products save."""


def shared(examples: Sequence[Example]) -> Batch:
    """One prefix tree."""
    tree, places = grow(examples)
    targets, owners = targets_of(examples, places)
    return Batch(ids_BT=tree.ids_L[None], targets=targets, owners=owners, examples=examples, tree=tree)


def padded(examples: Sequence[Example]) -> Batch:
    """One row an example."""
    length = max(len(example.ids) for example in examples)
    ids_BT = torch.zeros(len(examples), length, dtype=torch.long)
    for row, example in enumerate(examples):
        ids_BT[row, : len(example.ids)] = torch.tensor(example.ids)
    places = [row * length + trained_tokens(example) - 1 for row, example in enumerate(examples)]
    targets, owners = targets_of(examples, places)
    return Batch(ids_BT=ids_BT, targets=targets, owners=owners, examples=examples, tree=None)


def epoch_batches(
    lessons: Sequence[Kind], layout: Layout, *, batch_size: int, seed: int, epoch: int
) -> list[list[Kind]]:
    """Every lesson once, in groups of at most `batch_size`; the same for the same seed and epoch."""
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=7).digest()
    seed = int.from_bytes(digest, "little")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lessons), generator=generator).tolist()
    batches: list[list[Kind]] = []
    for group in _chunks(order, batch_size * GROUP_BATCHES):
        by_likeness = sorted((lessons[index] for index in group), key=lambda each: layout.order(each.examples[0], seed))
        batches += [by_likeness[at : at + batch_size] for at in range(0, len(by_likeness), batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def shares(examples: Sequence[Example], layout: Layout, count: int) -> list[list[Example]]:
    """The examples in parts for so many processes: of the largest part, as few tokens are computed as can be.

    Parts are of the layout's order, so that what begins alike stays together. There may be fewer parts than
    processes.
    """
    if count == 1:
        return [list(examples)]
    all_padded = len(examples) * max(len(example.ids) for example in examples)
    grain = -(-all_padded // SHARE_GRAINS)
    sizes = range(grain, all_padded + grain, grain)
    smallest = bisect_left(sizes, True, key=lambda size: len(layout.passes(examples, size)) <= count)
    return layout.passes(examples, sizes[smallest])


def _by_prefix(example: Example, seed: int) -> tuple[bytes, ...]:
    """Hashes of the first block, the first two, three, ...: rows that share more blocks stand closer, and who stands
    beside whom otherwise is the seed's choice."""
    data, size = memoryview(example.ids).cast("B"), PREFIX_BLOCK * example.ids.itemsize
    beginning = hashlib.blake2b(key=seed.to_bytes(16, "little"), digest_size=8)
    hashes = []
    for at in range(0, len(data) - size + 1, size):
        beginning.update(data[at : at + size])
        hashes.append(beginning.digest())
    return tuple(hashes)


def _by_length(example: Example, seed: int) -> int:
    return len(example.ids)


def _shared_passes(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    passes: list[list[Example]] = []
    size = 0
    for example in in_tree_order(examples):
        more = new_tokens(passes[-1][-1], example) if passes else 0
        if passes and size + more <= max_tokens:
            passes[-1].append(example)
            size += more
        else:
            passes.append([example])
            size = new_tokens(None, example)
    return passes


def _padded_passes(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Longest first."""
    passes: list[list[Example]] = []
    for example in sorted(examples, key=lambda each: -len(each.ids)):
        if passes and len(passes[-1][0].ids) * (len(passes[-1]) + 1) <= max_tokens:
            passes[-1].append(example)
        else:
            passes.append([example])
    return passes


def _chunks(items: list[int], size: int) -> Iterator[list[int]]:
    return (items[at : at + size] for at in range(0, len(items), size))


SHARED = Layout(batch=shared, order=_by_prefix, passes=_shared_passes, most_tokens=16_384)
PADDED = Layout(batch=padded, order=_by_length, passes=_padded_passes, most_tokens=4096)
