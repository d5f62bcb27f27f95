"""The loop and its parts: losses, order, checkpoints, resume."""

from __future__ import annotations

import csv
import itertools
import json
import math
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import GraniteConfig, GraniteForCausalLM

from stillroom.errors import InvalidRequest, InvalidTrainingFile
from stillroom.student.bases.checkpoint import BaseReference, read_artefact, step_folders
from stillroom.student.chats.examples import Row, encode_rows, read_rows
from stillroom.student.chats.template import Example
from stillroom.student.hyperparameters import (
    BUILT_IN,
    Hyperparameters,
    Training,
    learning_rate_at,
    method_of,
    resolve,
    steps_per_epoch,
)
from stillroom.student.training import objective
from stillroom.student.training.muon import orthogonal
from stillroom.student.training.objective import Objective
from stillroom.student.training.packing import PADDED, SHARED, Batch, Layout, epoch_batches, padded, shared

from .conftest import open_scratch, trained_run, write_rows

TWO_EPOCHS = Hyperparameters(n_epochs=2, batch_size=4)


@pytest.mark.parametrize("batch_of", [shared, padded])
def test_a_batchs_loss_is_that_of_its_examples_one_by_one(
    tmp_path: Path, ticket_rows: list[Row], batch_of: Callable[[list[Example]], Batch]
) -> None:
    student = open_scratch(tmp_path, ticket_rows)
    examples = encode_rows(ticket_rows[:5], student.template, context_tokens=8192)
    together = Objective(student.model).evaluate(batch_of(examples))

    losses, correct = [], 0
    student.model.requires_grad_(False)
    for example in examples:
        ids_1T = torch.tensor([list(example.ids)])
        logits_TV = student.model(input_ids=ids_1T).logits[0]
        for at in (index for index, trained in enumerate(example.mask) if trained):
            losses.append(float(functional.cross_entropy(logits_TV[at - 1], ids_1T[0, at])))
            correct += int(logits_TV[at - 1].argmax()) == example.ids[at]
    assert together.loss == pytest.approx(sum(losses), rel=1e-5)
    assert (together.correct, together.tokens) == (correct, len(losses))


