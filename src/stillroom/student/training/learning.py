"""How a step is learned from, by method: what it adds to the gradients, and what it shows of itself.

Every method comes down to a weighted loss at tokens. Imitation weighs all alike; preference weighs an answer by how
far its pair is from being told apart, for which it looks at the step before it learns from it. So each has
everything that computes the one: trees, chunks, passes, processes, shards.

Owns what is particular to a method. Knows neither models nor optimizers.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from stillroom.student.chats.labels import SoftLabels
from stillroom.student.chats.template import Example, Pair, Question, examples_of
from stillroom.student.events import Figures
from stillroom.student.hyperparameters import MethodType, Resolved
from stillroom.student.training.computation import Computation
from stillroom.student.training.losses import (
    Loss,
    cross_entropy,
    preference_loss,
    reverse_kl,
    softened_cross_entropy,
)

REFERENCE = "reference_P"
LOSS_BEFORE = "loss_before_1"
AVERAGED = "averaged."
FOLLOWS = 0.02
"""Of the way to the student's weights, that those of the teacher it is itself go with every step."""
JUDGED_TOKENS = 20
"""Likeliest ones that a teacher tells of at each place, besides the student's own: as many as APIs tell."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a step, or a look at what is not trained, shows."""

    loss: float
    accuracy: float
    computed: int = 0
    """Tokens that went through the model for it."""
    more: Figures = field(default_factory=dict)
    """Figures that only this method has."""


class Learning(Protocol):
    """One method, of one student."""

    def begin(self, lessons: Sequence[Any], looked_at: Sequence[Any], kept: dict[str, Tensor]) -> str | None:
        """Before the first step, or the first of a run that goes on: all that will be learned from, and looked at.
        What cannot be found out later goes into `kept`, which is saved with the run, and is found there again. Gives
        what the run's owner should know of its beginning."""

    def learn(self, lessons: Sequence[Any]) -> Learned:
        """Adds a step's gradients to the parameters'."""

    def look(self, lessons: Sequence[Any]) -> Learned:
        """The same figures, without learning."""


def loss_of(method: MethodType, numbers: Resolved) -> Loss:
    """What is lost at a token."""
    if method is MethodType.ON_POLICY:
        return reverse_kl
    return softened_cross_entropy(numbers.soft_label_weight) if numbers.soft_label_weight else cross_entropy


def learning_of(
    method: MethodType, numbers: Resolved, computation: Computation, teacher: Computation | None
) -> Learning:
    """`teacher`: who judges what the student says; None: itself, with an answer at hand."""
    match method:
        case MethodType.SUPERVISED:
            return Imitation(computation)
        case MethodType.DPO:
            assert numbers.beta is not None
            return Preference(computation, beta=numbers.beta)
        case MethodType.ON_POLICY:
            return OnPolicy(computation, teacher)


class Imitation:
    """The loss is the mean over all trained tokens of the step."""

    def __init__(self, computation: Computation) -> None:
        self._computation = computation

    def begin(self, lessons: Sequence[Example], looked_at: Sequence[Example], kept: dict[str, Tensor]) -> None:
        """Everything is in the examples."""

    def learn(self, lessons: Sequence[Example]) -> Learned:
        sums = self._computation.gradients(lessons, scale=1 / sum(sum(example.mask[1:]) for example in lessons))
        return Learned(loss=sums.loss / sums.tokens, accuracy=sums.correct / sums.tokens, computed=sums.computed)

    def look(self, lessons: Sequence[Example]) -> Learned:
        sums = self._computation.sums(lessons)
        return Learned(loss=sums.loss / sums.tokens, accuracy=sums.correct / sums.tokens, computed=sums.computed)


class Preference:
    """Direct preference optimization: the loss is the mean over the step's pairs (Rafailov et al. 2023,
    arXiv 2305.18290), the reference the student as it was before the first step.

    By the chain rule, the gradient of a pair's loss is that of its answers' log-probabilities, times what the loss
    changes by when they change. So the answers are looked at first, and then learned from as in imitation, with
    these weights: less than nothing for the other one.
    """

    def __init__(self, computation: Computation, *, beta: float) -> None:
        self._computation = computation
        self._beta = beta
        self._reference: dict[Pair, float] = {}

    def begin(self, lessons: Sequence[Pair], looked_at: Sequence[Pair], kept: dict[str, Tensor]) -> None:
        """Keeps by how much the student preferred each better answer when it began."""
        pairs = [*lessons, *looked_at]
        if REFERENCE not in kept:
            kept[REFERENCE] = self._preferred_by(pairs)
        self._reference = dict(zip(pairs, kept[REFERENCE].tolist(), strict=True))

    def learn(self, lessons: Sequence[Pair]) -> Learned:
        margins_P = self._margins(lessons).requires_grad_()
        (slopes_P,) = torch.autograd.grad(preference_loss(margins_P, self._beta).sum(), margins_P)
        weighed = [_weighed(pair, slope) for pair, slope in zip(lessons, slopes_P.tolist(), strict=True)]
        sums = self._computation.gradients(examples_of(weighed), scale=1 / len(lessons))
        return replace(self._learned(margins_P.detach()), computed=2 * sums.computed)  # it has looked as well

    def look(self, lessons: Sequence[Pair]) -> Learned:
        return self._learned(self._margins(lessons))

    def _margins(self, pairs: Sequence[Pair]) -> Tensor:
        """By how much more the student prefers the better answers than it did. Before `begin`, than if it did not."""
        reference_P = torch.tensor([self._reference.get(pair, 0.0) for pair in pairs], dtype=torch.float64)
        return self._preferred_by(pairs) - reference_P

    def _preferred_by(self, pairs: Sequence[Pair]) -> Tensor:
        """In nats: log-probability of the better answer, without that of the other."""
        log_probs = torch.tensor(self._computation.log_probs(examples_of(pairs)), dtype=torch.float64)
        preferred_P, other_P = log_probs.view(-1, 2).unbind(-1)
        return preferred_P - other_P

    def _learned(self, margins_P: Tensor) -> Learned:
        rewards_P = self._beta * margins_P
        return Learned(
            loss=float(preference_loss(margins_P, self._beta).mean()),
            accuracy=float((rewards_P > 0).double().mean()),
            more={"rewards_margin": float(rewards_P.mean())},
        )


