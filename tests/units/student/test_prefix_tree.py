"""What rows of a batch begin with is computed once, and nothing else changes: losses and gradients are those of
the rows computed one after the other, by the model's own forward pass."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoConfig,
    GPTNeoForCausalLM,
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

from stillroom.student.chats.template import Example
from stillroom.student.training.attention import block_mask, by_mask, by_segments
from stillroom.student.training.objective import Objective
from stillroom.student.training.packing import SHARED, Batch, padded, shared
from stillroom.student.training.sharing import why_not_shared
from stillroom.student.training.tree import grow

VOCABULARY = 97
SHAPE: dict[str, Any] = {
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


def a_model(kind: str, dtype: torch.dtype = torch.float32, *, lora: bool = False) -> nn.Module:
    torch.manual_seed(3)
    makers: dict[str, Callable[[], PreTrainedModel]] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8)),
        "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SHAPE)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)),
        "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=8)),
    }
    model: Any = makers[kind]()
    if lora:
        with warnings.catch_warnings(
            action="ignore", category=FutureWarning
        ):  # peft asks for what transformers renamed
            shape = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
            model = get_peft_model(model, shape)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, and then nothing flows back through it
                nn.init.normal_(parameter, std=0.1)
    return model.to(dtype).train()


def an_example(ids: list[int], trained: list[bool]) -> Example:
    return Example(ids=array("i", ids), mask=bytes(trained))


def words(generator: torch.Generator, count: int) -> list[int]:
    return torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()


def one_task(*, prompt: int = 40, answers: tuple[int, ...] = (6, 9, 14, 7)) -> list[Example]:
    """One system prompt, and an answer each."""
    generator = torch.Generator().manual_seed(5)
    start = words(generator, prompt)
    rows = []
    for length in answers:
        own = words(generator, length)
        rows.append(an_example(start + own, [False] * (prompt + length // 2) + [True] * (length - length // 2)))
    return rows


def conversations() -> list[Example]:
    """Two chats as an app stores them: at each turn the whole history again, every answer trained."""
    generator = torch.Generator().manual_seed(6)
    start, rows = words(generator, 20), []
    for _ in range(2):
        ids, mask = list(start), [False] * len(start)
        for _ in range(3):
            question, answer = words(generator, 5), words(generator, 7)
            ids, mask = ids + question + answer, mask + [False] * 5 + [True] * 7
            rows.append(an_example(ids, mask))
    return rows


def weighted() -> list[Example]:
    """The same chat three times: whole, with its first answer of weight 0, and whole again."""
    whole = conversations()[2]
    first = whole.mask.index(1)
    silenced = bytes(first + 7) + whole.mask[first + 7 :]
    return [whole, Example(ids=whole.ids, mask=silenced), whole, *one_task(prompt=9, answers=(5,))]


def branching_answers() -> list[Example]:
    """Answers that begin alike: the token where they part has two targets in one place."""
    generator = torch.Generator().manual_seed(7)
    start, rest = words(generator, 30), words(generator, 4)
    rows = [start + rest + words(generator, 3) for _ in range(3)] + [start + rest[:2]]
    return [an_example(row, [False] * 30 + [True] * (len(row) - 30)) for row in rows]


ROWS: dict[str, Callable[[], list[Example]]] = {
    "one task": one_task,
    "conversations": conversations,
    "duplicates and weights": weighted,
    "branching answers": branching_answers,
    "nothing in common": lambda: one_task(prompt=0, answers=(6, 5, 9)),
    "one row": lambda: one_task(answers=(8,)),
}


def one_by_one(model: nn.Module, rows: list[Example]) -> tuple[float, Tensor]:
    """Loss and gradients by the model's own forward pass and autograd, one row at a time."""
    model.zero_grad()
    total = sum(sum(row.mask[1:]) for row in rows)
    loss = 0.0
    for row in rows:
        ids = torch.tensor([list(row.ids)])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        wanted = torch.tensor(list(row.mask[1:]), dtype=torch.bool)
        part = -logits[wanted].gather(1, ids[0, 1:][wanted][:, None]).sum() / total
        part.backward()
        loss += float(part.detach())
    return loss, gradients(model)


def together(model: nn.Module, batches: list[Batch], total: int) -> tuple[float, Tensor]:
    model.zero_grad()
    objective = Objective(model)
    loss = sum(objective.backward(batch, scale=1 / total).loss for batch in batches) / total
    return loss, gradients(model)


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def assert_equal(found: tuple[float, Tensor], expected: tuple[float, Tensor], tolerance: float) -> None:
    assert abs(found[0] - expected[0]) <= tolerance * abs(expected[0])
    assert float((found[1] - expected[1]).norm() / expected[1].norm()) <= tolerance


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "phi3"])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
def test_loss_and_gradients_are_those_of_one_row_at_a_time(
    rows: Callable[[], list[Example]], kind: str, lora: bool, norms_in_float64: None
) -> None:
    made = rows()
    total = sum(sum(row.mask[1:]) for row in made)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        model = a_model(kind, dtype, lora=lora)
        expected = one_by_one(model, made)
        assert_equal(together(model, [shared(made)], total), expected, tolerance)
        if dtype is torch.float64:
            passes = [shared(some) for some in SHARED.passes(made, 60)]
            assert_equal(together(model, passes, total), expected, tolerance)


