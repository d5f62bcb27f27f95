"""The quote's child: what it says of a run is what the run then says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillroom.student.bases.checkpoint import BaseReference

from .conftest import write_rows
from .tickets import tickets


def _spec(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    spec = {
        "base": {"name": "scratch-small", "path": None, "revision": None},
        "training_file": str(write_rows(folder / "train.jsonl", tickets(18, seed=3))),
        "validation_file": str(write_rows(folder / "valid.jsonl", tickets(5, seed=4))),
        "hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": "auto"},
        "seed": 11,
        "threads": 1,
        "checkpoint_seconds": 1000.0,
        "model_name": "ft:test",
    }
    (folder / "spec.json").write_text(json.dumps(spec | changes))
    return folder


def _events(module: str, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", f"stillroom.student.training.{module}", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        return [json.loads(line) for line in process.stdout]


def _one(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [event for event in events if event["type"] == kind]
    return found


def test_what_is_planned_is_what_the_run_then_does(tmp_path: Path) -> None:
    planned, measured = _events("measure", _spec(tmp_path / "measured"))
    run = _events("run", _spec(tmp_path / "run"))
    started, done = _one(run, "started"), _one(run, "done")
    assert planned["type"] == "planned"
    for name in ("hyperparameters", "total_steps", "examples", "valid_examples"):
        assert planned[name] == started[name]
    assert planned["trained_tokens"] == done["trained_tokens"] == 2 * planned["tokens_per_epoch"]
    # Ten steps in all: one to warm up, nine to time.
    assert measured["type"] == "measured"
    assert len(measured["step_seconds"]) == planned["total_steps"] - 1 == 9
    assert all(seconds > 0 for seconds in measured["step_seconds"])
    # A validation batch at every step, and two batches at the end of each epoch.
    assert measured["validation_batches"] == 10 + 2 * 2
    assert measured["validation_batch_seconds"] > 0
    assert measured["checkpoint_seconds"] > 0
    assert measured["begin_seconds"] < 0.1  # imitation looks at nothing beforehand


def test_a_base_of_ones_own_is_measured_too(tmp_path: Path, tiny_base: BaseReference) -> None:
    base = {"name": tiny_base.name, "path": tiny_base.path, "revision": None}
    folder = _spec(
        tmp_path / "tiny", base=base, validation_file=None, hyperparameters={"n_epochs": 1, "batch_size": 18}
    )
    planned, measured = _events("measure", folder)
    assert (planned["total_steps"], len(measured["step_seconds"])) == (1, 1)
    assert (measured["validation_batches"], measured["validation_batch_seconds"]) == (0, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": {"name": "gone", "path": "./no/such/folder", "revision": None}}, "does not exist"),
        ({"hyperparameters": {"n_epochs": 0}}, "n_epochs"),
    ],
)
def test_what_would_fail_the_run_fails_the_measuring(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    (event,) = _events("measure", _spec(tmp_path / "wrong", **changes))
    assert event["type"] == "error"
    assert words in event["message"]
