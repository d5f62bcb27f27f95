"""What a training run leaves on disk to be served: model artefacts. (`resume` has the states to go on from.)

Folders appear whole or not at all (temporary name, fsync, rename, fsync) and have a manifest of sha256 sums.
Weights are safetensors, everything else JSON: nothing is ever unpickled.

    checkpoints/step-000375/   config.json, model.safetensors or adapter_model.safetensors, tokenizer,
                               chat_template.jinja, identity.json, stillroom.json

Knows models as things with tensors; does not know how they are trained.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel

from stillroom.errors import BaseModelUnusable, DiskFull
from stillroom.student.bases.identity import Identity, write_identity
from stillroom.student.chats.template import ChatTemplate
from stillroom.student.hyperparameters import MethodType, Training
from stillroom.student.manifest import MANIFEST

FORMAT = 1
CHECKPOINTS_KEPT = 3
_STEP = re.compile(r"step-\d{6,}")
_DRAFT = re.compile(r"\..+\.[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class BaseReference:
    """Where a base model comes from, and in which numbers it is opened. No path: the built-in small model."""

    name: str
    path: str | None
    revision: str | None
    precision: str = "auto"
    """"auto", "float32" or "bfloat16"; see `precision`."""
    quantization: str = "none"
    """"none" or "4bit", which an adapter then needs wherever it is opened."""


@dataclass(frozen=True, kw_only=True)
class DroppedPrompt:
    """A system prompt that a student was trained to do without."""

    text: str
    tokens: int
    """Of a prompt, that a call saves."""


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """What `stillroom.json` says of a model folder."""

    training: Training
    """FULL: the folder holds all weights. ADAPTER: it needs its base beside it."""
    model_name: str
    base: BaseReference
    hyperparameters: dict[str, Any]
    step: int
    end_ids: list[int]
    method: MethodType = MethodType.SUPERVISED
    dropped_prompt: DroppedPrompt | None = None


def write_artefact(
    folder: Path,
    model: nn.Module,
    template: ChatTemplate,
    artefact: Artefact,
    identity: Identity,
    *,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """A folder that `base_models.open_artefact` opens; an older one of the same name is replaced."""

    def write(to: Path) -> None:
        assert isinstance(model, PreTrainedModel | PeftModel)
        model.save_pretrained(str(to), state_dict=weights)
        # peft leaves a model card full of blanks.
        (to / "README.md").unlink(missing_ok=True)
        template.tokenizer.save_pretrained(str(to))
        write_identity(to, identity)
        sums = {path.name: sha256_of(path) for path in sorted(to.iterdir())}
        _write_json(to / MANIFEST, {"format": FORMAT, **asdict(artefact), "sha256": sums})

    write_folder(folder, write)


def is_artefact(folder: Path) -> bool:
    """Whether we made this folder."""
    return (folder / MANIFEST).is_file()


def read_artefact(folder: Path) -> Artefact:
    """The manifest of a model folder, after all its files were compared with their sums."""
    if not is_artefact(folder):
        raise BaseModelUnusable(
            f"{folder} is no model folder: it has no {MANIFEST}. The models of a run are in its checkpoints/.",
            param="model",
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sums = dict(manifest["sha256"])
        artefact = Artefact(
            training=Training(manifest["training"]),
            model_name=manifest["model_name"],
            base=BaseReference(**manifest["base"]),
            hyperparameters=manifest["hyperparameters"],
            step=manifest["step"],
            end_ids=manifest["end_ids"],
            # The first model folders do not tell.
            method=MethodType(manifest.get("method", MethodType.SUPERVISED)),
            dropped_prompt=DroppedPrompt(**manifest["dropped_prompt"]) if manifest.get("dropped_prompt") else None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelUnusable(f"{folder / MANIFEST} cannot be read: {error!r}.", param="model") from error
    damaged = _damaged(folder, sums)
    if damaged:
        raise BaseModelUnusable(
            f"{folder} is damaged: {damaged} is missing or was changed. Restore it, or train again.", param="model"
        )
    return artefact


def keep_last(folder: Path, count: int) -> None:
    """Of the step folders in `folder`, only the `count` newest stay."""
    for old in step_folders(folder)[:-count]:
        _discard(old)


def step_folders(folder: Path) -> list[Path]:
    """Complete step folders, oldest first."""
    found = folder.iterdir() if folder.is_dir() else []
    return sorted((each for each in found if _STEP.fullmatch(each.name)), key=lambda each: int(each.name[5:]))


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}"


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fills a folder under another name, so that `folder` is complete as soon as it exists.

    Raises DiskFull, or OSError for other troubles; what was there before stays then.
    """
    draft = _draft_of(folder)
    try:
        draft.mkdir(parents=True)
        write(draft)
        for path in draft.iterdir():
            _fsync(path)
        _fsync(draft)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)  # a full disk needs the room
        raise _trouble_with(folder, error) from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _put_in_place(draft, folder)
    _fsync(folder.parent)


def clear_drafts(folder: Path) -> None:
    """Removes what processes that were killed left unfinished; for the beginning of a run."""
    for draft in folder.glob(".*"):
        if _DRAFT.fullmatch(draft.name):
            shutil.rmtree(draft, ignore_errors=True)


def _draft_of(folder: Path) -> Path:
    """A name of its own each time: a process that was taken for dead may be writing the same folder."""
    return folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")


def _put_in_place(draft: Path, folder: Path) -> None:
    while True:
        try:
            draft.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _discard(folder)
        else:
            return


def _discard(folder: Path) -> None:
    """Out of sight first: a folder under its own name is whole, also when we are killed meanwhile."""
    draft = _draft_of(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(draft)
        shutil.rmtree(draft, ignore_errors=True)


def _trouble_with(folder: Path, error: Exception) -> Exception:
    """safetensors tells of a full disk in its text only."""
    if getattr(error, "errno", None) == errno.ENOSPC or f"(os error {errno.ENOSPC})" in str(error):
        return DiskFull(f"The disk is full: {folder.name} was not written to {folder.parent}. Make room there.")
    return OSError(f"{folder} was not written: {error}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(folder: Path, sums: Mapping[str, str]) -> str | None:
    """The first file that is missing or differs from its sum."""
    for name, expected in sums.items():
        path = folder / Path(name).name
        if not path.is_file() or sha256_of(path) != expected:
            return name
    return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
