"""Batch -> loss, and its gradient: logits only where there is a loss, and never more than a chunk of them.

Knows causal language models of transformers (or peft around them); does not know what was masked or why, and takes
what is lost at a target from `losses`.

B rows, T tokens, D model width, V vocabulary, N targets of a batch, C of them in a chunk
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from stillroom.student.chats.labels import NO_TOKEN, SoftLabels
from stillroom.student.training.attention import attending
from stillroom.student.training.fsdp import is_sharded
from stillroom.student.training.losses import Loss, cross_entropy
from stillroom.student.training.packing import Batch
from stillroom.student.training.targets import Targets, trained_tokens

CHUNK_LOGITS = 2**22
"""Logits computed at a time: 16 MB of float32, and as much again for each step from them to a gradient."""
LARGE = 1e3
"""Times what logits are, when a probe looks at what is done with them."""
SMALLEST_CHUNK = 64
"""Targets: with fewer, reading the head's weights costs more than multiplying by them."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Over the trained tokens of some examples: a mean is for who knows them all."""

    loss: float = 0.0
    """In nats."""
    correct: float = 0.0
    """Tokens whose likeliest prediction was right."""
    tokens: float = 0.0
    computed: int = 0
    """All tokens that went through the model, padding included."""

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            loss=self.loss + other.loss,
            correct=self.correct + other.correct,
            tokens=self.tokens + other.tokens,
            computed=self.computed + other.computed,
        )


