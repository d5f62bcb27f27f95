"""What a run's spec decides: whether a saved state may go on under it, and what the run may take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import ConfigurationError
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.training.loop import Run
from stillroom.student.training.run import open_run
from stillroom.student.training.spec import read_spec

from .conftest import write_rows
from .tickets import tickets


def spec_of(base: BaseReference, folder: Path, how: Any = None, **changes: Any) -> Path:
    """A folder with a spec on the base, which is opened as `how` says."""
    where = {"name": base.name, "path": base.path, "revision": None, **(how or {})}
    rows = write_rows(folder / "train.jsonl", tickets(4, seed=3))
    spec = {"base": where, "training_file": str(rows), "validation_file": None, "hyperparameters": {}, "seed": 11}
    spec |= {"threads": 1, "checkpoint_seconds": 1.0, "model_name": "ft:test", **changes}
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


def opened(base: BaseReference, folder: Path, **changes: Any) -> Run:
    folder.mkdir()
    return open_run(spec_of(base, folder, **changes), lambda event: None)


def test_whatever_changes_the_weights_makes_it_another_run(tiny_base: BaseReference, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 12},
        {"hyperparameters": {"lora_rank": 4}},
        {"hyperparameters": {"lora_alpha": 4}},
        {"hyperparameters": {"lora_targets": ["q_proj"]}},
        {"hyperparameters": {"training": "full"}},
        {"hyperparameters": {"long_rows": "truncate"}},
        {"how": {"precision": "bfloat16"}},
    ]
    runs = [opened(tiny_base, tmp_path / str(number), **each) for number, each in enumerate(changes)]
    assert len({run.fingerprint for run in runs}) == len(runs)


def test_how_much_it_may_take_makes_it_no_other_run(tiny_base: BaseReference, tmp_path: Path) -> None:
    free, bound = opened(tiny_base, tmp_path / "a"), opened(tiny_base, tmp_path / "b", memory_bytes=2 * 10**9)
    assert (free.memory_bytes, bound.memory_bytes) == (None, 2 * 10**9)
    assert free.fingerprint == bound.fingerprint


@pytest.mark.parametrize("changes", [{"memory_bytes": "much"}, {"how": {"bits": 4}}, {"hyperparameters": 3}])
def test_a_spec_that_cannot_be_read_is_named(tiny_base: BaseReference, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.json cannot be used"):
        read_spec(spec_of(tiny_base, tmp_path, **changes))
