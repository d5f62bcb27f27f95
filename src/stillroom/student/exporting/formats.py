"""What a student can be exported as. Needs no torch: the server checks a request by it."""

from __future__ import annotations

import enum

from stillroom.errors import InvalidRequest
from stillroom.student.hyperparameters import Training


class Format(enum.StrEnum):
    SAFETENSORS = "safetensors"
    """All weights, for transformers and whatever reads its folders."""
    ADAPTER = "adapter"
    """The adapter alone, for peft on the base model it was trained on."""
    GGUF = "gguf"
    """One file, for llama.cpp and what is built on it."""


PRECISIONS: dict[Format, tuple[str, ...]] = {
    Format.SAFETENSORS: ("f32", "bf16", "f16"),
    Format.ADAPTER: ("f32",),
    Format.GGUF: ("f16", "f32", "bf16", "q8_0"),
}
"""Number formats of the weights; the first is taken when none is asked for."""


def format_of(name: str) -> Format:
    """Raises InvalidRequest for a name that is none."""
    if name not in list(Format):
        raise InvalidRequest(f"The format '{name}' is none of {', '.join(Format)}.", param="format")
    return Format(name)


def check_training(kind: Format, training: Training, model: str) -> None:
    """Raises InvalidRequest for an adapter of a model that has none."""
    if kind is Format.ADAPTER and training is Training.FULL:
        raise InvalidRequest(
            f"{model} has no adapter: all of its weights were trained. Export it as safetensors or gguf.",
            param="format",
        )


def precision_of(kind: Format, name: str | None) -> str:
    """Raises InvalidRequest for one that the format cannot have."""
    choices = PRECISIONS[kind]
    if name is not None and name not in choices:
        remedy = (
            f"choose one of {', '.join(choices)}" if len(choices) > 1 else "leave it out: there is nothing to choose"
        )
        raise InvalidRequest(f"'{name}' is no precision for {kind}; {remedy}.", param="precision")
    return name or choices[0]
