"""Opens what a student is made from: the built-in small model, a folder or hub id, one of our fine-tunes.

Owns what we are willing to load: safetensors, no code from the folder, full attention in every layer, a
tokenizer. Anything else is refused with the folder and the remedy. Does not train and does not serve.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.cache_utils import DynamicLayer

from stillroom.errors import BaseModelUnusable, InvalidRequest
from stillroom.student.bases.adapters import add_adapter, load_adapter, merged
from stillroom.student.bases.checkpoint import Artefact, BaseReference, is_artefact, read_artefact, write_folder
from stillroom.student.bases.precision import (
    best_device,
    compute_dtype,
    four_bits,
    is_quantized,
    keep_one_layout,
    notes_on,
    written_out,
)
from stillroom.student.chats.template import CHATML, ChatTemplate
from stillroom.student.chats.tokenizer import train_tokenizer
from stillroom.student.hyperparameters import (
    BUILT_IN,
    Hyperparameters,
    Method,
    MethodType,
    Origin,
    Training,
    method_of,
)
from stillroom.student.manifest import origin_of

SCRATCH_SMALL = "scratch-small"
SCRATCH_CONTEXT_TOKENS = 8192
REMOVED_WINDOW = "stillroom_removed_window"

_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_OF_A_MODEL = (".safetensors", ".json", ".jinja", ".txt", ".model")
END_BYTES = 2**20
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, kw_only=True)
class Student:
    """A model that can be trained or served."""

    model: nn.Module
    template: ChatTemplate
    method: Method
    """How a job on this student trains it."""
    base: BaseReference
    """What a folder with an adapter needs beside it."""
    context_tokens: int
    compute_dtype: torch.dtype = torch.float32
    """What its products are computed in; trained weights are float32 whatever this is."""
    notes: tuple[str, ...] = ()
    """What its owner should be told."""

    @property
    def training(self) -> Training:
        """Which weights a job moves, and what the student's artefacts hold."""
        return self.method.training


def open_base(
    reference: BaseReference,
    *,
    texts: Callable[[], Iterable[str]],
    tokenizer_folder: Path,
    wanted: Hyperparameters,
    seed: int,
    method_type: MethodType = MethodType.SUPERVISED,
) -> Student:
    """A student ready for training. Weights that start at random are drawn from `seed`.

    The built-in model's tokenizer is made from `texts` and kept in `tokenizer_folder`, where a resumed run
    finds it; nothing else uses either. Raises InvalidRequest for a way of training that the base cannot have.
    """
    torch.manual_seed(seed)
    if reference.path is None:
        return _open_scratch(reference, texts, tokenizer_folder, method_of(wanted, BUILT_IN, method_type))
    folder = _folder_of(reference)
    method = method_of(wanted, origin_of(folder), method_type)
    if is_artefact(folder):
        return _open_artefact(folder, method, is_trained=True)
    student = _open_folder(folder, reference, method, is_trained=True)
    if method.lora is None:
        return student
    assert isinstance(student.model, PreTrainedModel)
    return replace(student, model=add_adapter(student.model, method.lora))


def open_artefact(folder: Path) -> Student:
    """One of our fine-tunes ready for serving, its adapter merged."""
    student = _open_artefact(folder, method_of(Hyperparameters(), origin_of(folder)), is_trained=False)
    return student if student.training is Training.FULL else replace(student, model=merged(student.model))


def open_untuned(reference: BaseReference) -> Student:
    """A base ready for serving with the weights it came with. The built-in model has none before its job."""
    if reference.path is None:
        raise BaseModelUnusable(f"'{reference.name}' has no weights before a job has trained it.", param="model")
    folder = _folder_of(reference)
    if is_artefact(folder):
        return open_artefact(folder)
    return _open_folder(folder, reference, method_of(Hyperparameters(), Origin()), is_trained=False)


