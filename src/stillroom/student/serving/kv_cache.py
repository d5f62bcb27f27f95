"""Keys and values of running sequences, as a batch that sequences join and leave between steps.

Sequences are aligned on the right: shorter ones are padded on the left and masked there. A token's
rotary position is its own place in its own sequence, so padding changes no result. Owns also the keys
and values of recent prompts, which later prompts with the same beginning reuse.

Knows tensors of full attention layers; no requests, no sampling.

B sequences, H key heads, T cached tokens, D head width, V vocabulary
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, both BHTD."""

SHORTEST_SHARED_PREFIX = 16
"""Below this many tokens, copying a prefix costs as much as computing it."""


class BatchCache:
    """The cache of B sequences, row by row in the order they joined."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._layers: Layers = []
        self._lengths_B = torch.zeros(0, dtype=torch.long, device=next(model.parameters()).device)

    def __len__(self) -> int:
        return len(self._lengths_B)

    def forward(self, ids_BQ: Tensor) -> Tensor:
        """Appends Q tokens to every sequence; logits_BV (float32, CPU) behind the last of them."""
        num_new = ids_BQ.shape[1]
        positions_BQ = self._lengths_B[:, None] + torch.arange(num_new, device=ids_BQ.device)
        self._lengths_B = self._lengths_B + num_new
        cache = self._as_transformers()
        output = self._model(
            input_ids=ids_BQ,
            attention_mask=self._mask_BT(self._width() + num_new),
            position_ids=positions_BQ,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]
        logits_BV: Tensor = output.logits[:, -1].float().cpu()
        return logits_BV

    def start(self, prefix: Layers, length: int) -> None:
        """Begins one sequence with the first `length` tokens of `prefix` in the cache."""
        self._layers = [(keys[:, :, :length], values[:, :, :length]) for keys, values in prefix] if length else []
        self._lengths_B = torch.full_like(self._lengths_B.new_zeros(1), length)

    def join(self, other: BatchCache) -> None:
        """Adds the other's sequences behind ours."""
        if not len(self):
            self._layers, self._lengths_B = other._layers, other._lengths_B
            return
        width = max(self._width(), other._width())
        pairs = zip(_widened(self._layers, width), _widened(other._layers, width), strict=True)
        self._layers = [(torch.cat([k, k_new]), torch.cat([v, v_new])) for (k, v), (k_new, v_new) in pairs]
        self._lengths_B = torch.cat([self._lengths_B, other._lengths_B])

    def keep(self, rows: Sequence[int]) -> None:
        """Only these sequences stay; columns that nobody needs any more go."""
        if not rows:
            self._layers, self._lengths_B = [], self._lengths_B[:0]
            return
        index_B = torch.tensor(list(rows), device=self._lengths_B.device)
        self._lengths_B = self._lengths_B[index_B]
        trim = self._width() - int(self._lengths_B.max())
        self._layers = [(keys[index_B, :, trim:], values[index_B, :, trim:]) for keys, values in self._layers]

    def layers(self) -> Layers:
        """The tensors themselves; no step writes into them."""
        return self._layers

    def _width(self) -> int:
        return self._layers[0][0].shape[2] if self._layers else 0

    def _mask_BT(self, width: int) -> Tensor | None:
        """1 where a sequence has a token; None when all are equally long."""
        if int(self._lengths_B.min()) == width:
            return None
        columns_T = torch.arange(width, device=self._lengths_B.device)
        return (columns_T >= width - self._lengths_B[:, None]).long()

    def _as_transformers(self) -> Any:
        cache: Any = DynamicCache(config=self._model.config)
        for layer, (keys, values) in zip(cache.layers, self._layers, strict=False):
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        return cache


@dataclass(frozen=True, kw_only=True)
class _Prompt:
    ids: array[int]
    layers: Layers


class PrefixCache:
    """The last few prompts with their keys and values."""

    def __init__(self, *, max_prompts: int = 8, max_tokens: int = 32_768) -> None:
        self._max_prompts = max_prompts
        self._max_tokens = max_tokens
        self._prompts: list[_Prompt] = []
        """Least recently used first."""

    def longest(self, ids: Sequence[int]) -> tuple[Layers, int]:
        """The cache that begins like `ids`, and how many tokens of it; at least one token is left to compute."""
        wanted = array("i", ids)
        best, best_length = None, 0
        for prompt in self._prompts:
            length = min(_common_prefix(prompt.ids, wanted), len(ids) - 1)
            if length > best_length:
                best, best_length = prompt, length
        if best is None or best_length < SHORTEST_SHARED_PREFIX:
            return [], 0
        self._prompts.remove(best)
        self._prompts.append(best)
        return best.layers, best_length

    def add(self, ids: Sequence[int], layers: Layers) -> None:
        wanted = array("i", ids)
        # A prompt that the new one contains would never be chosen again.
        self._prompts = [each for each in self._prompts if wanted[: len(each.ids)] != each.ids]
        self._prompts.append(_Prompt(ids=wanted, layers=layers))
        while len(self._prompts) > 1 and (len(self._prompts) > self._max_prompts or self._size() > self._max_tokens):
            self._prompts.pop(0)

    def _size(self) -> int:
        return sum(len(prompt.ids) for prompt in self._prompts)


def _common_prefix(left: array[int], right: array[int]) -> int:
    low, high = 0, min(len(left), len(right))
    # Halving compares slices in C; a loop over tokens would cost more than it saves.
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _widened(layers: Layers, width: int) -> Layers:
    pad = width - layers[0][0].shape[2]
    if not pad:
        return layers
    return [(functional.pad(keys, (0, 0, pad, 0)), functional.pad(values, (0, 0, pad, 0))) for keys, values in layers]
