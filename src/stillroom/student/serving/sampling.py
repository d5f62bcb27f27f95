"""Logits -> the next token of one request.

Every request has its own generator, so that its answer does not depend on who shares its batch. Knows one
position of one request; no batches, no text.

V vocabulary
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a request wants its tokens chosen; the names and defaults are OpenAI's."""

    temperature: float = 1.0
    """0: always the likeliest token."""
    top_p: float = 1.0
    seed: int | None = None
    """None: another answer each time."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    """How many alternatives to report beside each token's log-probability; None reports none at all."""


@dataclass(frozen=True, kw_only=True)
class Picked:
    """A token; with log-probabilities of the model itself, before temperature, penalties and bias."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """One request's choices, in order."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._counts: Counter[int] = Counter()
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed % 2**63)

    def pick(self, logits_V: Tensor) -> Picked:
        """The next token. float32 logits on the CPU; they are not changed."""
        token_id = self._choose(self._adjusted(logits_V))
        self._counts[token_id] += 1
        count = self._sampling.top_logprobs
        if count is None:
            return Picked(token_id=token_id)
        logprobs_V = logits_V.log_softmax(-1)
        return Picked(token_id=token_id, logprob=float(logprobs_V[token_id]), top=top_of(logprobs_V, count))

    def _adjusted(self, logits_V: Tensor) -> Tensor:
        wanted = self._sampling
        penalised = wanted.frequency_penalty or wanted.presence_penalty
        if not (wanted.logit_bias or (penalised and self._counts)):
            return logits_V
        logits_V = logits_V.clone()
        for token_id, count in self._counts.items():
            logits_V[token_id] -= wanted.frequency_penalty * count + wanted.presence_penalty
        for token_id, bias in wanted.logit_bias.items():
            if token_id < len(logits_V):
                logits_V[token_id] += bias
        return logits_V

    def _choose(self, logits_V: Tensor) -> int:
        wanted = self._sampling
        if wanted.temperature == 0:
            return int(logits_V.argmax())
        probabilities_V = (logits_V / wanted.temperature).softmax(-1)
        if wanted.top_p >= 1:
            return int(torch.multinomial(probabilities_V, 1, generator=self._generator))
        ordered_V, ids_V = probabilities_V.sort(descending=True, stable=True)
        # The token that crosses top_p is still in; so the likeliest one always is.
        ordered_V[ordered_V.cumsum(-1) - ordered_V >= wanted.top_p] = 0
        ordered_V[0] = ordered_V[0].clamp(min=1e-9)
        return int(ids_V[torch.multinomial(ordered_V, 1, generator=self._generator)])


def top_of(logprobs_V: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest tokens with their log-probabilities, likeliest first."""
    values, ids = logprobs_V.topk(min(count, len(logprobs_V)))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))