def scratch_config(tokenizer: PreTrainedTokenizerBase) -> Qwen3Config:
    """About a million parameters: chosen as the smallest that learns a narrow task in a minute on two cores."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=SCRATCH_CONTEXT_TOKENS,
        # The usual 0.02 is for models many times as wide. With it, the first layers of one so narrow drown which
        # word is which, and behind a long system prompt some seeds never leave the plateau of guessing.
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _open_scratch(
    reference: BaseReference, texts: Callable[[], Iterable[str]], tokenizer_folder: Path, method: Method
) -> Student:
    if reference.name != SCRATCH_SMALL:
        raise BaseModelUnusable(
            f"'{reference.name}' has no path. Give a folder or hub id, or use '{SCRATCH_SMALL}'.",
            param="model",
        )
    if not tokenizer_folder.is_dir():
        made = train_tokenizer(texts())
        made.chat_template = CHATML
        made.model_max_length = SCRATCH_CONTEXT_TOKENS
        write_folder(tokenizer_folder, lambda to: made.save_pretrained(str(to)))
    tokenizer = _tokenizer_of(tokenizer_folder)
    return Student(
        model=Qwen3ForCausalLM(scratch_config(tokenizer)).to(best_device()),
        template=ChatTemplate(tokenizer, end_ids=[tokenizer.eos_token_id], name=SCRATCH_SMALL),
        method=method,
        base=reference,
        context_tokens=SCRATCH_CONTEXT_TOKENS,
    )


def _open_artefact(folder: Path, method: Method, *, is_trained: bool) -> Student:
    """A fine-tune of ours, to serve or to go on from: it keeps kind, tokenizer and template."""
    artefact = read_artefact(folder)
    if artefact.training is Training.FULL:
        return _open_full_artefact(folder, artefact, method, is_trained=is_trained)
    base = _open_folder(_folder_of(artefact.base), artefact.base, method, is_trained=is_trained)
    template = ChatTemplate(_tokenizer_of(folder), end_ids=artefact.end_ids, name=artefact.model_name)
    assert isinstance(base.model, PreTrainedModel)
    return replace(base, model=load_adapter(base.model, folder, trainable=is_trained), template=template)


def _open_full_artefact(folder: Path, artefact: Artefact, method: Method, *, is_trained: bool) -> Student:
    student = _open_folder(folder, artefact.base, method, is_trained=is_trained)
    template = ChatTemplate(student.template.tokenizer, end_ids=artefact.end_ids, name=artefact.model_name)
    # Where it came from stays what its first job opened, not the folder it lies in now.
    return replace(student, base=artefact.base, template=template)


def _open_folder(folder: Path, reference: BaseReference, method: Method, *, is_trained: bool) -> Student:
    """A folder of safetensors as a student whose adapter is still to be added."""
    check_folder(folder)
    tokenizer = _tokenizer_of(folder)
    notes: tuple[str, ...] = ()
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHATML
        notes = (f"{reference.name} has no chat template; a plain ChatML one is used.",)
    config = _config_of(folder)
    window = _remove_window(config)
    computed = _compute_dtype(reference)
    model = _weights_of(folder, config, reference, method, computed, is_trained=is_trained)
    _check_vocabulary(model, tokenizer, folder)
    context_tokens = min(_context_tokens(model, folder), window or sys.maxsize)
    template = ChatTemplate(tokenizer, end_ids=_end_ids(model, tokenizer, folder), name=reference.name)
    if not template.sanitizes:
        notes = (
            *notes,
            f"The chat template of {reference.name} reads control tokens that a message spells as real ones.",
        )
    if window:
        notes = (
            *notes,
            f"{reference.name} attends to windows; its context is limited to one, {context_tokens} tokens.",
        )
    return Student(
        model=model,
        template=template,
        method=method,
        base=_pinned(reference, folder),
        context_tokens=context_tokens,
        compute_dtype=computed,
        notes=(*notes, *notes_on(reference.precision, best_device())),
    )


def _compute_dtype(reference: BaseReference) -> torch.dtype:
    return torch.float32 if reference.path is None else compute_dtype(reference.precision, best_device())


def _weights_of(
    folder: Path,
    config: PreTrainedConfig,
    reference: BaseReference,
    method: Method,
    computed: torch.dtype,
    *,
    is_trained: bool,
) -> PreTrainedModel:
    """The model on its device, in the numbers that `precision` tells of."""
    if is_quantized(reference.quantization):
        if method.training is Training.FULL:
            raise InvalidRequest(
                f"'training' is \"full\", but {reference.name} is set to be opened in 4 bits, which cannot be trained. "
                "Leave 'training' out, or remove `quantization` from the student's settings.",
                param="hyperparameters.training",
            )
        model = _model_of(folder, config, computed, quantization_config=four_bits(computed))
        keep_one_layout(model)
        return model if is_trained else written_out(model, computed)
    held = torch.float32 if is_trained and method.training is Training.FULL else computed
    model = _model_of(folder, config, held)
    model.to(best_device())
    return model


def check_folder(folder: Path) -> None:
    """Refuses folders that could run code or that lack weights, before any library opens them."""
    if not (folder / "config.json").is_file():
        raise BaseModelUnusable(f"{folder} has no config.json: it is no model folder.", param="model")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        problem = f"only pickled weights ({', '.join(pickled)}), which can run code" if pickled else "no weights"
        raise BaseModelUnusable(
            f"{folder} has {problem}. Convert the model to safetensors (model.save_pretrained) and try again.",
            param="model",
        )
    for path in sorted(folder.glob("*.json")):
        if _names_code(_json_of(path)):
            raise BaseModelUnusable(
                f"{path} names code to run ('auto_map'). Use a model that transformers supports by itself, "
                "or remove the entry if it does.",
                param="model",
            )


def digest_of(reference: BaseReference) -> str:
    """Tells a base from another, wherever its folder lies. Of large files, the size and both ends count."""
    if not _is_local(reference):
        return f"{reference.path or reference.name}@{reference.revision}"
    digest = hashlib.sha256()
    for path in sorted(each for each in _folder_of(reference).iterdir() if each.suffix in _OF_A_MODEL):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(END_BYTES))
            file.seek(max(END_BYTES, size - END_BYTES))
            digest.update(file.read())
    return digest.hexdigest()


def _folder_of(reference: BaseReference) -> Path:
    assert reference.path is not None
    if _is_local(reference):
        return Path(reference.path).expanduser()
    if reference.path.startswith((".", "~")) or not _HUB_ID.fullmatch(reference.path):
        raise BaseModelUnusable(f"The folder {reference.path} does not exist.", param="model")
    return _fetched(reference.path, reference.revision)


def _pinned(reference: BaseReference, folder: Path) -> BaseReference:
    """The same base for as long as the artefact lives: an absolute path, or the commit that was fetched."""
    if _is_local(reference):
        return replace(reference, path=str(folder.resolve()))
    return replace(reference, revision=folder.name if folder.parent.name == "snapshots" else reference.revision)


def _is_local(reference: BaseReference) -> bool:
    return reference.path is not None and Path(reference.path).expanduser().is_dir()


def _fetched(hub_id: str, revision: str | None) -> Path:
    """The hub's snapshot in the local cache: JSON, tokenizer and safetensors, never pickles or code."""
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise BaseModelUnusable(f"{hub_id} {_fetching_problem(error, revision)}.", param="model") from error


