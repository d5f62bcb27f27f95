"""In which numbers a model is held and computed: float32, bfloat16, or 4 bits below an adapter.

The rule, for `precision = "auto"`:

- **float32 on a CPU**, also where it multiplies bfloat16 natively: a run resumes bit for bit and a student
  answers with the tokens it was trained to, whatever CPU either is on. Where bfloat16 is not native it would
  be many times slower. "bfloat16" may be asked for; where it is emulated the job is told.
- **bfloat16 on a GPU** that computes it natively, float32 on older ones.
- The **built-in student** is float32 everywhere: it is too small to gain, and learns at rates that need it.

In bfloat16 a small update of a weight is lost in rounding. So what is *trained* is float32 always: an
adapter beside a frozen base in bfloat16, or all weights, which autocast rounds for each multiplication.
What is served is held in the numbers it is computed in.

Quantization "4bit" (QLoRA) opens the frozen base below an adapter in NF4 through bitsandbytes. Such an
adapter has learned to correct the rounded weights, so it is served on the same rounded weights, written out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from stillroom.errors import ConfigurationError, MissingExtra

PRECISIONS = ("auto", "float32", "bfloat16")
QUANTIZATIONS = ("none", "4bit")
_NATIVE_ON_CPU = ("avx512_bf16", "amx_bf16", "bf16")
"""What torch calls it where a CPU has instructions for bfloat16; the last is 64-bit Arm's."""


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The numbers that a base is computed in, by the rule above."""
    if precision not in PRECISIONS:
        raise ConfigurationError(f"The precision is {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and has_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the machine computes it in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _NATIVE_ON_CPU)


def notes_on(precision: str, device: torch.device) -> tuple[str, ...]:
    """What its owner should know of a precision that was asked for."""
    if precision != "bfloat16" or has_bfloat16(device):
        return ()
    where = "GPU" if device.type == "cuda" else "CPU"
    return (f"This machine's {where} has no bfloat16 and emulates it, many times slower than float32 would be.",)


def is_quantized(quantization: str) -> bool:
    if quantization not in QUANTIZATIONS:
        raise ConfigurationError(f"The quantization is {quantization!r}; choose one of {', '.join(QUANTIZATIONS)}.")
    return quantization != "none"


def four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """How a base is opened for QLoRA: NF4, its scales rounded too, multiplied in `dtype`."""
    if find_spec("bitsandbytes") is None:
        raise MissingExtra(
            "Opening a base in 4 bits needs `pip install 'stillroom[qlora]'` where jobs run and students are served."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_one_layout(model: nn.Module) -> None:
    """Without this, bitsandbytes would pack the weights anew on some CPUs whenever nothing is trained, and what is
    validated would differ from what is trained, in the third digit."""
    modules: Iterable[Any] = model.modules()
    for module in modules:
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def written_out(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A base of 4 bits as an ordinary one that has the same, rounded, weights."""
    dequantize: Callable[..., Any] = model.dequantize
    opened = dequantize(dtype)
    assert isinstance(opened, PreTrainedModel)
    return opened
