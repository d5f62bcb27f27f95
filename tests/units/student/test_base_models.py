"""What may be opened, and how the rest is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralForCausalLM

from stillroom.errors import BaseModelUnusable
from stillroom.student.bases.base_models import Student, open_artefact, open_base
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.chats.examples import Row
from stillroom.student.hyperparameters import Hyperparameters

from .conftest import save_tiny_base


def _open(path: str | Path, tmp_path: Path) -> Student:
    reference = BaseReference(name="mine", path=str(path), revision=None)
    return open_base(reference, texts=list, tokenizer_folder=tmp_path / "unused", wanted=Hyperparameters(), seed=1)


@pytest.fixture
def folder(tmp_path: Path, ticket_rows: list[Row]) -> Path:
    return save_tiny_base(tmp_path / "base", ticket_rows, "qwen3")


def test_a_folder_of_safetensors_opens(folder: Path, tmp_path: Path) -> None:
    student = _open(folder, tmp_path)
    assert student.context_tokens == 512 and student.notes == ()


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _code_in_a_config(folder: Path) -> None:
    _edit(folder / "config.json", vision={"auto_map": {"AutoModel": "evil.Model"}})


def _code_in_the_tokenizer(folder: Path) -> None:
    _edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _no_language_model(folder: Path) -> None:
    _edit(folder / "config.json", model_type="clip", architectures=["CLIPModel"])


def _sliding_windows(folder: Path) -> None:
    _edit(
        folder / "config.json",
        use_sliding_window=True,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_only_pickles, "pickled weights .*safetensors"),
        (_code_in_a_config, "auto_map"),
        (_code_in_the_tokenizer, "auto_map"),
        (_no_tokenizer, "no tokenizer"),
        (_no_config, "config.json"),
        (_cut_weights, "cannot be opened"),
        (_no_language_model, "causal language model"),
        (_sliding_windows, "full attention"),
    ],
)
def test_an_unusable_folder_is_refused_by_name_with_a_remedy(
    folder: Path, tmp_path: Path, spoil: Any, words: str
) -> None:
    spoil(folder)
    with pytest.raises(BaseModelUnusable, match=words) as caught:
        _open(folder, tmp_path)
    assert str(folder) in caught.value.message


def test_a_base_of_windows_has_the_context_of_one_within_which_it_is_the_same(
    tmp_path: Path, ticket_rows: list[Row]
) -> None:
    folder = save_tiny_base(tmp_path / "windows", ticket_rows, "mistral")
    _edit(folder / "config.json", sliding_window=24)
    student = _open(folder, tmp_path)
    assert student.context_tokens == 24
    assert "limited to one, 24 tokens" in student.notes[0]
    ids = torch.arange(24)[None] % 50
    with torch.no_grad():
        windowed = MistralForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
        ours = student.model(ids).logits
        beyond = torch.arange(30)[None] % 50
        differs = MistralForCausalLM.from_pretrained(folder, dtype=torch.float32)(beyond).logits
        assert torch.allclose(ours, windowed, atol=1e-5)
        assert not torch.allclose(student.model(beyond).logits, differs, atol=1e-5)


def test_a_base_without_chat_template_gets_ours_and_its_owner_is_told(tmp_path: Path, ticket_rows: list[Row]) -> None:
    folder = save_tiny_base(tmp_path / "bare", ticket_rows, "llama", chat_template=None)
    student = _open(folder, tmp_path)
    assert "no chat template" in student.notes[0]
    assert student.template.encode_prompt([{"role": "user", "content": "hi"}])


def test_a_folder_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnusable, match="does not exist"):
        _open(tmp_path / "nowhere", tmp_path)


def test_a_hub_id_that_cannot_be_fetched_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BaseModelUnusable, match="nobody/nothing is not in the local cache"):
        _open("nobody/nothing", tmp_path)


def test_a_changed_model_folder_is_not_served(tmp_path: Path, trained_folder: Path) -> None:
    copy = shutil.copytree(trained_folder, tmp_path / "copy")
    assert open_artefact(copy).context_tokens == 8192
    _edit(copy / "config.json", rms_norm_eps=0.5)
    with pytest.raises(BaseModelUnusable, match=r"config\.json is missing or was changed"):
        open_artefact(copy)