def _fetching_problem(error: Exception, revision: str | None) -> str:
    match error:
        case GatedRepoError():
            return "is gated: accept its licence on the hub and set HF_TOKEN"
        case RevisionNotFoundError():
            return f"has no revision '{revision}'"
        case RepositoryNotFoundError():
            return "is not on the hub and is no local folder (or it is private: set HF_TOKEN)"
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            return "is not in the local cache and the hub cannot be reached; download it to a folder and give its path"
        case _:
            return f"cannot be fetched from the hub: {error}"


def _config_of(folder: Path) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelUnusable(f"The config.json of {folder} cannot be used: {error}", param="model") from error
    assert isinstance(config, PreTrainedConfig)
    return config


def _remove_window(config: PreTrainedConfig) -> int | None:
    """Makes full attention of windows that all layers share; gives the window, within which both are the same.

    None, and nothing done, where there is none or layers differ. A model of which all weights are trained is saved
    without its windows, and with the word that it had them.
    """
    if isinstance(removed := getattr(config, REMOVED_WINDOW, None), int):
        return removed
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or []
    if not isinstance(window, int) or set(kinds) - {"sliding_attention"}:
        return None
    config.sliding_window = None
    setattr(config, REMOVED_WINDOW, window)
    if kinds:
        config.layer_types = ["full_attention"] * len(kinds)
    return window


