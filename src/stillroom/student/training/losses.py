"""What there is to lose: small functions, each named for what it returns, in nats.

Logits or log-probabilities in, one number a target or a pair out; summing, weighing and gradients are for who knows
the batch. Knows no models.

V vocabulary, N targets, S of them with a teacher's distribution, of K tokens at most, P pairs
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from stillroom.student.training.targets import Distributions, Targets

Loss = Callable[[Tensor, Targets], Tensor]
"""(logits_NV, the N targets) -> losses_N, weights not counted."""
LEAST = -1e30
"""As a logit: of no probability, and yet a number that 0 can be multiplied by."""
LEAST_CHANCE = 1e-6
"""Of a teacher's: below, there is no telling it from what float32 rounds away."""


def cross_entropy(logits_NV: Tensor, targets: Targets) -> Tensor:
    """-log of the probability of each target's token."""
    return functional.cross_entropy(logits_NV, targets.tokens_N, reduction="none")


def softened_cross_entropy(weight: float) -> Loss:
    """(1 - weight) * cross-entropy + weight * KL(teacher || student), where the teacher's distribution is known;
    elsewhere cross-entropy alone. Hinton et al. 2015 (arXiv 1503.02531), without a temperature."""
    if weight == 0:
        return cross_entropy

    def loss(logits_NV: Tensor, targets: Targets) -> Tensor:
        losses_N = cross_entropy(logits_NV, targets)
        if targets.labels is None:
            return losses_N
        at_S = torch.nonzero(targets.labels.rows_N >= 0).flatten()
        kept_N = torch.ones_like(losses_N).index_fill(0, at_S, 1 - weight)
        # index_select, not fancy indexing: its backward adds in a fixed order, as exact resume needs.
        divergences_S = kl_from_teacher(logits_NV.index_select(0, at_S), targets.labels, at_S)
        return (kept_N * losses_N).index_add(0, at_S, weight * divergences_S)

    return loss


def kl_from_teacher(logits_SV: Tensor, labels: Distributions, at_S: Tensor) -> Tensor:
    """KL(teacher || student) over the tokens that the teacher told of and one bin for all others: 0 when they agree.

    Without that bin, a student is pushed to spread nothing beyond the teacher's tokens (arXiv 2503.16870). What is
    told less finely differs less: this is never more than the divergence over the whole vocabulary.
    """
    tokens_SK, chances_SB = _teachers(labels, at_S, logits_SV.dtype)
    return functional.kl_div(_binned(logits_SV, tokens_SK), chances_SB, reduction="none").sum(-1)


def reverse_kl(logits_NV: Tensor, targets: Targets) -> Tensor:
    """KL(student || teacher) where the teacher's distribution is known, over the same tokens and bin; elsewhere
    cross-entropy. A student that cannot have all of the teacher keeps to what the teacher holds likely."""
    losses_N = cross_entropy(logits_NV, targets)
    if targets.labels is None:
        return losses_N
    at_S = torch.nonzero(targets.labels.rows_N >= 0).flatten()
    tokens_SK, chances_SB = _teachers(targets.labels, at_S, logits_NV.dtype)
    told_SB = _binned(logits_NV.index_select(0, at_S), tokens_SK)
    divergences_S = (told_SB.exp() * (told_SB - chances_SB.clamp(min=LEAST_CHANCE).log())).sum(-1)
    return losses_N.index_copy(0, at_S, divergences_S)


def preference_loss(margins_P: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta * margin) of each pair (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

    A margin is by how much more the student prefers the better answer than its reference does, in nats.
    """
    return -functional.logsigmoid(beta * margins_P)


def _teachers(labels: Distributions, at_S: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The teacher's tokens, and the probabilities of these and, last, of all others."""
    rows_S = labels.rows_N[at_S]
    chances_SK = labels.chances_SK[rows_S].to(dtype)
    others_S1 = (1 - chances_SK.sum(-1, keepdim=True)).clamp(min=0)
    return labels.tokens_SK[rows_S], torch.cat([chances_SK, others_S1], -1)


def _binned(logits_SV: Tensor, tokens_SK: Tensor) -> Tensor:
    """The student's log-probabilities of the same."""
    is_none_SK = tokens_SK < 0
    columns_SK = tokens_SK.masked_fill(is_none_SK, 0)
    told_SK = logits_SV.gather(-1, columns_SK).masked_fill(is_none_SK, LEAST)
    # Where a row has no token more, its first is taken out once more.
    others_SV = logits_SV.scatter(-1, torch.where(is_none_SK, tokens_SK[:, :1], tokens_SK), LEAST)
    return torch.cat([told_SK, others_SV.logsumexp(-1, keepdim=True)], -1).log_softmax(-1)