def test_what_is_more_than_body_and_head_runs_whole(tmp_path: Path, ticket_rows: list[Row]) -> None:
    """Granite scales its logits behind the head, which the head alone does not know."""
    student = open_scratch(tmp_path, ticket_rows)
    shape = GraniteConfig(
        vocab_size=len(student.template.tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        logits_scaling=3.0,
    )
    torch.manual_seed(0)
    model = GraniteForCausalLM(shape)
    examples = encode_rows(ticket_rows[:3], student.template, context_tokens=8192)
    wanted = 0.0
    for example in examples:
        ids_1T = torch.tensor([list(example.ids)])
        logits_TV = model(input_ids=ids_1T).logits[0].detach()
        at = [index for index, trained in enumerate(example.mask) if trained]
        wanted += float(functional.cross_entropy(logits_TV[[i - 1 for i in at]], ids_1T[0, at], reduction="sum"))
    assert Objective(model).evaluate(shared(examples)).loss == pytest.approx(wanted, rel=1e-5)


def test_logits_taken_in_chunks_have_the_gradients_of_all_at_once(
    tmp_path: Path, ticket_rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    student = open_scratch(tmp_path, ticket_rows)
    batch = shared(encode_rows(ticket_rows[:5], student.template, context_tokens=8192))

    def gradients() -> list[torch.Tensor]:
        student.model.zero_grad()
        Objective(student.model).backward(batch, scale=0.1)
        return [each.grad.clone() for each in student.model.parameters() if each.grad is not None]

    at_once = gradients()
    monkeypatch.setattr(objective, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(objective, "SMALLEST_CHUNK", 7)
    for chunked, whole in zip(gradients(), at_once, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-6)


def _examples(lengths: list[int]) -> list[Example]:
    return [Example(ids=array("i", range(size)), mask=bytes([0] * (size - 1) + [1])) for size in lengths]


@pytest.mark.parametrize("layout", [SHARED, PADDED])
def test_every_example_comes_once_an_epoch_in_an_order_that_seed_and_epoch_decide(layout: Layout) -> None:
    examples = _examples(list(range(2, 45)))

    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = epoch_batches(examples, layout, batch_size=4, seed=seed, epoch=epoch)
        return [[len(example.ids) for example in batch] for batch in batches]

    assert sorted(itertools.chain(*order(1, 0))) == list(range(2, 45))
    assert len(order(1, 0)) == steps_per_epoch(43, 4)
    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1) != order(2, 1)


def test_rows_of_one_task_share_a_batch_in_an_order_that_differs_from_pass_to_pass() -> None:
    """Sixteen rows of each of eight system prompts, every row ending in its own number."""
    tails = torch.randperm(128, generator=torch.Generator().manual_seed(2)).tolist()
    examples = [
        Example(ids=array("i", [1000 + task] * 40 + [tails[task * 16 + row]] * 9), mask=bytes(48) + b"\1")
        for task in range(8)
        for row in range(16)
    ]
    epochs = [epoch_batches(examples, SHARED, batch_size=8, seed=1, epoch=epoch) for epoch in range(2)]
    for batches in epochs:
        assert all(len({example.ids[0] for example in batch}) == 1 for batch in batches)
        tails_in_order = [example.ids[-1] for batch in batches for example in batch]
        assert tails_in_order != sorted(tails_in_order)
    mates = [{frozenset(example.ids[-1] for example in batch) for batch in batches} for batches in epochs]
    assert len(mates[0] & mates[1]) < 4


def test_large_steps_are_split_into_passes_within_the_token_budget() -> None:
    examples = _examples([9, 30, 10, 10, 200])

    def lengths(layout: Layout) -> list[list[int]]:
        return [[len(example.ids) for example in each] for each in layout.passes(examples, 60)]

    assert lengths(PADDED) == [[200], [30, 10], [10, 9]]
    # Each begins as the longer ones do, so the first four are no more than the longest of them.
    assert lengths(SHARED) == [[9, 10, 10, 30], [200]]


@pytest.mark.parametrize(
    ("rows", "epochs", "batch"), [(11, 150, 4), (100, 35, 8), (1000, 6, 16), (10_000, 3, 16), (40_000, 1, 16)]
)
def test_auto_gives_few_rows_many_epochs_and_many_rows_few(rows: int, epochs: int, batch: int) -> None:
    resolved = resolve(Hyperparameters(), num_examples=rows, method=method_of(Hyperparameters(), BUILT_IN))
    assert (resolved.n_epochs, resolved.batch_size) == (epochs, batch)
    assert resolved.learning_rate_multiplier == 1


def test_the_learning_rate_rises_for_a_twentieth_and_falls_to_nothing() -> None:
    rates = [learning_rate_at(step, total_steps=100, peak=1.0) for step in range(1, 101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(earlier > later for earlier, later in itertools.pairwise(rates[4:]))
    assert 0 < rates[-1] < 0.02


@pytest.mark.parametrize(
    "values",
    [{"n_epochs": 0}, {"batch_size": True}, {"learning_rate_multiplier": math.inf}, {"n_epochs": "many"}],
)
def test_hyperparameters_that_mean_nothing_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Hyperparameters.from_json(values)
    assert caught.value.param == next(iter(values))


def test_muons_update_keeps_directions_and_evens_their_sizes() -> None:
    torch.manual_seed(0)
    for shape in ((2, 24, 8), (2, 8, 24)):
        sizes = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert float(sizes.min()) > 0.6 and float(sizes.max()) < 1.3


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path, ticket_rows: list[Row]) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        numbers = Hyperparameters(n_epochs=1, batch_size=8)
        events = trained_run(tmp_path / name, ticket_rows, hyperparameters=numbers, seed=seed)
        return load_file(Path(events[-1]["path"]) / "model.safetensors")

    first, again, other = weights("first", 5), weights("again", 5), weights("other", 6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.norm.weight"], other["model.norm.weight"])


def test_a_run_leaves_events_metrics_and_its_last_three_checkpoints(tmp_path: Path, ticket_rows: list[Row]) -> None:
    numbers = Hyperparameters(n_epochs=4, batch_size=8, learning_rate_multiplier=0.5)
    events = trained_run(tmp_path, ticket_rows, hyperparameters=numbers, valid=ticket_rows[:10])
    started, done = events[0], events[-1]
    three = {"n_epochs": 4, "batch_size": 8, "learning_rate_multiplier": 0.5}
    kept = {"long_rows": "fail", "system_prompt": "keep", "soft_label_weight": 0.0}
    assert started["hyperparameters"] == {**three, "training": "full", **kept}
    assert started["total_steps"] == 12 and started["resumed_from_step"] is None

    steps = [event for event in events if event["type"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 13))
    assert steps[-1]["train_loss"] < steps[0]["train_loss"]

    checkpoints = [event for event in events if event["type"] == "checkpoint"]
    assert [(event["step"], event["epoch"]) for event in checkpoints] == [(6, 2), (9, 3), (12, 4)]
    assert all(Path(event["path"]).is_dir() for event in checkpoints)
    assert done["path"] == checkpoints[-1]["path"]
    assert checkpoints[-1]["metrics"]["full_valid_loss"] > 0

    rows = list(csv.DictReader(Path(done["metrics_csv"]).read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert rows[0]["train_accuracy"] == rows[0]["train_mean_token_accuracy"]
    assert [row["full_valid_loss"] != "" for row in rows] == [step % 3 == 0 for step in range(1, 13)]


def test_a_damaged_resume_state_is_said_and_the_one_before_it_used(tmp_path: Path, ticket_rows: list[Row]) -> None:
    first = trained_run(tmp_path, ticket_rows, hyperparameters=TWO_EPOCHS)
    weights = (Path(first[-1]["path"]) / "model.safetensors").read_bytes()
    newest = step_folders(tmp_path / "resume")[-1] / "state.safetensors"
    state = bytearray(newest.read_bytes())
    state[len(state) // 2] ^= 1
    newest.write_bytes(state)

    again = trained_run(tmp_path, ticket_rows, hyperparameters=TWO_EPOCHS)
    assert again[0]["type"] == "message" and newest.parent.name in again[0]["message"]
    assert again[1]["resumed_from_step"] == 6
    assert (Path(again[-1]["path"]) / "model.safetensors").read_bytes() == weights


def test_trained_tokens_are_all_tokens_of_all_rows_in_every_epoch(tmp_path: Path, ticket_rows: list[Row]) -> None:
    events = trained_run(tmp_path, ticket_rows, hyperparameters=TWO_EPOCHS)
    student = open_scratch(tmp_path, ticket_rows)
    encoded = encode_rows(ticket_rows, student.template, context_tokens=8192)
    assert events[-1]["trained_tokens"] == 2 * sum(len(example.ids) for example in encoded)


def test_an_adapter_trains_continues_and_leaves_its_base_alone(
    tmp_path: Path, ticket_rows: list[Row], tiny_base: BaseReference
) -> None:
    before = (Path(tiny_base.path or "") / "model.safetensors").read_bytes()
    fast = Hyperparameters(n_epochs=3, batch_size=4, learning_rate_multiplier=30.0)
    first = trained_run(tmp_path / "first", ticket_rows, base=tiny_base, hyperparameters=fast)
    assert first[0]["trainable_parameters"] < first[0]["parameters"]
    losses = [event["train_loss"] for event in first if event["type"] == "step"]
    assert losses[-1] < 0.8 * losses[0]

    artefact = read_artefact(Path(first[-1]["path"]))
    assert artefact.training is Training.ADAPTER and artefact.base == tiny_base
    assert (Path(first[-1]["path"]) / "adapter_model.safetensors").is_file()

    again = BaseReference(name="ft:first", path=first[-1]["path"], revision=None)
    second = trained_run(tmp_path / "second", ticket_rows, base=again, hyperparameters=fast)
    continued = [event["train_loss"] for event in second if event["type"] == "step"]
    assert continued[0] < 0.9 * losses[0]
    assert read_artefact(Path(second[-1]["path"])).base == tiny_base
    assert (Path(tiny_base.path or "") / "model.safetensors").read_bytes() == before


def test_a_fine_tune_of_a_scratch_fine_tune_goes_on_with_its_weights_and_tokenizer(
    tmp_path: Path, ticket_rows: list[Row], trained_folder: Path
) -> None:
    base = BaseReference(name="ft:first", path=str(trained_folder), revision=None)
    events = trained_run(tmp_path, ticket_rows, base=base, hyperparameters=TWO_EPOCHS)
    assert events[1]["train_loss"] < 3
    assert read_artefact(Path(events[-1]["path"])).training is Training.FULL
    names = [folder / "tokenizer.json" for folder in (trained_folder, Path(events[-1]["path"]))]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_rows_survive_a_byte_order_mark_crlf_and_unicode_line_ends(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a\u2028b\x85c"}, {"role": "assistant", "content": "d"}]}
    line = json.dumps(row, ensure_ascii=False)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}".encode())
    rows = read_rows(path)
    assert [each.line for each in rows] == [1, 3]
    assert rows[0].messages == row["messages"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "Line 2 is not JSON"),
        ('{"prompt": "x"}', "Line 2 has no list of 'messages'"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "Line 2 has no assistant message"),
        (
            '{"messages": [{"role": "bard", "content": "x"}, {"role": "assistant", "content": "y"}]}',
            "Line 2: Unknown",
        ),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},'
            ' {"role": "assistant", "content": "y"}]}',
            "Line 2: .*image",
        ),
        (
            '{"messages": [{"role": "user", "content": "'
            + "word " * 9000
            + '"}, {"role": "assistant", "content": "y"}]}',
            "Line 2 has .* tokens; the model reads at most 8192",
        ),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_its_line(
    tmp_path: Path, ticket_rows: list[Row], line: str, words: str
) -> None:
    template = open_scratch(tmp_path, ticket_rows).template
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": ticket_rows[0].messages}])
    path.write_text(path.read_text() + line)
    with pytest.raises(InvalidTrainingFile, match=words) as caught:
        encode_rows(read_rows(path), template, context_tokens=8192)
    assert caught.value.param == "training_file"
