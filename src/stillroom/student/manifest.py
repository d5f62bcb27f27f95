"""What a model folder's manifest says to whoever does not open the model.

Needs no torch: the server asks it what a job on the folder would train. The whole manifest, and whether
the folder is as it was written, is `checkpoint`'s to read.
"""

from __future__ import annotations

import json
from pathlib import Path

from stillroom.errors import BaseModelUnusable
from stillroom.student.hyperparameters import Training

MANIFEST = "stillroom.json"


def training_on(folder: Path | None) -> Training:
    """Which weights a job on the model moves: a fine-tune of ours goes on as it began, every other folder or
    hub id gets an adapter. None: the built-in model, which starts from nothing."""
    if folder is None:
        return Training.FULL
    try:
        return Training(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["training"])
    except OSError:
        return Training.ADAPTER
    except (ValueError, KeyError, TypeError) as error:
        raise BaseModelUnusable(f"{folder / MANIFEST} cannot be read: {error!r}.", param="model") from error
