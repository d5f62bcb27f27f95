"""A student as one GGUF file, for llama.cpp and what is built on it.

Owns what llama.cpp must be told about a model of transformers: its shape, and its tensors by llama.cpp's names.
Its tokenizer is `gguf_tokenizer`'s; the format itself is the `gguf` package's, which llama.cpp's authors keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from stillroom.errors import InvalidRequest
from stillroom.student.exporting.gguf_tokenizer import add_tokenizer, name_for

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
"""By `model_type`."""
PRECISIONS = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
"""Of matrices; vectors are few and stay float32."""

Tell = Callable[[int, int], None]
"""Bytes done, and bytes in all."""


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    end_ids: Sequence[int],
    name: str,
    precision: str,
    tell: Tell,
) -> None:
    """The model, its adapter merged, with its tokenizer. Raises InvalidRequest for what llama.cpp cannot be told.

    Of `end_ids`, llama.cpp is told the tokenizer's own and one more; others it knows by how they are spelled.
    """
    architecture = _architecture_of(model)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_name(name_for(tokenizer, name))
    writer.add_file_type(PRECISIONS[precision][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _describe(writer, model, architecture)
    add_tokenizer(writer, tokenizer, rows=model.get_input_embeddings().weight.shape[0])
    for other in [token for token in end_ids if token != tokenizer.eos_token_id][:1]:
        writer.add_eot_token_id(other)
    _write_tensors(writer, path, list(_tensors(model, architecture, precision)), tell)


def _architecture_of(model: PreTrainedModel) -> gguf.MODEL_ARCH:
    config = model.config
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise InvalidRequest(
            f"A model of the architecture '{config.model_type}' cannot be exported as GGUF, only "
            f"{', '.join(ARCHITECTURES)}. Export it as safetensors, and convert that with llama.cpp's own script.",
            param="format",
        )
    if config.hidden_act not in ("silu", "swish"):
        raise InvalidRequest(
            f"llama.cpp knows no {config.model_type} whose activation is '{config.hidden_act}'. Export it as safetensors.",
            param="format",
        )
    return architecture


def _describe(writer: gguf.GGUFWriter, model: PreTrainedModel, architecture: gguf.MODEL_ARCH) -> None:
    config = model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(model.get_input_embeddings().weight.shape[0])
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    rope = dict(config.rope_parameters)
    writer.add_rope_dimension_count(int(_head_size(config) * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    _describe_scaling(writer, config.model_type, rope)


def _describe_scaling(writer: gguf.GGUFWriter, model_type: str, rope: dict[str, Any]) -> None:
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
    elif kind not in ("default", "llama3"):  # llama3's is a tensor
        raise InvalidRequest(
            f"Positions of the kind '{kind}', which this {model_type} has, cannot be exported as GGUF. Export it as "
            "safetensors, and convert that with llama.cpp's own script.",
            param="format",
        )


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One tensor of the file, made when it is written: a large model is never there twice."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    make: Callable[[], NDArray[Any]]

    @property
    def size(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.shape)) // block * size


def _tensors(model: PreTrainedModel, architecture: gguf.MODEL_ARCH, precision: str) -> Iterator[_Entry]:
    config = model.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    factors = _llama3_factors(config)
    if factors is not None:
        yield _entry("rope_freqs.weight", factors, PRECISIONS["f32"][0])
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, tensor in model.state_dict().items():
        if is_tied and name.startswith("lm_head."):
            continue
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise InvalidRequest(
                f"llama.cpp has no place for {name} of this {config.model_type}. Export it as safetensors.",
                param="format",
            )
        kind = PRECISIONS[precision][0]
        if tensor.ndim < 2:
            kind = gguf.GGMLQuantizationType.F32
        elif tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = gguf.GGMLQuantizationType.F16  # rows that are no whole number of blocks
        yield _entry(known, tensor, kind, heads=_interleaved_heads(config, architecture, name))


def _entry(name: str, tensor: Tensor, kind: gguf.GGMLQuantizationType, *, heads: int | None = None) -> _Entry:
    def make() -> NDArray[Any]:
        values: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
        return gguf.quantize(_interleaved(values, heads) if heads else values, kind)

    return _Entry(name=name, shape=tuple(tensor.shape), kind=kind, make=make)


def _interleaved_heads(config: Any, architecture: gguf.MODEL_ARCH, name: str) -> int | None:
    """Llama's queries and keys: llama.cpp turns neighbouring numbers of a head, transformers its two halves."""
    if architecture is not gguf.MODEL_ARCH.LLAMA:
        return None
    if "q_proj" in name:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if "k_proj" in name else None


def _interleaved(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def _llama3_factors(config: Any) -> Tensor | None:
    """What llama.cpp divides each frequency by, where positions are stretched as in Llama 3.1."""
    rope = dict(config.rope_parameters)
    if rope.get("rope_type") != "llama3":
        return None
    size = _head_size(config)
    plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, device="cpu")
    factors: Tensor = plain / stretched
    return factors


def _write_tensors(writer: gguf.GGUFWriter, path: Path, entries: Sequence[_Entry], tell: Tell) -> None:
    for entry in entries:
        shape = gguf.quant_shape_to_byte_shape(entry.shape, entry.kind) if _is_packed(entry.kind) else entry.shape
        writer.add_tensor_info(entry.name, shape, _dtype(entry.kind), entry.size, raw_dtype=entry.kind)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    done, total = 0, sum(entry.size for entry in entries)
    for entry in entries:
        writer.write_tensor_data(entry.make())
        done += entry.size
        tell(done, total)
    writer.close()


def _is_packed(kind: gguf.GGMLQuantizationType) -> bool:
    return kind not in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)


def _dtype(kind: gguf.GGMLQuantizationType) -> np.dtype[Any]:
    known = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}
    return np.dtype(known.get(kind, np.uint8))
