"""Examples as a prefix tree: what several begin with is laid out, and computed, once.

A radix trie of token ids, flattened depth first. A token's position is its depth, and it sees itself and
its ancestors: token q sees token k when k <= q < reach(k), where reach(k) is the end of k's descendants.
Owns that layout and where each example's tokens are in it; knows nothing of models and losses.

L tokens of the tree
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy
import torch
from torch import Tensor

from stillroom.student.chats.template import Example
from stillroom.student.training.targets import trained_tokens


@dataclass(frozen=True)
class Segment:
    """A run of tokens without a branch, in places of the layout."""

    start: int
    end: int
    reach: int
    """Behind its last descendant; `end` for a leaf."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PrefixTree:
    """The layout. Every token of `ids_L` is computed once, however many examples begin with it."""

    ids_L: Tensor
    positions_L: Tensor
    reach_L: Tensor
    layers: set[int | None] = field(default_factory=set)
    """Those of the model that have attended by it: who computes it must be sure that all have."""

    def to(self, device: torch.device) -> PrefixTree:
        return PrefixTree(
            ids_L=self.ids_L.to(device), positions_L=self.positions_L.to(device), reach_L=self.reach_L.to(device)
        )

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """In layout order. Between two tokens of one segment nothing branches off."""
        goes_on_L = (self.positions_L[1:] == self.positions_L[:-1] + 1) & (self.reach_L[1:] == self.reach_L[:-1])
        starts = [0, *(torch.nonzero(~goes_on_L).flatten() + 1).tolist()]
        ends = [*starts[1:], len(self.ids_L)]
        return tuple(
            Segment(start, end, int(reach))
            for start, end, reach in zip(starts, ends, self.reach_L[starts].tolist(), strict=True)
        )


def grow(examples: Sequence[Example]) -> tuple[PrefixTree, list[numpy.ndarray]]:
    """The tree of the examples, and of each where its trained tokens are told from.

    Tokens behind an example's last target teach nothing and are left out.
    """
    rows = [_Row(example) for example in examples]
    path = numpy.zeros(max(len(row.ids) for row in rows), dtype=numpy.int64)
    ids, positions = [], []
    places = [path] * len(rows)
    reach = numpy.zeros(sum(len(row.ids) for row in rows), dtype=numpy.int64)
    size, before = 0, rows[0].ids[:0]
    for index in sorted(range(len(rows)), key=lambda index: rows[index].order):
        row = rows[index]
        shared = common(before, row.ids)
        # What the row before has and this one lacks ends here: no later row goes on from it.
        reach[path[shared : len(before)]] = size
        new = len(row.ids) - shared
        path[shared : len(row.ids)] = numpy.arange(size, size + new)
        ids.append(row.ids[shared:])
        positions.append(numpy.arange(shared, len(row.ids)))
        places[index] = path[row.trained - 1]
        size, before = size + new, row.ids
    reach[path[: len(before)]] = size
    tree = PrefixTree(
        ids_L=torch.from_numpy(numpy.concatenate(ids).astype(numpy.int64)),
        positions_L=torch.from_numpy(numpy.concatenate(positions)),
        reach_L=torch.from_numpy(reach[:size].copy()),
    )
    return tree, places


def in_tree_order(examples: Sequence[Example]) -> list[Example]:
    """Those that begin alike, side by side."""
    return sorted(examples, key=lambda example: _Row(example).order)


def new_tokens(before: Example | None, example: Example) -> int:
    """How many tokens a tree grows by when the example comes behind `before` in tree order."""
    row = _Row(example)
    return len(row.ids) - (common(_Row(before).ids, row.ids) if before else 0)


def common(first: numpy.ndarray, second: numpy.ndarray) -> int:
    """How many first tokens two rows share."""
    shortest = min(len(first), len(second))
    differs = first[:shortest] != second[:shortest]
    return int(differs.argmax()) if differs.any() else shortest


class _Row:
    """An example as numbers: `trained` are the places of its targets, `ids` what they need before them."""

    def __init__(self, example: Example) -> None:
        whole = numpy.frombuffer(example.ids, dtype=numpy.int32)
        self.trained = trained_tokens(example)
        self.ids = whole[: self.trained[-1]] if len(self.trained) else whole[:0]

    @property
    def order(self) -> bytes:
        return self.ids.astype(">u4").tobytes()
