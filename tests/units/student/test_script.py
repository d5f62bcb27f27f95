"""The library without a server: a few lines in a script."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from stillroom.errors import BaseModelUnusable, InvalidRequest, TrainingFailed
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.chats.examples import Row
from stillroom.student.script import fine_tune, open_student


def test_one_call_trains_and_another_asks(tmp_path: Path, ticket_file: Path, ticket_rows: list[Row]) -> None:
    events: list[Any] = []
    model = fine_tune(
        tmp_path / "run", training_file=ticket_file, threads=1, n_epochs=16, batch_size=4, on_event=events.append
    )
    assert [event["type"] for event in events][:2] == ["started", "step"]
    row = ticket_rows[0]
    assert open_student(model).answer(row.messages[:-1]) == row.messages[-1]["content"]


def test_a_run_that_is_done_is_not_trained_again(tmp_path: Path, ticket_file: Path) -> None:
    given: Any = {"training_file": ticket_file, "threads": 1, "n_epochs": 1, "batch_size": 8}
    events: list[Any] = []
    first = fine_tune(tmp_path / "run", **given)
    assert fine_tune(tmp_path / "run", **given, on_event=events.append) == first
    assert "step" not in {event["type"] for event in events}


def test_a_base_of_ones_own_gets_an_adapter_of_the_rank_asked_for(
    tmp_path: Path, ticket_file: Path, tiny_base: BaseReference
) -> None:
    assert tiny_base.path
    model = fine_tune(
        tmp_path / "run", training_file=ticket_file, base=tiny_base.path, threads=1, n_epochs=1, lora_rank=3
    )
    assert '"r": 3,' in (model / "adapter_config.json").read_text()


def test_what_is_wrong_is_said_as_an_error(tmp_path: Path, ticket_file: Path) -> None:
    with pytest.raises(InvalidRequest, match="'n_epochs' is 0"):
        fine_tune(tmp_path / "run", training_file=ticket_file, n_epochs=0)
    with pytest.raises(BaseModelUnusable, match="does not exist"):
        fine_tune(tmp_path / "other", training_file=ticket_file, base="./nowhere", threads=1)


def test_another_run_is_refused_before_anything_of_the_first_is_overwritten(tmp_path: Path, ticket_file: Path) -> None:
    folder = tmp_path / "run"
    fine_tune(folder, training_file=ticket_file, threads=1, n_epochs=1, batch_size=8)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(TrainingFailed, match="holds a run with another hyperparameters"):
        fine_tune(folder, training_file=ticket_file, threads=1, n_epochs=2, batch_size=8)
    with pytest.raises(TrainingFailed, match="holds a run with another method: supervised, not dpo"):
        fine_tune(folder, training_file=ticket_file, method="dpo", threads=1, n_epochs=1, batch_size=8)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_base_that_was_replaced_in_the_meantime_is_another_run(
    tmp_path: Path, ticket_file: Path, tiny_base: BaseReference
) -> None:
    assert tiny_base.path
    base = shutil.copytree(tiny_base.path, tmp_path / "base")
    given: Any = {"training_file": ticket_file, "base": str(base), "threads": 1, "n_epochs": 1}
    fine_tune(tmp_path / "run", **given)
    moved = shutil.copytree(tmp_path / "run", tmp_path / "moved")  # a folder may be moved
    fine_tune(moved, **given)
    tensors = load_file(base / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainingFailed, match="another file, base model"):
        fine_tune(tmp_path / "run", **given)


def test_a_hyperparameter_that_does_not_exist_is_refused_by_name(tmp_path: Path, ticket_file: Path) -> None:
    with pytest.raises(InvalidRequest, match="Unknown hyperparameter 'lora_rnak'; known are n_epochs, "):
        fine_tune(tmp_path / "run", training_file=ticket_file, lora_rnak=8)


def test_ctrl_c_saves_the_state_and_the_same_call_goes_on(tmp_path: Path, ticket_file: Path) -> None:
    given: Any = {"training_file": ticket_file, "threads": 1, "n_epochs": 2, "batch_size": 8}

    def interrupt(event: Any) -> None:
        if event.get("step") == 2 and event["type"] == "step":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="goes on"):
        fine_tune(tmp_path / "run", **given, on_event=interrupt)
    events: list[Any] = []
    fine_tune(tmp_path / "run", **given, on_event=events.append)
    assert events[0]["resumed_from_step"] == 2


def test_a_run_folder_is_no_model_folder_and_it_is_said_where_the_models_are(tmp_path: Path, ticket_file: Path) -> None:
    with pytest.raises(BaseModelUnusable, match=r"is no model folder: .* in its checkpoints/"):
        open_student(tmp_path)


ALONE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"starlette", "uvicorn", "aiohttp", "sqlalchemy", "alembic", "typer", "msgspec"}:
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Absent())
import stillroom.student.script, stillroom.student.training.run, stillroom.student.training.measure
print("stands alone")
"""


def test_it_needs_nothing_of_the_web_and_no_database() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("stands alone\n", 0), done.stderr
