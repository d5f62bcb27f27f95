"""Memory is planned for before the first step, and running out of it is answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn
from transformers import GraniteConfig, GraniteForCausalLM

from stillroom.errors import TrainingFailed
from stillroom.student.bases.base_models import Student
from stillroom.student.chats.examples import Row, encode_rows
from stillroom.student.chats.template import Example
from stillroom.student.hyperparameters import Hyperparameters, resolve
from stillroom.student.training.memory import left_in_groups, needs_of, plan
from stillroom.student.training.objective import Objective
from stillroom.student.training.packing import PADDED, Passes
from stillroom.student.training.resume import keep_plan, kept_plan
from stillroom.student.training.trainer import Trainer

from .conftest import open_scratch


def a_row(tokens: int, *, first: int = 1) -> Example:
    ids = array("i", [first + at % 90 for at in range(tokens)])
    return Example(ids=ids, mask=bytes(tokens - 1) + b"\1", line=7)


@pytest.fixture
def student(tmp_path: Path, ticket_rows: list[Row]) -> Student:
    return open_scratch(tmp_path, ticket_rows)


def test_what_does_not_fit_is_computed_in_smaller_passes_then_twice_then_not_at_all(student: Student) -> None:
    objective = Objective(student.model.train())
    needs, longest = needs_of(objective), a_row(10_000)

    def with_room(room: float) -> Passes:
        resident = psutil.Process().memory_info().rss
        return plan(
            objective, longest=longest, most_tokens=16_384, limit_bytes=int(resident + (needs.fixed + room) / 0.8)
        )

    assert with_room(25_000 * needs.per_token) == Passes(max_tokens=16_384)
    assert with_room(15_000 * needs.per_token) == Passes(max_tokens=8192)
    assert needs.per_token_recomputed < 0.8 * needs.per_token
    assert with_room(7_000 * needs.per_token).recomputed
    with pytest.raises(
        TrainingFailed, match=r"Line 7, the longest, has 10000 tokens; training on it takes about .* GB"
    ) as caught:
        with_room(7_000 * needs.per_token_recomputed)
    assert caught.value.code == "out_of_memory"


def test_a_model_that_is_more_than_body_and_head_needs_room_for_all_logits_of_a_pass() -> None:
    def needed(vocabulary: int, *, logits_scaling: float) -> float:
        config = GraniteConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            logits_scaling=logits_scaling,
        )
        return needs_of(Objective(GraniteForCausalLM(config).train())).per_token

    scaled = needed(5000, logits_scaling=8.0) - needed(1000, logits_scaling=8.0)
    assert scaled >= 2 * 4000 * torch.float32.itemsize  # the logits and their gradients
    assert needed(5000, logits_scaling=1.0) == needed(1000, logits_scaling=1.0)


PEAK = """
import json, psutil, torch
from stillroom.student.training.memory import needs_of, peak_bytes
from stillroom.student.training.packing import shared
from tests.units.student.test_memory import *
from transformers import Qwen3Config, Qwen3ForCausalLM
torch.set_num_threads(1)
torch.manual_seed(0)
shape = Qwen3Config(vocab_size=500, hidden_size=128, intermediate_size=384, num_hidden_layers=6,
                    num_attention_heads=4, num_key_value_heads=4, head_dim=32)
model = Qwen3ForCausalLM(shape).train()
objective = Objective(model)
needs = needs_of(objective)
for recomputed, per_token in ((True, needs.per_token_recomputed), (False, needs.per_token)):  # the smaller peak first
    model.activation_checkpointing_enable({"use_reentrant": False}) if recomputed else model.activation_checkpointing_disable()
    objective.backward(shared([a_row(50)]), scale=1.0)  # what only the first pass needs
    before, tokens = psutil.Process().memory_info().rss, 3000
    objective.backward(shared([a_row(tokens)]), scale=1.0)
    print(json.dumps([tokens * per_token, peak_bytes(torch.device("cpu")) - before]))
