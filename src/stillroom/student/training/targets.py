"""Where a batch's loss is taken, and what is learned there.

Equal targets in one place are one, which weighs as much as they do together: rows that share their beginnings
share these, too. Knows neither how places came about (`tree`, `packing`) nor what a loss makes of them.

N different targets, M targets of all examples, S of N with a teacher's distribution, of K tokens at most
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor

from stillroom.student.chats.template import Example


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """What a teacher held likely at some of the targets; what a row lacks to 1 are all other tokens together."""

    rows_N: Tensor
    """Each target's row in the table below; -1 for those that have none."""
    tokens_SK: Tensor
    """NO_TOKEN where a row has fewer than K."""
    chances_SK: Tensor

    def at(self, chosen: slice) -> Distributions:
        return replace(self, rows_N=self.rows_N[chosen])

    def to(self, device: torch.device) -> Distributions:
        return Distributions(
            rows_N=self.rows_N.to(device), tokens_SK=self.tokens_SK.to(device), chances_SK=self.chances_SK.to(device)
        )


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Where a batch's loss is taken: (place of the hidden state, token that should come next, weight)."""

    places_N: Tensor
    tokens_N: Tensor
    weights_N: Tensor
    """What the examples that have this target in this place weigh together. float64."""
    labels: Distributions | None = None

    def to(self, device: torch.device) -> Targets:
        return Targets(
            places_N=self.places_N.to(device),
            tokens_N=self.tokens_N.to(device),
            weights_N=self.weights_N.to(device),
            labels=self.labels.to(device) if self.labels else None,
        )

    def split(self, size: int) -> Iterator[Targets]:
        """In order, so many at a time."""
        for start in range(0, len(self.tokens_N), size):
            chosen = slice(start, start + size)
            yield Targets(
                places_N=self.places_N[chosen],
                tokens_N=self.tokens_N[chosen],
                weights_N=self.weights_N[chosen],
                labels=self.labels.at(chosen) if self.labels else None,
            )


@dataclass(frozen=True, kw_only=True)
class Owners:
    """Which example has which target: M pairs of them."""

    examples_M: Tensor
    targets_M: Tensor
    count: int
    """Of examples."""

    def each(self, values_NX: Tensor) -> list[numpy.ndarray]:
        """Of each example, the rows of its targets, in the order of its tokens."""
        counts = torch.bincount(self.examples_M, minlength=self.count).tolist()
        return [part.numpy() for part in torch.split(values_NX.cpu()[self.targets_M], counts)]

    def summed(self, values_N: Tensor) -> Tensor:
        """Of each example, the sum over its targets."""
        sums = torch.zeros(self.count, dtype=torch.float64)
        return sums.index_add(0, self.examples_M, values_N.double().cpu()[self.targets_M])


def trained_tokens(example: Example) -> numpy.ndarray:
    """Where they are. Nothing comes before the first token to tell it from."""
    trained = numpy.flatnonzero(numpy.frombuffer(example.mask, dtype=numpy.uint8))
    return trained[trained > 0]


def labelled_tokens(example: Example) -> tuple[int, int]:
    """Of the trained tokens, those that have a teacher's distribution; and all."""
    trained = trained_tokens(example)
    labelled = int((example.labels.rows_at(trained) >= 0).sum()) if example.labels else 0
    return labelled, len(trained)


def targets_of(examples: Sequence[Example], places: Sequence[numpy.ndarray]) -> tuple[Targets, Owners]:
    """`places`: of each example, where its trained tokens are told from."""
    trained = [trained_tokens(example) for example in examples]
    counts = [len(each) for each in trained]
    ids = [numpy.frombuffer(example.ids, dtype=numpy.int32)[at] for example, at in zip(examples, trained, strict=True)]
    places_M, tokens_M = numpy.concatenate(places), numpy.concatenate(ids).astype(numpy.int64)
    # One teacher may hold another thing likely than the next: such targets are not joined.
    rows_M = _rows_of_labels(examples, trained)
    keys_M = (places_M * (tokens_M.max(initial=0) + 1) + tokens_M) * (rows_M.max(initial=-1) + 2) + rows_M + 1
    _, first_N, targets_M = numpy.unique(keys_M, return_index=True, return_inverse=True)
    weights_M = numpy.repeat([example.weight for example in examples], counts)
    targets = Targets(
        places_N=torch.from_numpy(places_M[first_N]),
        tokens_N=torch.from_numpy(tokens_M[first_N]),
        weights_N=torch.from_numpy(numpy.bincount(targets_M, weights_M, minlength=len(first_N))),
        labels=_distributions(examples, rows_M[first_N]),
    )
    examples_M = numpy.repeat(numpy.arange(len(examples)), counts)
    return targets, Owners(
        examples_M=torch.from_numpy(examples_M), targets_M=torch.from_numpy(targets_M), count=len(examples)
    )


def _rows_of_labels(examples: Sequence[Example], trained: Sequence[numpy.ndarray]) -> numpy.ndarray:
    """The row of each trained token in the distributions of all examples, one below the other; -1 for those without."""
    rows, before = [], 0
    for example, at in zip(examples, trained, strict=True):
        if example.labels is None:
            rows.append(numpy.full(len(at), -1))
        else:
            found = example.labels.rows_at(at)
            rows.append(numpy.where(found < 0, -1, found + before))
            before += len(example.labels.places_S)
    return numpy.concatenate(rows)


def _distributions(examples: Sequence[Example], rows_N: numpy.ndarray) -> Distributions | None:
    have = [example.labels for example in examples if example.labels is not None]
    if not have:
        return None
    widest = max(labels.tokens_SK.shape[1] for labels in have)
    widened = [labels.widened(widest) for labels in have]
    return Distributions(
        rows_N=torch.from_numpy(rows_N),
        tokens_SK=torch.from_numpy(numpy.concatenate([each.tokens_SK for each in widened]).astype(numpy.int64)),
        chances_SK=torch.from_numpy(numpy.concatenate([each.chances_SK for each in widened])),
    )
