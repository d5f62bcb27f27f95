"""What all rows of a batch begin with is computed once, and nothing else changes."""

from __future__ import annotations

from array import array

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from stillroom.student.losses import TargetLogits, cross_entropy, shared_prefix
from stillroom.student.packing import padded
from stillroom.student.template import Example

VOCABULARY = 97
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


def a_model(kind: str) -> PreTrainedModel:
    torch.manual_seed(3)
    models: dict[str, PreTrainedModel] = {
        "llama": LlamaForCausalLM(LlamaConfig(**SHAPE)),
        "qwen3": Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8)),
        "phi3": Phi3ForCausalLM(Phi3Config(**SHAPE)),
        "mistral": MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)),
    }
    return models[kind]


def examples(*, prefix: int, endings: tuple[int, ...]) -> list[Example]:
    """Rows that begin with the same `prefix` tokens; of each ending the last half is trained."""
    generator = torch.Generator().manual_seed(5)
    shared = torch.randint(1, VOCABULARY, (prefix,), generator=generator).tolist()
    rows = []
    for number, length in enumerate(endings):
        own = [number + 1, *torch.randint(1, VOCABULARY, (length - 1,), generator=generator).tolist()]
        trained = length // 2
        mask = bytes([0] * (prefix + length - trained) + [1] * trained)
        rows.append(Example(ids=array("i", shared + own), mask=mask))
    return rows


def one_by_one(model: PreTrainedModel, rows: list[Example]) -> tuple[float, torch.Tensor]:
    """Loss and gradients by the model's own forward pass, one row at a time."""
    model.zero_grad()
    total = sum(sum(row.mask) for row in rows)
    loss = 0.0
    for row in rows:
        ids = torch.tensor([list(row.ids)])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        wanted = torch.tensor(list(row.mask[1:]), dtype=torch.bool)
        part = -logits[wanted].gather(1, ids[0, 1:][wanted][:, None]).sum() / total
        part.backward()
        loss += float(part.detach())
    return loss, gradients(model)


def gradients(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", ["llama", "qwen3", "phi3"])
def test_loss_and_gradients_are_those_of_one_row_at_a_time(kind: str) -> None:
    model = a_model(kind).train()
    rows = examples(prefix=40, endings=(6, 9, 14, 7))
    expected_loss, expected = one_by_one(model, rows)
    model.zero_grad()
    batch = padded(rows)
    assert shared_prefix(batch) == 40
    found = cross_entropy(TargetLogits(model)(batch), batch.targets_N).loss
    found.backward()
    assert float(found.detach()) == pytest.approx(expected_loss, rel=1e-5)
    assert float((gradients(model) - expected).norm() / expected.norm()) < 1e-5


def test_the_shared_tokens_really_are_computed_once() -> None:
    model = a_model("qwen3")
    seen: list[int] = []
    model.model.layers[0].register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0].shape[:2].numel()))
    logits_of = TargetLogits(model)
    seen.clear()
    logits_of(padded(examples(prefix=40, endings=(6, 6, 6, 6))))
    assert sum(seen) == 40 + 4 * 6


def test_nothing_is_shared_beyond_the_first_trained_token() -> None:
    """Two rows alike to the letter: what is trained must keep its own hidden states."""
    row = examples(prefix=30, endings=(8,))[0]
    batch = padded([row, row])
    assert shared_prefix(batch) == 33  # the hidden state before the first trained token is not in the prefix


def test_a_model_with_a_sliding_window_is_computed_row_by_row() -> None:
    model = a_model("mistral").train()
    rows = examples(prefix=40, endings=(6, 9))
    expected_loss, expected = one_by_one(model, rows)
    model.zero_grad()
    batch = padded(rows)
    found = cross_entropy(TargetLogits(model)(batch), batch.targets_N).loss
    found.backward()
    assert float(found.detach()) == pytest.approx(expected_loss, rel=1e-5)
    assert float((gradients(model) - expected).norm() / expected.norm()) < 1e-5