"""


def test_a_pass_takes_about_as_much_as_was_planned() -> None:
    """The other way to know: what the operating system says that a process took at most."""
    # Without the second, glibc keeps what was freed on the way, which is a matter of its own.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    print(figures)
    assert len(figures) == 2
    for planned, taken in figures:
        assert 0.5 * planned < taken < 1.2 * planned


def test_limits_of_containers_count_where_they_are_lowest(tmp_path: Path) -> None:
    own = tmp_path / "groups" / "outer" / "inner"
    own.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("1:cpu:/else\n0::/outer/inner\n")
    (own / "memory.max").write_text("max\n")
    assert list(left_in_groups(tmp_path / "groups", membership)) == []
    for name, text in {"max": "1000\n", "current": "700\n", "stat": "anon 1\ninactive_file 50\n"}.items():
        (own.parent / f"memory.{name}").write_text(text)
    assert list(left_in_groups(tmp_path / "groups", membership)) == [350]


class Shortage:
    """Stands before a model and lets no more than so many tokens in at once, so many times."""

    def __init__(self, model: nn.Module, *, tokens: int, times: int) -> None:
        self.tokens, self.times = tokens, times
        model.get_input_embeddings().register_forward_pre_hook(self._check)

    def _check(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].numel() > self.tokens and self.times > 0:
            self.times -= 1
            raise torch.OutOfMemoryError("out of memory")


def a_trainer(student: Student, events: list[dict[str, Any]]) -> Trainer:
    numbers = resolve(Hyperparameters(n_epochs=1, batch_size=4), num_examples=8, method=student.method)
    return Trainer(student, numbers, emit=lambda event: events.append(dict(event)))


def test_a_pass_that_runs_out_of_memory_is_halved_once_and_said(tmp_path: Path, ticket_rows: list[Row]) -> None:
    first, second = (open_scratch(tmp_path / name, ticket_rows) for name in "ab")
    examples = encode_rows(ticket_rows[:4], first.template, context_tokens=8192)
    events: list[dict[str, Any]] = []
    halved, plain = a_trainer(first, events), a_trainer(second, [])
    for trainer in (halved, plain):
        trainer.plan(examples, Passes(max_tokens=8192), limit_bytes=None)
    Shortage(first.model, tokens=250, times=1)
    expected, found = plain.step(1, examples), halved.step(1, examples)
    assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
    assert found["train_mean_token_accuracy"] == expected["train_mean_token_accuracy"]
    assert halved.passes.max_tokens < 250 < plain.passes.max_tokens
    assert [event["message"] for event in events] == [
        f"Memory ran out; from here on a pass computes at most {halved.passes.max_tokens} tokens."
    ]
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_running_out_of_memory_a_second_time_ends_the_run(tmp_path: Path, ticket_rows: list[Row]) -> None:
    student = open_scratch(tmp_path, ticket_rows)
    examples = encode_rows(ticket_rows[:4], student.template, context_tokens=8192)
    trainer = a_trainer(student, [])
    trainer.plan(examples, Passes(max_tokens=8192), limit_bytes=None)
    Shortage(student.model, tokens=1, times=2)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.step(1, examples)


def test_layers_computed_twice_give_the_same_weights(tmp_path: Path, ticket_rows: list[Row]) -> None:
    plain, twice = (open_scratch(tmp_path / name, ticket_rows) for name in "ab")
    examples = encode_rows(ticket_rows[:4], plain.template, context_tokens=8192)
    for student, recomputed in ((plain, False), (twice, True)):
        trainer = a_trainer(student, [])
        trainer.plan(examples, replace(Passes(max_tokens=8192), recomputed=recomputed), limit_bytes=None)
        trainer.step(1, examples)
    assert twice.model.is_activation_checkpointing
    for one, other in zip(plain.model.parameters(), twice.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_gradient_that_is_not_finite_is_said_before_it_moves_a_weight(tmp_path: Path, ticket_rows: list[Row]) -> None:
    student = open_scratch(tmp_path, ticket_rows)
    examples = encode_rows(ticket_rows[:4], student.template, context_tokens=8192)
    trainer = a_trainer(student, [])
    trainer.plan(examples, Passes(max_tokens=8192), limit_bytes=None)
    before = [each.detach().clone() for each in student.model.parameters()]
    next(student.model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingFailed, match=r"The gradient's size is (nan|inf) at step 1"):
        trainer.step(1, examples)
    assert all(torch.equal(one, other) for one, other in zip(before, student.model.parameters(), strict=True))


def test_a_run_that_begins_anew_is_computed_as_it_was_whatever_memory_is_free_by_then(tmp_path: Path) -> None:
    first = Passes(max_tokens=512, recomputed=True, shares=False)
    keep_plan(tmp_path / "resume", "this run", first)
    assert kept_plan(tmp_path / "resume", "this run") == first
    assert kept_plan(tmp_path / "resume", "another run") is None
    written = tmp_path / "resume" / "plan.json"
    written.write_bytes(written.read_bytes().replace(b"512", b"513"))
    assert kept_plan(tmp_path / "resume", "this run") is None


def test_a_run_begun_on_a_tree_does_not_go_on_beside_each_other(tmp_path: Path, ticket_rows: list[Row]) -> None:
    student = open_scratch(tmp_path, ticket_rows)
    examples = encode_rows(ticket_rows[:4], student.template, context_tokens=8192)
    student.model.register_module("dropping", nn.Dropout(0.1))
    with pytest.raises(TrainingFailed, match="was begun with rows that share"):
        a_trainer(student, []).plan(examples, Passes(max_tokens=8192), limit_bytes=None)
    trainer = a_trainer(student, [])
    trainer.plan(examples, Passes(max_tokens=8192, shares=False), limit_bytes=None)
    assert trainer.layout is PADDED