def _model_of(folder: Path, config: PreTrainedConfig, dtype: torch.dtype, **quantized: Any) -> PreTrainedModel:
    try:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            dtype=dtype,
            # Weights that are rounded are where they belong from the start; they cannot be moved afterwards.
            **({"device_map": {"": best_device()}, **quantized} if quantized else {}),
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BaseModelUnusable(
            f"{folder} cannot be opened as a causal language model: {error}", param="model"
        ) from error
    model, loading = opened
    if loading["missing_keys"]:
        missing = min(loading["missing_keys"])
        raise BaseModelUnusable(f"{folder} lacks weights, {missing} for one; the download may be cut.", param="model")
    assert isinstance(model, PreTrainedModel)
    return model


def _tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise BaseModelUnusable(f"{folder} has no tokenizer. Copy tokenizer.json of the model there.", param="model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelUnusable(f"The tokenizer of {folder} cannot be opened: {error}", param="model") from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[int]:
    """The tokenizer's end token first; instruct models name further ones for generation."""
    generation = model.generation_config.eos_token_id if model.generation_config else None
    more = generation if isinstance(generation, list) else [generation]
    ends = [token for token in (tokenizer.eos_token_id, *more) if isinstance(token, int)]
    if not ends:
        raise BaseModelUnusable(f"The tokenizer of {folder} names no end token (eos_token).", param="model")
    return list(dict.fromkeys(ends))


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Fewer tokens than rows of the embedding are common (padding); more cannot be looked up."""
    known, rows = len(tokenizer), model.get_input_embeddings().weight.shape[0]
    if known > rows:
        raise BaseModelUnusable(
            f"The tokenizer of {folder} has {known} tokens and the model embeddings for {rows}. Call "
            "model.resize_token_embeddings(len(tokenizer)) and save both again.",
            param="model",
        )


def _context_tokens(model: PreTrainedModel, folder: Path) -> int:
    """The context the model was made for. Layers with windows or states are refused: batching needs plain caches."""
    layers = DynamicCache(config=model.config).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        kinds = ", ".join(sorted({type(layer).__name__ for layer in layers}))
        raise BaseModelUnusable(
            f"{folder} has layers other than full attention ({kinds}), which students cannot have yet.",
            param="model",
        )
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(context, int):
        raise BaseModelUnusable(
            f"The config.json of {folder} does not say how many tokens the model reads (max_position_embeddings).",
            param="model",
        )
    return context


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaseModelUnusable(f"{path} is not JSON: {error}", param="model") from error


def _names_code(value: Any) -> bool:
    """Whether `auto_map` stands at any depth; as a word of a vocabulary (with a number) it is harmless."""
    if isinstance(value, Mapping):
        found = value.get("auto_map")
        return (found is not None and not isinstance(found, int)) or any(map(_names_code, value.values()))
    return isinstance(value, list) and any(map(_names_code, value))