def _weighed(pair: Pair, slope: float) -> Pair:
    """`slope`: what the pair's loss changes by when its margin grows by one. What is trained is -log-probabilities."""
    return Pair(preferred=replace(pair.preferred, weight=-slope), other=replace(pair.other, weight=slope))


class OnPolicy:
    """The student answers, its teacher says at each token what else it holds likely, and the loss is the mean reverse
    divergence over the step's tokens (Agarwal et al. 2023, arXiv 2306.13649; Lu et al. 2025). An answer is as long as
    the one in the row at most.

    Without a teacher it is the student itself, who then reads the row's answer before it judges (Shenfeld et al. 2026,
    arXiv 2601.19897): with weights that follow the student's slowly. Were they its own, teacher and student could
    drift off together; were they those of the beginning, it could never teach more than it knew then.
    """

    def __init__(self, computation: Computation, teacher: Computation | None) -> None:
        self._computation = computation
        self._teacher = teacher
        trained = {} if teacher else computation.named()
        self._averaged = {name: parameter.detach().clone() for name, parameter in trained.items()}

    def begin(self, lessons: Sequence[Question], looked_at: Sequence[Question], kept: dict[str, Tensor]) -> str | None:
        """Keeps the teacher's weights, and what there is to forget."""
        for name, averaged in self._averaged.items():
            averaged.copy_(kept.get(AVERAGED + name, averaged))
            kept[AVERAGED + name] = averaged
        if LOSS_BEFORE in kept or not looked_at:
            return None
        loss = self.look(looked_at).loss
        kept[LOSS_BEFORE] = torch.tensor([loss])
        return f"Before the first step, the loss on the answers of the validation file is {loss:.4f}."

    def learn(self, lessons: Sequence[Question]) -> Learned:
        trained = self._computation.named()
        for name, averaged in self._averaged.items():
            averaged.lerp_(trained[name].detach(), FOLLOWS)
        judged = self._judged(lessons, self._answers(lessons))
        sums = self._computation.gradients(judged, scale=1 / sum(sum(example.mask) for example in judged))
        return Learned(loss=sums.loss / sums.tokens, accuracy=sums.correct / sums.tokens, computed=sums.computed)

    def look(self, lessons: Sequence[Question]) -> Learned:
        """At the answers in the rows, as in imitation: what is not to be forgotten can be looked at so."""
        return Imitation(self._computation).look(examples_of(lessons))

    def _answers(self, questions: Sequence[Question]) -> list[array[int]]:
        most = [sum(each.answered.mask) for each in questions]
        return self._computation.answers([each.prompt for each in questions], most)

    def _judged(self, questions: Sequence[Question], answers: Sequence[array[int]]) -> list[Example]:
        """The student's answers to the questions, with what the teacher holds likely at each of their tokens."""
        said = [_said(each.prompt, answer) for each, answer in zip(questions, answers, strict=True)]
        heard = [_said(each.taught, answer) for each, answer in zip(questions, answers, strict=True)]
        if self._teacher is not None:
            labels = self._teacher.likeliest(heard, JUDGED_TOKENS)
        else:
            with self._computation.with_weights(self._averaged):
                labels = self._computation.likeliest(heard, JUDGED_TOKENS)
        return [
            replace(own, labels=_moved(found, len(each.prompt) - len(each.taught)))
            for each, own, found in zip(questions, said, labels, strict=True)
        ]


def _said(prompt: array[int], answer: array[int]) -> Example:
    return Example(ids=prompt + answer, mask=bytes(len(prompt)) + bytes([1]) * len(answer))


def _moved(labels: SoftLabels, by: int) -> SoftLabels:
    return SoftLabels(places_S=labels.places_S + by, tokens_SK=labels.tokens_SK, chances_SK=labels.chances_SK)
