"""The job child as its parent sees it: a real process, real signals, real kills."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillroom.student.checkpoint import step_folders

from .conftest import write_rows
from .tickets import tickets

RUN = [sys.executable, "-m", "stillroom.student.run"]


def _job(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    spec = {
        "base": {"name": "scratch-small", "path": None, "revision": None},
        "training_file": str(write_rows(folder / "train.jsonl", tickets(16, seed=3))),
        "validation_file": str(write_rows(folder / "valid.jsonl", tickets(4, seed=4))),
        "hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": "auto"},
        "seed": 11,
        "threads": 1,
        "checkpoint_seconds": 0.0,
        "model_name": "ft:test",
    }
    (folder / "spec.json").write_text(json.dumps(spec | changes))
    return folder


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([*RUN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _events(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout is not None
    events = [json.loads(line) for line in process.stdout]
    _gone(process)
    return events


def _gone(process: subprocess.Popen[str]) -> int:
    """The exit code, once the process has ended by itself."""
    code = process.wait(timeout=60)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    return code


def _until_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "step" and event["step"] >= step:
            return
    raise AssertionError("the run ended early")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = _job(tmp_path_factory.mktemp("straight") / "run")
    return folder, _events(_start(folder))


def test_standard_output_is_events_from_started_to_done(straight: tuple[Path, list[dict[str, Any]]]) -> None:
    _, events = straight
    assert [events[0]["type"], events[-1]["type"]] == ["started", "done"]
    assert {event["type"] for event in events} == {"started", "step", "checkpoint", "done"}
    assert Path(events[-1]["path"], "stillroom.json").is_file()


def test_a_run_killed_at_any_step_ends_bit_equal_to_one_that_was_not(
    tmp_path: Path, straight: tuple[Path, list[dict[str, Any]]]
) -> None:
    folder = _job(tmp_path / "killed")
    process = _start(folder)
    _until_step(process, random.randrange(2, 8))
    process.send_signal(signal.SIGKILL)
    _gone(process)
    events = _events(_start(folder))
    assert events[0]["resumed_from_step"] >= 1

    _, undisturbed = straight
    name = "model.safetensors"
    assert Path(events[-1]["path"], name).read_bytes() == Path(undisturbed[-1]["path"], name).read_bytes()
    assert (folder / "metrics.csv").read_bytes() == (straight[0] / "metrics.csv").read_bytes()


def test_sigterm_finishes_the_step_keeps_its_state_and_exits_0(tmp_path: Path) -> None:
    folder = _job(tmp_path / "stopped", checkpoint_seconds=1000.0)
    process = _start(folder)
    _until_step(process, 3)
    process.terminate()
    events = _events(process)
    assert process.returncode == 0
    assert events[-1]["type"] == "stopped"
    assert step_folders(folder / "resume")[-1].name == f"step-{events[-1]['step']:06d}"


def test_the_child_ends_when_its_parents_pipe_closes(tmp_path: Path) -> None:
    process = _start(_job(tmp_path / "orphan", hyperparameters={"n_epochs": 500}))
    _until_step(process, 1)
    assert process.stdin is not None
    process.stdin.close()
    assert _gone(process) == 3


def test_an_error_is_an_event_with_code_and_param_and_exit_1(tmp_path: Path) -> None:
    folder = _job(tmp_path / "wrong")
    (folder / "train.jsonl").write_text('{"messages": []}\n')
    process = _start(folder)
    (event,) = _events(process)
    assert process.returncode == 1
    assert event == {
        "type": "error",
        "code": "invalid_training_file",
        "message": "Line 1 has no list of 'messages'.",
        "param": "training_file",
    }


def test_a_folder_with_another_runs_state_is_refused(
    tmp_path: Path, straight: tuple[Path, list[dict[str, Any]]]
) -> None:
    folder = _job(tmp_path / "other", seed=12)
    (folder / "resume").symlink_to(straight[0] / "resume")
    (event,) = _events(_start(folder))
    assert event["code"] == "training_failed" and "folder of its own" in event["message"]
