"""Real tiny models: random weights, real tokenizers, real folders. Nothing is mocked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from stillroom.student.bases.base_models import Student, open_base
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.chats.examples import Row, encode_rows, read_rows
from stillroom.student.chats.template import CHATML
from stillroom.student.chats.tokenizer import train_tokenizer
from stillroom.student.hyperparameters import Hyperparameters, resolve
from stillroom.student.serving.engine import Engine
from stillroom.student.training.loop import Run, train

from .nursery import Nursery
from .tickets import tickets

SCRATCH = BaseReference(name="scratch-small", path=None, revision=None)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Threads of several test processes on one core spin against each other.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    # What sharded models and reports import when they are needed.
    with Nursery(["torch._dynamo", "matplotlib.backends.backend_agg", "PIL.PngImagePlugin"]) as opened:
        yield opened


@pytest.fixture
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' norms compute in float32 whatever the model's type, which hides what is below 1e-7."""

    def norm(self: Any, hidden: Tensor) -> Tensor:
        variance = hidden.pow(2).mean(-1, keepdim=True)
        return self.weight * hidden * torch.rsqrt(variance + self.variance_epsilon)

    for kind in ("llama", "qwen3", "phi3"):
        module = __import__(f"transformers.models.{kind}.modeling_{kind}", fromlist=["x"])
        monkeypatch.setattr(getattr(module, f"{kind.capitalize()}RMSNorm"), "forward", norm)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def open_scratch(folder: Path, rows: list[Row], *, seed: int = 1) -> Student:
    return open_base(
        SCRATCH,
        texts=lambda: (text for row in rows for text in row.texts()),
        tokenizer_folder=folder / "tokenizer",
        wanted=Hyperparameters(),
        seed=seed,
    )


def trained_run(
    folder: Path,
    rows: list[Row],
    *,
    base: BaseReference = SCRATCH,
    hyperparameters: Hyperparameters,
    seed: int = 1,
    valid: list[Row] | None = None,
) -> list[dict[str, Any]]:
    """Trains in this process and gives the events."""
    folder.mkdir(parents=True, exist_ok=True)
    student = open_base(
        base,
        texts=lambda: (text for row in rows for text in row.texts()),
        tokenizer_folder=folder / "tokenizer",
        wanted=replace(hyperparameters, lora_rank=4) if base.path else hyperparameters,
        seed=seed,
    )
    examples = encode_rows(rows, student.template, context_tokens=student.context_tokens)
    events: list[dict[str, Any]] = []
    run = Run(
        folder=folder,
        student=student,
        model_name="ft:test",
        train=examples,
        valid=encode_rows(valid, student.template, context_tokens=student.context_tokens) if valid else [],
        numbers=resolve(hyperparameters, num_examples=len(examples), method=student.method),
        seed=seed,
        checkpoint_seconds=1000,
        fingerprint="",
    )
    train(run, emit=lambda event: events.append(dict(event)), stop=lambda: False)
    return events


@pytest.fixture(scope="session")
def ticket_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "tickets.jsonl", tickets(24, seed=1))


@pytest.fixture(scope="session")
def ticket_rows(ticket_file: Path) -> list[Row]:
    return read_rows(ticket_file)


def save_tiny_base(folder: Path, rows: list[Row], architecture: str, *, chat_template: str | None = CHATML) -> Path:
    """A random Llama or Qwen3 with a tokenizer, as someone would have it in a folder."""
    tokenizer = train_tokenizer(text for row in rows for text in row.texts())
    tokenizer.chat_template = chat_template
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        # Wide enough that likeliest tokens differ clearly: rounding must not decide greedy answers.
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    kinds: dict[str, Any] = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
    }
    config, model = kinds[architecture]
    model(config(**shape)).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session", params=["llama", "qwen3"])
def tiny_base(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ticket_rows: list[Row]
) -> BaseReference:
    folder = save_tiny_base(tmp_path_factory.mktemp(request.param), ticket_rows, request.param)
    return BaseReference(name=f"tiny-{request.param}", path=str(folder), revision=None)


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory, ticket_rows: list[Row]) -> Path:
    """A scratch student after two epochs: it knows little, but writes more than noise."""
    folder = tmp_path_factory.mktemp("trained")
    torch.set_num_threads(1)
    events = trained_run(folder, ticket_rows, hyperparameters=Hyperparameters(n_epochs=2, batch_size=4))
    return Path(events[-1]["path"])


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close()
