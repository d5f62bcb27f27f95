"""Muon: momentum whose matrices are made orthogonal before each step.

For the hidden matrices of students that start from nothing; everything else stays with AdamW. It learns
narrow tasks in a fraction of AdamW's steps. torch has one too, which iterates in bfloat16, many times
slower on CPUs without it, and one matrix at a time; here matrices of one shape are iterated together.

After Keller Jordan's https://kellerjordan.github.io/posts/muon/. Knows parameters and gradients only.

M matrices of one shape, R rows, C columns
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of a quintic that drives all singular values near 1 in five iterations."""


class Muon(Optimizer):
    """For matrices only. The update of a tall matrix is scaled so that its outputs move as much as a square one's."""

    def __init__(self, matrices: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(list(matrices), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for same_shape in _by_shape(group["params"]).values():
                self._update(same_shape, group)

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        update_MRC = orthogonal(torch.stack([self._nesterov(matrix) for matrix in matrices]))
        rows, columns = matrices[0].shape
        rate = group["lr"] * max(1, rows / columns) ** 0.5
        for matrix, update_RC in zip(matrices, update_MRC, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(update_RC, alpha=-rate)

    def _nesterov(self, matrix: Tensor) -> Tensor:
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(matrix.grad, 1 - MOMENTUM)
        return torch.lerp(matrix.grad, momentum, MOMENTUM)


def orthogonal(matrices_MRC: Tensor) -> Tensor:
    """Each matrix with its singular values driven into about 0.7 to 1.2 (Newton-Schulz), its directions kept."""
    tall = matrices_MRC.shape[1] > matrices_MRC.shape[2]
    x_MRC = matrices_MRC.mT if tall else matrices_MRC
    x_MRC = x_MRC / x_MRC.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram_MRR = x_MRC @ x_MRC.mT
        x_MRC = a * x_MRC + (b * gram_MRR + c * gram_MRR @ gram_MRR) @ x_MRC
    even_MRC: Tensor = x_MRC.mT if tall else x_MRC
    return even_MRC


def _by_shape(matrices: list[Tensor]) -> dict[torch.Size, list[Tensor]]:
    groups: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        groups.setdefault(matrix.shape, []).append(matrix)
    return groups
