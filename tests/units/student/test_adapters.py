"""Which weights move, in which numbers they are held, and what backward keeps."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from stillroom.errors import ConfigurationError, InvalidRequest, MissingExtra
from stillroom.student import NO_ALARM
from stillroom.student.bases.adapters import recompute_activations
from stillroom.student.bases.base_models import Student, open_artefact, open_base, open_untuned
from stillroom.student.bases.checkpoint import BaseReference, read_artefact
from stillroom.student.bases.precision import compute_dtype, has_bfloat16, notes_on
from stillroom.student.chats.examples import Row, encode_rows
from stillroom.student.hyperparameters import Hyperparameters, Lora, Training

from .conftest import save_tiny_base, trained_run

CPU = torch.device("cpu")
FULL = Hyperparameters(training=Training.FULL, n_epochs=2, batch_size=4, learning_rate_multiplier=50.0)


def opened(base: BaseReference, tmp_path: Path, wanted: Hyperparameters, **how: str) -> Student:
    reference = BaseReference(name=base.name, path=base.path, revision=None, **how)
    return open_base(reference, texts=list, tokenizer_folder=tmp_path / "unused", wanted=wanted, seed=1)


def trained_names(student: Student) -> set[str]:
    return {name for name, each in student.model.named_parameters() if each.requires_grad}


# --- which weights --------------------------------------------------------------------------------------


def test_an_adapter_has_the_rank_alpha_and_modules_that_were_asked_for(
    tiny_base: BaseReference, tmp_path: Path
) -> None:
    wanted = Hyperparameters(lora_rank=3, lora_alpha=5, lora_targets=("v_proj", "layers.1.mlp.up_proj"))
    student = opened(tiny_base, tmp_path, wanted)
    assert isinstance(student.model, PeftModel)
    config = student.model.peft_config["default"]
    assert (config.r, config.lora_alpha) == (3, 5)
    modules = {name.partition(".lora_")[0].removeprefix("base_model.model.model.") for name in trained_names(student)}
    assert modules == {"layers.0.self_attn.v_proj", "layers.1.self_attn.v_proj", "layers.1.mlp.up_proj"}
    assert student.method.lora == Lora(rank=3, alpha=5, targets=("v_proj", "layers.1.mlp.up_proj"))


@pytest.mark.parametrize("name", ["w_proj", "lm_head", "embed_tokens", "proj", "norm"])
def test_a_module_that_the_model_lacks_is_refused_with_those_it_has(
    tiny_base: BaseReference, tmp_path: Path, name: str
) -> None:
    with pytest.raises(
        InvalidRequest, match=f"names {name}, but .* has q_proj, k_proj, v_proj, o_proj, gate"
    ) as caught:
        opened(tiny_base, tmp_path, Hyperparameters(lora_targets=("q_proj", name)))
    assert caught.value.param == "hyperparameters.lora_targets"
    assert "lm_head" not in caught.value.message.partition("it has")[2]


def test_all_weights_of_a_base_can_be_trained_and_the_artefact_stands_alone(
    tiny_base: BaseReference, tmp_path: Path, ticket_rows: list[Row]
) -> None:
    events = trained_run(tmp_path / "run", ticket_rows, base=tiny_base, hyperparameters=FULL)
    losses = [event["train_loss"] for event in events if event["type"] == "step"]
    assert losses[-1] < losses[0]
    folder = Path(events[-1]["path"])
    assert read_artefact(folder).base == tiny_base
    served = open_artefact(folder).model.state_dict()
    alone = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    before = open_untuned(tiny_base).model.state_dict()
    assert all(torch.equal(served[name], alone[name]) for name in alone)
    assert not torch.equal(served["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"])


def test_a_fine_tune_with_all_weights_goes_on_so_and_still_names_its_base(
    tiny_base: BaseReference, tmp_path: Path, ticket_rows: list[Row]
) -> None:
    first = trained_run(tmp_path / "first", ticket_rows, base=tiny_base, hyperparameters=FULL)
    again = BaseReference(name="ft:first", path=first[-1]["path"], revision=None)
    student = opened(again, tmp_path, Hyperparameters())
    assert (student.training, student.base) == (Training.FULL, tiny_base)
    assert student.method.recipe.learning_rate == 2e-5
    with pytest.raises(InvalidRequest, match="goes on so"):
        opened(again, tmp_path, Hyperparameters(training=Training.ADAPTER))


def test_a_base_of_windows_keeps_their_context_when_all_its_weights_were_trained(
    tmp_path: Path, ticket_rows: list[Row]
) -> None:
    folder = save_tiny_base(tmp_path / "windows", ticket_rows, "mistral")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 200}))
    base = BaseReference(name="windows", path=str(folder), revision=None)
    once = replace(FULL, n_epochs=1)
    events = trained_run(tmp_path / "run", ticket_rows, base=base, hyperparameters=once)
    assert open_artefact(Path(events[-1]["path"])).context_tokens == open_untuned(base).context_tokens == 200


# --- what backward keeps --------------------------------------------------------------------------------


def kept_bytes_and_gradients(student: Student, rows: list[Row]) -> tuple[int, float, dict[str, Tensor]]:
    """What one pass keeps for its backward, its loss and its gradients."""
    (example, *_) = encode_rows(rows[:1], student.template, context_tokens=512)
    ids = torch.tensor([list(example.ids)])
    kept = 0

    def count(saved: Tensor) -> Tensor:
        nonlocal kept
        kept += saved.numel() * saved.element_size()
        return saved

    student.model.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        loss = student.model(input_ids=ids, labels=ids).loss
    loss.backward()
    found = {name: each.grad.clone() for name, each in student.model.named_parameters() if each.grad is not None}
    student.model.zero_grad()
    return kept, float(loss.detach()), found


@pytest.mark.parametrize("training", Training)
def test_recomputing_activations_changes_neither_loss_nor_gradients_and_keeps_less(
    tiny_base: BaseReference, tmp_path: Path, ticket_rows: list[Row], training: Training
) -> None:
    student = opened(tiny_base, tmp_path, Hyperparameters(training=training))
    kept, loss, gradients = kept_bytes_and_gradients(student, ticket_rows)
    recompute_activations(student.model)
    kept_now, loss_now, gradients_now = kept_bytes_and_gradients(student, ticket_rows)
    assert loss_now == loss
    assert gradients.keys() == gradients_now.keys() == trained_names(student)
    assert all(torch.equal(gradients[name], gradients_now[name]) for name in gradients)
    assert kept_now < 0.5 * kept


# --- in which numbers -----------------------------------------------------------------------------------


def test_a_cpu_computes_in_float32_unless_bfloat16_is_asked_for() -> None:
    assert compute_dtype("auto", CPU) is compute_dtype("float32", CPU) is torch.float32
    assert compute_dtype("bfloat16", CPU) is torch.bfloat16
    with pytest.raises(ConfigurationError, match="choose one of auto, float32, bfloat16"):
        compute_dtype("float16", CPU)


def test_a_machine_that_emulates_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert not has_bfloat16(CPU)
    assert "CPU has no bfloat16" in notes_on("bfloat16", CPU)[0]
    assert notes_on("auto", CPU) == notes_on("float32", CPU) == ()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert notes_on("bfloat16", CPU) == ()


def dtypes(student: Student, *, trained: bool) -> set[torch.dtype]:
    return {each.dtype for each in student.model.parameters() if each.requires_grad is trained}


def test_what_is_trained_is_float32_and_what_is_frozen_as_asked(tiny_base: BaseReference, tmp_path: Path) -> None:
    adapter = opened(tiny_base, tmp_path, Hyperparameters(), precision="bfloat16")
    assert (dtypes(adapter, trained=True), dtypes(adapter, trained=False)) == ({torch.float32}, {torch.bfloat16})
    whole = opened(tiny_base, tmp_path, Hyperparameters(training=Training.FULL), precision="bfloat16")
    assert dtypes(whole, trained=True) == {torch.float32}
    assert whole.compute_dtype is torch.bfloat16


def test_what_is_served_is_held_as_it_is_computed_and_the_setting_travels_in_the_artefact(
    tiny_base: BaseReference, tmp_path: Path, ticket_rows: list[Row]
) -> None:
    halved = BaseReference(name=tiny_base.name, path=tiny_base.path, revision=None, precision="bfloat16")
    for wanted in (Hyperparameters(n_epochs=1), Hyperparameters(n_epochs=1, training=Training.FULL)):
        folder = tmp_path / str(wanted.training)
        events = trained_run(folder, ticket_rows, base=halved, hyperparameters=wanted)
        exact = trained_run(tmp_path / f"{wanted.training}-exact", ticket_rows, base=tiny_base, hyperparameters=wanted)
        # Rows share what they begin with in these numbers too: nobody was told that they cannot.
        assert {event["type"] for event in events} == {event["type"] for event in exact}
        losses, expected = ([e["train_loss"] for e in each if e["type"] == "step"] for each in (events, exact))
        assert losses == pytest.approx(expected, rel=0.01)
        assert losses != expected
        student = open_artefact(Path(events[-1]["path"]))
        assert {each.dtype for each in student.model.parameters()} == {torch.bfloat16}


def test_four_bits_cannot_be_trained_whole_and_an_unknown_number_of_bits_is_refused(
    tiny_base: BaseReference, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=r"opened in 4 bits, which cannot be trained.*remove `quantization`"):
        opened(tiny_base, tmp_path, Hyperparameters(training=Training.FULL), quantization="4bit")
    with pytest.raises(ConfigurationError, match="'3bit'; choose one of none, 4bit"):
        opened(tiny_base, tmp_path, Hyperparameters(), quantization="3bit")


def test_without_its_package_four_bits_are_refused_with_the_remedy(
    tiny_base: BaseReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent: Any = lambda name: None  # noqa: E731
    monkeypatch.setattr("stillroom.student.bases.precision.find_spec", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'stillroom\[qlora\]'"):
        opened(tiny_base, tmp_path, Hyperparameters(), quantization="4bit")


# --- what a library says that nobody asked --------------------------------------------------------------


def test_of_what_bitsandbytes_says_on_import_only_a_missing_kernel_for_4_bits_is_silenced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = find_spec("bitsandbytes")
    assert found is not None
    assert found.origin is not None
    assert f'"{NO_ALARM} ' in (Path(found.origin).parent / "backends" / "cpu" / "ops.py").read_text()
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning(f"{NO_ALARM} from kernels-community: %s.", "No module named 'kernels'")
    log.warning("Something else.")
    assert caplog.messages == ["Something else."]
