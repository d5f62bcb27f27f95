"""Whether a model may be trained on prefix trees: asked of the model itself, before a run.

Layers with windows, states or compressed caches compute a tree without an error, and wrongly. So some made-up
rows are computed both ways, loss and gradients, with the model's own weights and arithmetic.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.student.chats.template import Example
from stillroom.student.training.fsdp import whole
from stillroom.student.training.objective import Objective
from stillroom.student.training.packing import padded, shared

LARGEST_DIFFERENCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
"""Of the gradients, as a share of their size. A wrong mask differs by far more, rounding by far less."""
ROPE_BY_LENGTH = ("dynamic", "longrope")
"""Position encodings that depend on how long the row is: rows of one tree would get those of the longest."""


def why_not_shared(objective: Objective) -> str | None:
    """Why this model's rows must be computed one beside the other; None: they may share a tree."""
    config = objective.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        return "not all of its layers attend to everything before them"
    if any(kind in ROPE_BY_LENGTH for kind in _rope_kinds(getattr(config, "rope_parameters", None))):
        return "its position encoding depends on a row's length"
    if any(isinstance(each, nn.Dropout) and each.p > 0 for each in objective.model.modules()):
        return "it drops values at random, and others for each row"
    return _difference(objective)


def _difference(objective: Objective) -> str | None:
    rows = _rows(vocabulary=objective.model.config.get_text_config().vocab_size)
    try:
        loss, gradients = _computed(objective, rows, together=True)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return f"it cannot compute a tree ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
    expected_loss, expected = _computed(objective, rows, together=False)
    difference = float((gradients - expected).norm() / expected.norm())
    allowed = LARGEST_DIFFERENCE[objective.compute_dtype]
    if abs(loss - expected_loss) > allowed * abs(expected_loss) or not difference <= allowed:
        return f"it computes a tree differently (gradients by {difference:.1g})"
    return None


def _rope_kinds(parameters: Any) -> Iterator[str]:
    """Of one set of parameters, or of one for each kind of layer."""
    if isinstance(parameters, Mapping):
        if isinstance(kind := parameters.get("rope_type"), str):
            yield kind
        for inner in parameters.values():
            yield from _rope_kinds(inner)


def _computed(objective: Objective, rows: Sequence[Example], *, together: bool) -> tuple[float, Tensor]:
    """Loss and gradients of the rows in one tree, or of one row after the other."""
    device = next(objective.model.parameters()).device
    batches = [each.to(device) for each in ([shared(rows)] if together else [padded([row]) for row in rows])]
    try:
        loss = sum(objective.backward(batch, scale=1.0).loss for batch in batches)
        gradients = [whole(each.grad).flatten() for each in objective.model.parameters() if each.grad is not None]
    finally:
        objective.model.zero_grad(set_to_none=True)
    # In coarse arithmetic a model that attends in its own way differs by no more than rounding does.
    layers = set(range(objective.model.config.get_text_config().num_hidden_layers))
    if together and batches[0].tree and batches[0].tree.layers != layers:
        raise TypeError("not every layer attends through transformers' interface")
    return loss, torch.cat(gradients)


def _rows(*, vocabulary: int) -> list[Example]:
    """A common beginning, a branch, a row that goes on where another ends, and one that comes twice."""
    generator = torch.Generator().manual_seed(0)

    def words(count: int) -> list[int]:
        return torch.randint(0, vocabulary, (count,), generator=generator).tolist()

    start, answer, more = words(24), words(9), words(12)
    rows = [start + words(7), start + answer, start + answer + more, start + answer]
    return [Example(ids=array("i", row), mask=bytes(len(row) - 6) + bytes([1]) * 6) for row in rows]
