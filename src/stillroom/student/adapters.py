"""LoRA: small trained matrices beside frozen weights, through peft.

Owns the defaults of an adapter. Loading and saving check nothing: `base_models` and `checkpoint` do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from stillroom.errors import BaseModelUnusable


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The shape of a new adapter."""

    rank: int = 16
    alpha: int = 32
    """The adapter's output is scaled by alpha / rank."""
    targets: str = "all-linear"
    """Which layers get one; "all-linear" is every linear layer but the output head."""


def add_adapter(model: PreTrainedModel, lora: Lora) -> PeftModel:
    """The model with a fresh adapter, of which only the adapter trains. Draws from torch's global generator."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.targets,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    with _without_peft_warnings():
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def load_adapter(model: PreTrainedModel, folder: Path, *, trainable: bool) -> PeftModel:
    """The model with the adapter of a folder, which holds safetensors only."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise BaseModelUnusable(f"{folder} has no adapter_model.safetensors.", param="model")
    with _without_peft_warnings():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, local_files_only=True)


def merged(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter added into its weights."""
    merged_model = model.merge_and_unload()
    assert isinstance(merged_model, PreTrainedModel)
    return merged_model


@contextmanager
def _without_peft_warnings() -> Iterator[None]:
    """peft 0.21 asks models for `is_gradient_checkpointing`, which transformers 5.23 has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