@pytest.mark.parametrize("kind", ["mistral", "gemma3"])
def test_a_model_of_windows_is_found_out_and_padded_rows_are_right_for_it(kind: str) -> None:
    model, rows = a_model(kind), one_task()
    assert why_not_shared(Objective(model)) is not None
    total = sum(sum(row.mask[1:]) for row in rows)
    expected = one_by_one(model, rows)
    assert_equal(together(model, [padded(rows)], total), expected, 1e-5)
    with pytest.raises(TypeError, match="tree attention has no sliding_window"):
        together(model, [shared(rows)], total)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "phi3"])
def test_models_of_full_attention_may_share_and_are_left_as_they_were(kind: str) -> None:
    model = a_model(kind, lora=True)
    assert why_not_shared(Objective(model)) is None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_with_dropout_is_found_out(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, attention_dropout=0.05)).to(dtype).train()
    assert why_not_shared(Objective(model)) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_with_attention_of_its_own_is_found_out_however_coarse_its_arithmetic(dtype: torch.dtype) -> None:
    """GPT-Neo does not ask transformers' interface: it would compute the tree as one row, by a few per cent wrong."""
    torch.manual_seed(3)
    shape = GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=64,
        attention_types=[[["global"], 2]],
        resid_dropout=0,
        embed_dropout=0,
        attention_dropout=0,
    )
    objective = Objective(GPTNeoForCausalLM(shape).to(dtype).train())
    assert why_not_shared(objective) is not None


def test_a_probe_that_breaks_off_on_its_way_back_leaves_no_gradients() -> None:
    model: Any = a_model("llama")

    def refuse(_module: nn.Module, _gradient: Any) -> None:
        raise RuntimeError("no kernel")

    hook = model.model.layers[0].register_full_backward_pre_hook(refuse)
    assert "no kernel" in str(why_not_shared(Objective(model)))
    hook.remove()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("lengths", [(5,), (130, 260, 3), (40, 300, 128, 128)])
def test_blocks_of_the_mask_are_those_that_looking_at_each_pair_finds(lengths: tuple[int, ...]) -> None:
    tree, _ = grow(one_task(prompt=100, answers=lengths))
    reach_L, length = tree.reach_L, len(tree.ids_L)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < reach_L[key])

    looked_at = create_block_mask(sees, None, None, length, length, device="cpu")
    assert torch.equal(block_mask(tree).to_dense(), looked_at.to_dense())


def test_the_shared_tokens_really_are_computed_once() -> None:
    model: Any = a_model("qwen3")
    seen: list[int] = []
    objective = Objective(model)
    model.model.layers[0].register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0].shape[:2].numel()))
    rows = one_task()
    objective.evaluate(shared(rows))
    # Each different beginning once; no row's last token comes before a target.
    assert sum(seen) == len({tuple(row.ids[:end]) for row in rows for end in range(1, len(row.ids))})
    assert sum(seen) < 40 + sum((6, 9, 14, 7))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_mask_for_other_machines_sees_what_the_segments_see() -> None:
    for rows in ROWS.values():
        tree, _ = grow(rows())
        generator = torch.Generator().manual_seed(1)
        query, key, value = (torch.randn(1, heads, len(tree.ids_L), 8, generator=generator) for heads in (4, 2, 2))
        torch.testing.assert_close(by_mask(query, key, value, tree, 0.3), by_segments(query, key, value, tree, 0.3))


ROW = st.lists(st.integers(0, 2), min_size=2, max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_rows_can_be_read_back_from_their_tree(rows: list[list[int]], random: Any) -> None:
    """From three words only, so that rows share much. Each target is looked up the long way round."""
    examples = [an_example(row, [random.random() < 0.5 for _ in row[1:]] + [True]) for row in rows]
    batch = shared(examples)
    assert batch.tree is not None
    tree, targets = batch.tree, batch.targets
    found: dict[tuple[tuple[int, ...], int], float] = {}
    for place, token, weight in zip(
        targets.places_N.tolist(), targets.tokens_N.tolist(), targets.weights_N.tolist(), strict=True
    ):
        found[ancestors(tree.ids_L.tolist(), tree.reach_L.tolist(), place), token] = weight
    expected: dict[tuple[tuple[int, ...], int], float] = {}
    for example in examples:
        for at in range(1, len(example.ids)):
            if example.mask[at]:
                key = tuple(example.ids[:at]), example.ids[at]
                expected[key] = expected.get(key, 0) + 1
    assert found == expected
    # No two tokens stand for the same beginning, and a token's position is how many come before it.
    beginnings = [ancestors(tree.ids_L.tolist(), tree.reach_L.tolist(), at) for at in range(len(tree.ids_L))]
    assert len(set(beginnings)) == len(beginnings)
    assert [len(each) - 1 for each in beginnings] == tree.positions_L.tolist()
    covered = [at for each in tree.segments for at in range(each.start, each.end)]
    assert covered == list(range(len(tree.ids_L)))


def ancestors(ids: list[int], reach: list[int], place: int) -> tuple[int, ...]:
    """What the token in `place` sees, itself last."""
    return tuple(ids[at] for at in range(place + 1) if place < reach[at])
