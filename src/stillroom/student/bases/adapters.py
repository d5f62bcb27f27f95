"""LoRA: small trained matrices beside frozen weights, through peft; and backward passes that keep less.

Loading and saving check nothing: `base_models` and `checkpoint` do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stillroom.errors import BaseModelUnusable, InvalidRequest
from stillroom.student.hyperparameters import Lora

ALL_LINEAR = "all-linear"


def add_adapter(model: PreTrainedModel, lora: Lora) -> PeftModel:
    """The model with a fresh adapter, of which only the adapter trains. Draws from torch's global generator.

    The adapter's weights are float32 also beside a base in bfloat16 or 4 bits, so that small updates count.
    Raises InvalidRequest for target modules that the model does not have.
    """
    if lora.targets != ALL_LINEAR:
        _check_targets(model, lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    with without_peft_warnings():
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    assert isinstance(adapted, PeftModel)
    return adapted


def load_adapter(model: PreTrainedModel, folder: Path, *, trainable: bool) -> PeftModel:
    """The model with the adapter of a folder, which holds safetensors only."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise BaseModelUnusable(f"{folder} has no adapter_model.safetensors.", param="model")
    with without_peft_warnings():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, local_files_only=True)


def merged(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter added into its weights."""
    merged_model = model.merge_and_unload()
    assert isinstance(merged_model, PreTrainedModel)
    return merged_model


def recompute_activations(model: nn.Module) -> None:
    """Gradient checkpointing: a layer keeps its input alone, and backward computes the rest once more. Loss and
    gradients stay the same; a step takes about a third longer and a fraction of the memory. Works in train mode."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel)
    base.activation_checkpointing_enable({"use_reentrant": False})
    if isinstance(model, PeftModel):
        # Nothing before the first adapter is trained; without this the first layer's input would need no gradient.
        base.enable_input_require_grads()


def _check_targets(model: PreTrainedModel, targets: str | tuple[str, ...]) -> None:
    """Every name must be that of a linear module, or the end of one, as peft understands names."""
    linear = _linear_modules(model)
    for target in (targets,) if isinstance(targets, str) else targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            raise InvalidRequest(
                f"'lora_targets' names {target}, but the model has no such linear module; it has {known}.",
                param="hyperparameters.lora_targets",
            )


def _linear_modules(model: PreTrainedModel) -> list[str]:
    """By their full names. The output head is left to itself: it is often the embedding at the same time."""
    head = model.get_output_embeddings()
    kinds = (nn.Linear, Conv1D)
    return [name for name, module in model.named_modules() if isinstance(module, kinds) and module is not head]


@contextmanager
def without_peft_warnings() -> Iterator[None]:
    """peft 0.21 asks models for `is_gradient_checkpointing`, which transformers 5.23 has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
