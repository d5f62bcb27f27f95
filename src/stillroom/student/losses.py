"""Batch -> loss and accuracy, with logits only where there is a loss.

Knows causal language models of transformers (or peft around them); does not know what was masked or why.

B batch, T tokens, P tokens of the prefix, D model width, V vocabulary, N trained tokens of a batch
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from stillroom.student.packing import Batch

SHORTEST_SHARED = 16
"""Tokens: below that a second pass through the layers costs more than it saves."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """`loss` keeps its graph; the counts are plain numbers."""

    loss: Tensor
    """Mean cross-entropy in nats per trained token. Scalar, float32."""
    num_correct: int
    num_targets: int

    @property
    def accuracy(self) -> float:
        return self.num_correct / max(1, self.num_targets)


class TargetLogits:
    """logits_NV of a model at a batch's targets.

    The body runs once and the head only on the positions that are trained. Some architectures do more than
    body and head (Gemma caps its logits, Granite scales them): a probe finds out, and those run whole.

    Examples of one task begin with one system prompt. What all rows of a batch begin with is computed once;
    the rest of each row attends to its keys and values, and gradients flow back through them, so that loss
    and gradients are those of the rows computed whole, to rounding.
    """

    def __init__(self, model: nn.Module) -> None:
        causal = model.get_base_model() if isinstance(model, PeftModel) else model
        assert isinstance(causal, PreTrainedModel)
        self._model: nn.Module = causal
        self._body: nn.Module = causal.base_model
        self._head: nn.Module = causal.get_output_embeddings()
        self._head_is_all = self._probe()
        self._can_share = self._probe_sharing()

    def __call__(self, batch: Batch) -> Tensor:
        if not self._head_is_all:
            logits_BTV: Tensor = self._model(input_ids=batch.ids_BT, use_cache=False).logits
            return logits_BTV[batch.rows_N, batch.columns_N]
        shared = shared_prefix(batch) if self._can_share else 0
        hidden_BTD = self._hidden(batch.ids_BT, shared if shared >= SHORTEST_SHARED else 0)
        width = hidden_BTD.shape[1]
        skipped = batch.ids_BT.shape[1] - width
        # index_select, not fancy indexing: its backward adds in a fixed order, as exact resume needs.
        hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, batch.rows_N * width + batch.columns_N - skipped)
        logits_NV: Tensor = self._head(hidden_ND)
        return logits_NV

    def _hidden(self, ids_BT: Tensor, shared: int) -> Tensor:
        """Hidden states of all columns but the first `shared`, which every row has in common."""
        if not shared or len(ids_BT) == 1:
            hidden_BTD: Tensor = self._body(input_ids=ids_BT, use_cache=False).last_hidden_state
            return hidden_BTD
        cache = DynamicCache()
        self._body(input_ids=ids_BT[:1, :shared], use_cache=True, past_key_values=cache)
        cache.batch_repeat_interleave(len(ids_BT))
        rest_BTD: Tensor = self._body(
            input_ids=ids_BT[:, shared:], use_cache=True, past_key_values=cache
        ).last_hidden_state
        return rest_BTD

    @torch.no_grad()
    def _probe_sharing(self) -> bool:
        """Whether this architecture gives the same through a shared prefix: windows and states may not."""
        kinds = getattr(self._model.config, "layer_types", None) or ["full_attention"]
        if any(kind != "full_attention" for kind in kinds) or getattr(self._model.config, "sliding_window", None):
            return False
        was_training = self._model.training
        self._model.eval()
        ids_BT = torch.tensor([[0, 1, 2, 3, 1], [0, 1, 2, 1, 3]], device=next(self._model.parameters()).device)
        same = torch.allclose(self._hidden(ids_BT, 3), self._hidden(ids_BT, 0)[:, 3:], rtol=1e-3, atol=1e-4)
        self._model.train(was_training)
        return bool(same)

    @torch.no_grad()
    def _probe(self) -> bool:
        was_training = self._model.training
        self._model.eval()
        device = next(self._model.parameters()).device
        ids_BT = torch.tensor([[0, 1, 2]], device=device)
        whole_BTV = self._model(input_ids=ids_BT, use_cache=False).logits
        parts_BTV = self._head(self._body(input_ids=ids_BT, use_cache=False).last_hidden_state)
        self._model.train(was_training)
        return bool(torch.allclose(whole_BTV, parts_BTV, rtol=1e-3, atol=1e-5))


def shared_prefix(batch: Batch) -> int:
    """How many first tokens all rows share, none of them needed for a target."""
    same_T = (batch.ids_BT == batch.ids_BT[:1]).all(dim=0).long()
    first_target = int(batch.columns_N.min()) if len(batch.columns_N) else 0
    return min(int(same_T.cumprod(0).sum()), first_target)


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Losses:
    """Mean over the N targets, not over examples: every trained token weighs the same. N > 0."""
    loss = functional.cross_entropy(logits_NV.float(), targets_N)
    num_correct = int((logits_NV.argmax(-1) == targets_N).sum())
    return Losses(loss=loss, num_correct=num_correct, num_targets=len(targets_N))