class Objective:
    """What a model loses by its predictions at a batch's targets.

    The body runs once and the head only on the positions that are trained. Some architectures do more than
    body and head (Gemma caps its logits, Granite scales them): a probe finds out, and those run whole. So does a
    model in shards, which are gathered only then.
    """

    def __init__(
        self, model: nn.Module, *, loss: Loss = cross_entropy, compute_dtype: torch.dtype | None = None
    ) -> None:
        """`compute_dtype`: what products are rounded to, where weights are held more exactly than that."""
        causal = model.get_base_model() if isinstance(model, PeftModel) else model
        assert isinstance(causal, PreTrainedModel)
        self.model = causal
        self._loss = loss
        self.compute_dtype: torch.dtype = compute_dtype or causal.dtype
        self._body: nn.Module = causal.base_model
        self._head: nn.Module = causal.get_output_embeddings()
        self._head_is_all = not is_sharded(causal) and self._probe_head()
        self.keeps_columns = "logits_to_keep" in signature(causal.forward).parameters
        """Whether the model can be asked for the logits of some columns only."""

    @property
    def chunks_logits(self) -> bool:
        """Whether there is never more than a chunk of logits; a model that runs whole makes all of a pass."""
        return self._head_is_all

    def backward(self, batch: Batch, *, scale: float) -> Sums:
        """Adds the gradient of `scale` times the summed loss to the parameters' gradients."""
        with self._attention(batch), self.rounding():
            hidden_ND = self.hidden(batch)
            # The head's backward pass is done chunk by chunk, and then the body's, once for all of them.
            chunks = [chunk_CD.detach().requires_grad_() for chunk_CD in torch.split(hidden_ND, self._chunk_size)]
            sums = Sums(computed=batch.num_tokens)
            for chunk_CD, targets in self._with_targets(batch, chunks):
                loss, found = self._lost(self._logits(chunk_CD), targets)
                _go_back(loss * scale)
                sums += found
            _go_back(hidden_ND, torch.cat([_gradient_of(chunk_CD) for chunk_CD in chunks]))
        return sums

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Sums:
        found = [self._lost(logits_CV, targets)[1] for logits_CV, targets in self._looked_at(batch)]
        return sum(found, start=Sums(computed=batch.num_tokens))

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """How likely each example's trained tokens are together: the logarithm, in the order of the examples."""
        losses = [cross_entropy(logits_CV, targets) for logits_CV, targets in self._looked_at(batch)]
        return -batch.owners.summed(torch.cat(losses))

    @torch.no_grad()
    def likeliest(self, batch: Batch, count: int) -> list[SoftLabels]:
        """Of each example, the distributions over its trained tokens: so many likeliest, and the token that is there."""
        tokens, chances = [], []
        for logits_CV, targets in self._looked_at(batch):
            chances_CV = logits_CV.softmax(-1)
            top_CK = chances_CV.topk(min(count, logits_CV.shape[-1] - 1)).indices
            own_C1 = targets.tokens_N[:, None]
            is_there_C1 = (top_CK == own_C1).any(-1, keepdim=True)
            found_CB = torch.cat([top_CK, own_C1], -1)
            is_none_CB = torch.cat([torch.zeros_like(top_CK, dtype=torch.bool), is_there_C1], -1)
            chances.append(chances_CV.gather(-1, found_CB).masked_fill(is_none_CB, 0).float())
            tokens.append(found_CB.masked_fill(is_none_CB, NO_TOKEN).int())
        tokens_MB, chances_MB = (batch.owners.each(torch.cat(values)) for values in (tokens, chances))
        return [
            SoftLabels(places_S=trained_tokens(example), tokens_SK=own_tokens, chances_SK=own_chances)
            for example, own_tokens, own_chances in zip(batch.examples, tokens_MB, chances_MB, strict=True)
        ]

    def hidden(self, batch: Batch) -> Tensor:
        """What the head reads at each target; for a model that is more than body and head, its logits."""
        layout: dict[str, Any] = {}
        if batch.tree:
            layout = {"position_ids": batch.tree.positions_L[None], "tree": batch.tree}
        if self._head_is_all:
            found_BTX = self._body(input_ids=batch.ids_BT, use_cache=False, **layout).last_hidden_state
            places_N = batch.targets.places_N
        else:
            kept, places_N = self._columns(batch)
            found_BTX = self.model(input_ids=batch.ids_BT, use_cache=False, **kept, **layout).logits
        # index_select, not fancy indexing: its backward adds in a fixed order, as exact resume needs.
        found_NX: Tensor = found_BTX.flatten(0, 1).index_select(0, places_N)
        return found_NX

    def _columns(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Asks for the columns with a target in any row, and where the targets are among these."""
        if not self.keeps_columns:
            return {}, batch.targets.places_N
        length = batch.ids_BT.shape[1]
        columns_U, columns_N = torch.unique(batch.targets.places_N % length, return_inverse=True)
        return {"logits_to_keep": columns_U}, batch.targets.places_N // length * len(columns_U) + columns_N

    def _looked_at(self, batch: Batch) -> Iterator[tuple[Tensor, Targets]]:
        """The logits of a chunk after the other; no way back."""
        with self._attention(batch), self.rounding():
            chunks = torch.split(self.hidden(batch), self._chunk_size)
            for chunk_CD, targets in self._with_targets(batch, chunks):
                yield self._logits(chunk_CD), targets

    def _with_targets(self, batch: Batch, hidden: Iterable[Tensor]) -> Iterable[tuple[Tensor, Targets]]:
        return zip(hidden, batch.targets.split(self._chunk_size), strict=True)

    def _logits(self, hidden_CD: Tensor) -> Tensor:
        logits_CV = self._head(hidden_CD) if self._head_is_all else hidden_CD
        return logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))

    def _lost(self, logits_CV: Tensor, targets: Targets) -> tuple[Tensor, Sums]:
        losses_C, weights_C = self._loss(logits_CV, targets), targets.weights_N
        # No matrix product, which would be rounded where products are.
        loss = (losses_C * weights_C.to(losses_C.dtype)).sum()
        right_C = logits_CV.argmax(-1) == targets.tokens_N
        return loss, Sums(
            loss=float(loss.detach()), correct=float(weights_C[right_C].sum()), tokens=float(weights_C.sum())
        )

    @property
    def _chunk_size(self) -> int:
        vocabulary: int = self.model.config.get_text_config().vocab_size
        return max(SMALLEST_CHUNK, CHUNK_LOGITS // vocabulary)

    def rounding(self) -> AbstractContextManager[Any]:
        if self.compute_dtype is self.model.dtype:
            return nullcontext()
        return torch.autocast(next(self.model.parameters()).device.type, dtype=self.compute_dtype)

    def _attention(self, batch: Batch) -> AbstractContextManager[None]:
        return attending(self.model) if batch.tree else nullcontext()

    @torch.no_grad()
    def _probe_head(self) -> bool:
        """With logits made large: what caps them, or scales them, leaves small ones as they were."""
        if self._body is self.model:
            return False
        was_training = self.model.training
        self.model.eval()
        ids_BT = torch.tensor([[0, 1, 2]], device=next(self.model.parameters()).device)
        enlarged = self._head.register_forward_hook(lambda _head, _hidden, logits: logits * LARGE)
        try:
            whole_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
            parts_BTV = self._head(self._body(input_ids=ids_BT, use_cache=False).last_hidden_state)
        finally:
            enlarged.remove()
            self.model.train(was_training)
        return bool(torch.allclose(whole_BTV, parts_BTV, rtol=1e-3, atol=1e-5))


def _go_back(of: Tensor, gradient: Tensor | None = None) -> None:
    # What went forward rounded goes back in the same numbers by itself.
    with torch.autocast(of.device.type, enabled=False):
        of.backward(gradient)  # type: ignore[no-untyped-call]


def _gradient_of(chunk_CD: Tensor) -> Tensor:
    assert chunk_CD.grad is not None
    return chunk_CD.grad
