"""What a model folder's manifest says to whoever does not open the model.

Needs no torch: the server asks it what a job on the folder would train. The whole manifest, and whether
the folder is as it was written, is `checkpoint`'s to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillroom.errors import BaseModelUnusable
from stillroom.student.hyperparameters import BUILT_IN, Lora, Origin, Training

MANIFEST = "stillroom.json"


def origin_of(folder: Path | None) -> Origin:
    """What a job on the model starts from: a fine-tune of ours says so, every other folder or hub id is a
    model that someone else has trained. None: the built-in model, which starts from nothing."""
    if folder is None:
        return BUILT_IN
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        training = Training(manifest["training"])
        lora = _lora(manifest.get("hyperparameters") or {}) if training is Training.ADAPTER else None
        return Origin(from_nothing=_has_no_base(manifest), training=training, lora=lora)
    except OSError:
        return Origin()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelUnusable(f"{folder / MANIFEST} cannot be read: {error!r}.", param="model") from error


def _lora(numbers: Mapping[str, Any]) -> Lora:
    """The first model folders do not tell: they have the adapter that is the default still."""
    values = dict(numbers.get("lora") or {})
    if isinstance(values.get("targets"), list):
        values["targets"] = tuple(values["targets"])
    return Lora(**values)


def _has_no_base(manifest: Mapping[str, Any]) -> bool:
    return Training(manifest["training"]) is Training.FULL and (manifest.get("base") or {}).get("path") is None
