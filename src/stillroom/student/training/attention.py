"""Attention over a prefix tree, for any model that takes its attention from transformers' interface.

On a CPU no mask is made: each segment attends to itself (one causal block), its descendants to it (one full
block), and what a token gets from its segments is merged by log-sum-exp, as flash attention merges blocks
(Dao et al. 2022, arXiv 2205.14135). Elsewhere flex attention skips the blocks that nothing sees.

Models are not touched: while `attending`, their configuration names this attention, and the tree comes to it
as a keyword argument of their forward pass.

H heads, G heads of keys and values, L tokens of the tree, E size of a head
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from stillroom.student.training.tree import PrefixTree, Segment

NAME = "stillroom_tree"
BLOCK = 128
"""Tokens, of flex attention's masks."""
_WITHOUT_MEANING = {
    "position_ids",
    "use_cache",
    "is_causal",
    "cache_position",
    "output_attentions",
    "output_hidden_states",
}
"""Arguments that change nothing in how a tree is attended to."""

_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, the model attends by the `tree` that its forward pass is given."""
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def tree_attention(
    module: torch.nn.Module,
    query_1HLE: Tensor,
    key_1GLE: Tensor,
    value_1GLE: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: PrefixTree,
    scaling: float | None = None,
    dropout: float = 0.0,
    **asked: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer. Gives (1, L, H, E). Raises TypeError for what it does not do."""
    asked = {name: value for name, value in asked.items() if value is not None and name not in _WITHOUT_MEANING}
    if asked or dropout or attention_mask is not None:
        raise TypeError(f"tree attention has no {', '.join(asked) or ('dropout' if dropout else 'attention mask')}")
    tree.layers.add(getattr(module, "layer_idx", None))
    attend = by_segments if query_1HLE.device.type == "cpu" else by_mask
    # Where products are rounded, what a norm gives is not; the kernels want one type.
    query_1HLE, key_1GLE = query_1HLE.to(value_1GLE.dtype), key_1GLE.to(value_1GLE.dtype)
    return attend(query_1HLE, key_1GLE, value_1GLE, tree, scaling).transpose(1, 2), None


def by_segments(
    query_1HLE: Tensor, key_1GLE: Tensor, value_1GLE: Tensor, tree: PrefixTree, scale: float | None
) -> Tensor:
    """(1, H, L, E), by blocks of the CPU's flash attention."""
    attended_1HLE: Tensor = _Segmented.apply(query_1HLE, key_1GLE, value_1GLE, tree.segments, scale)  # type: ignore[no-untyped-call]
    return attended_1HLE


def by_mask(query_1HLE: Tensor, key_1GLE: Tensor, value_1GLE: Tensor, tree: PrefixTree, scale: float | None) -> Tensor:
    """(1, H, L, E), by flex attention."""
    attended_1HLE: Tensor = _flex_attention(query_1HLE.device)(
        query_1HLE, key_1GLE, value_1GLE, block_mask=block_mask(tree), scale=scale, enable_gqa=True
    )
    return attended_1HLE


class _Segmented(torch.autograd.Function):
    """One kernel call for each segment, and one more for each that has descendants; the same backwards."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: tuple[Segment, ...], scale: float | None
    ) -> Tensor:
        # Laid out as the model wants it next: tokens before heads.
        out_HLE = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        lse_HL = query.new_empty(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        for own, _ in _blocks(segments):
            out_HLE[:, :, own], lse_HL[:, :, own] = _attend(
                query[:, :, own], key[:, :, own], value[:, :, own], 0.0, True, scale=scale
            )
        for own, below in _blocks(segments):
            if below.start < below.stop:
                more = _attend(query[:, :, below], key[:, :, own], value[:, :, own], 0.0, False, scale=scale)
                _merge(out_HLE[:, :, below], lse_HL[:, :, below], *more)
        ctx.save_for_backward(query, key, value, out_HLE, lse_HL)
        ctx.segments, ctx.scale = segments, scale
        return out_HLE

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """With the merged output and log-sum-exp, each block's own backward gives its part of the whole."""
        query, key, value, out, lse = ctx.saved_tensors
        of_query, of_key, of_value = map(torch.zeros_like, (query, key, value))

        def add(queries: slice, keys: slice, causal: bool) -> None:
            parts = _attend_backward(
                gradient[:, :, queries],
                query[:, :, queries],
                key[:, :, keys],
                value[:, :, keys],
                out[:, :, queries],
                lse[:, :, queries],
                0.0,
                causal,
                scale=ctx.scale,
            )
            of_query[:, :, queries] += parts[0]
            of_key[:, :, keys] += parts[1]
            of_value[:, :, keys] += parts[2]

        for own, below in _blocks(ctx.segments):
            add(own, own, True)
            if below.start < below.stop:
                add(below, own, False)
        return of_query, of_key, of_value, None, None


def _blocks(segments: tuple[Segment, ...]) -> Iterator[tuple[slice, slice]]:
    """Each segment's own tokens, and those of its descendants."""
    return ((slice(each.start, each.end), slice(each.end, each.reach)) for each in segments)


def _merge(out: Tensor, lse: Tensor, more_out: Tensor, more_lse: Tensor) -> None:
    """Puts into `out` and `lse` what attending to both sets of keys at once had given."""
    both = torch.logaddexp(lse, more_lse)
    out.mul_((lse - both).exp().to(out.dtype)[..., None]).add_(
        more_out * (more_lse - both).exp().to(out.dtype)[..., None]
    )
    lse.copy_(both)


def block_mask(tree: PrefixTree) -> BlockMask:
    """By blocks of 128 tokens: which see something of which is read off the tree, without looking at each pair."""
    if (made := _MASKS.get(tree)) is None:
        made = _MASKS[tree] = _block_mask(tree.reach_L)
    return made


_MASKS: WeakKeyDictionary[PrefixTree, BlockMask] = WeakKeyDictionary()
"""All layers of a pass ask for the same; it is gone with its tree."""


def _block_mask(reach_L: Tensor) -> BlockMask:
    length = len(reach_L)
    blocks = -(-length // BLOCK)
    furthest_B = functional.pad(reach_L, (0, blocks * BLOCK - length)).view(blocks, BLOCK).amax(-1)
    starts_B = torch.arange(blocks, device=reach_L.device) * BLOCK
    seen_BB = (furthest_B[None, :] > starts_B[:, None]).tril() | torch.eye(
        blocks, dtype=torch.bool, device=reach_L.device
    )
    order_BB = seen_BB.int().argsort(dim=-1, descending=True, stable=True)
    # For places behind the end, which the last block has, too.
    padded_L = functional.pad(reach_L, (0, blocks * BLOCK - length))

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < padded_L[key])

    return BlockMask.from_kv_blocks(
        seen_BB.sum(-1, dtype=torch.int32)[None, None],
        order_BB.to(torch.int32)[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(length, length),
    )


@cache
def _flex_attention(device: torch.device) -> Any:
    """Compiled where there is a compiler for it: uncompiled it keeps every score."""
    return torch.compile(flex_attention, dynamic=True) if device.type == "cuda" else flex_attention


def _no_mask(**_: Any) -> None:
    """The tree says what each token sees."""


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, _no_mask)
