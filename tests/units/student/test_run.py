"""The job child as its parent sees it: real signals, real kills, and an end that none of them changes."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stillroom.student.bases.checkpoint import step_folders
from stillroom.student.chats.examples import read_rows

from .conftest import save_tiny_base, write_rows
from .nursery import Ended, Nursery
from .tickets import tickets

RUN = [sys.executable, "-m", "stillroom.student.training.launch"]
STEPS, STEPS_AN_EPOCH = 8, 4
OF_THE_MACHINE = {"tokens_per_second", "computed_tokens_per_second", "memory_bytes", "elapsed_seconds"}
"""Figures that no two runs have in common."""


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


# --- one process of its own ------------------------------------------------------------------------------


def test_standard_output_is_events_and_the_child_ends_when_its_parents_pipe_closes(tmp_path: Path) -> None:
    folder = _job(tmp_path / "orphan", hyperparameters={"n_epochs": 500})
    with subprocess.Popen([*RUN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        kinds = []
        for line in process.stdout:
            kinds.append(json.loads(line)["type"])
            if "step" in kinds:
                process.stdin.close()
                break
        assert process.wait(timeout=60) == 3
    assert kinds[0] == "started"


@pytest.mark.parametrize(("words", "code"), [(1, 3), (1000, 0), (0, 0)])
def test_a_child_ends_when_a_parent_that_has_spoken_falls_silent(words: int, code: int) -> None:
    """The controls: one that keeps on being spoken to goes on, and so does one that never was."""
    program = (
        "import time; from stillroom.student.training.launch import end_with_parent as end; end(1.0); time.sleep(3.0)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        while process.poll() is None:
            if words > 0:
                with suppress(BrokenPipeError):  # it has just ended
                    process.stdin.write(b"\n")
                words -= 1
            time.sleep(0.05)
        assert process.returncode == code


def test_a_child_that_loses_its_parent_while_it_starts_does_not_go_on_to_import(tmp_path: Path) -> None:
    process = subprocess.Popen([*RUN, str(_job(tmp_path / "run"))], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 3
    assert used.ru_utime + used.ru_stime < 1.5  # torch alone takes more


def test_an_error_is_an_event_with_code_and_param_and_exit_1(tmp_path: Path, nursery: Nursery) -> None:
    folder = _job(tmp_path / "wrong")
    (folder / "train.jsonl").write_text('{"messages": []}\n')
    ended = nursery.run(folder)
    assert ended.code == 1
    assert ended.events == [
        {
            "type": "error",
            "code": "invalid_training_file",
            "message": "Line 1 has no list of 'messages'.",
            "param": "training_file",
        }
    ]


# --- interrupted, and the same in the end ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A run as it is without interruptions, and how to make more of its kind."""

    changes: dict[str, Any]
    folder: Path
    ended: Ended

    def another(self, folder: Path) -> Path:
        return _job(folder, **self.changes)


@pytest.fixture(scope="module", params=["full", "adapter"])
def kind(request: pytest.FixtureRequest, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    folder = tmp_path_factory.mktemp(request.param)
    changes: dict[str, Any] = {}
    if request.param == "adapter":
        rows = read_rows(write_rows(folder / "rows.jsonl", tickets(16, seed=3)))
        base = save_tiny_base(folder / "base", rows, "llama")
        # Drawn from the generator in every step.
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.1}))
        changes = {"base": {"name": "tiny-llama", "path": str(base), "revision": None}}
    run = _job(folder / "undisturbed", **changes)
    ended = nursery.run(run)
    assert ended.code == 0
    return Kind(changes=changes, folder=run, ended=ended)


one_kind = pytest.mark.parametrize("kind", ["adapter"], indirect=True)
"""For what does not depend on which weights move."""


def _weights(run: Path) -> dict[str, bytes]:
    """Of all its checkpoints."""
    found = sorted((run / "checkpoints").glob("step-*/*model.safetensors"))
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def _metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {name: each for name, each in row.items() if name not in OF_THE_MACHINE} for row in csv.DictReader(file)
        ]


def _reported(run: Path, events: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Steps, checkpoints and the end. What was reported twice must have been the same twice."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for event in events:
        if event["type"] not in ("step", "checkpoint", "done"):
            continue
        text = json.dumps({name: value for name, value in event.items() if name not in OF_THE_MACHINE})
        same: dict[str, Any] = json.loads(text.replace(str(run), "RUN"))
        assert found.setdefault((same["type"], same.get("step", STEPS)), same) == same
    return found


def _check_same(kind: Kind, run: Path, *lives: Ended) -> None:
    """Weights, figures and events are those of the undisturbed run, to the last bit."""
    assert lives[-1].code == 0
    assert len(_weights(run)) == STEPS / STEPS_AN_EPOCH
    assert _weights(run) == _weights(kind.folder)
    assert len(_metrics(run)) == STEPS
    assert _metrics(run) == _metrics(kind.folder)
    events = [event for life in lives for event in life.events]
    assert _reported(run, events) == _reported(kind.folder, kind.ended.events)
    # Nothing unfinished is left.
    assert list(run.rglob(".*")) == []


def test_an_undisturbed_run_reports_from_started_to_done(kind: Kind) -> None:
    events = kind.ended.events
    assert [event["type"] for event in events if event["type"] != "message"][:2] == ["started", "step"]
    assert events[-1]["type"] == "done"
    assert _resumed_from(kind.ended) is None
    assert {event["type"] for event in events} <= {"started", "step", "checkpoint", "message", "done"}
    assert len(_reported(kind.folder, events)) == STEPS + 2 + 1
    assert Path(events[-1]["path"], "stillroom.json").is_file()


def test_weights_depend_on_the_seed(kind: Kind, nursery: Nursery, tmp_path: Path) -> None:
    """The control: what is found equal below is not equal anyway."""
    other = _job(tmp_path / "other", **{**kind.changes, "seed": 12})
    assert nursery.run(other).code == 0
    ours, theirs = _weights(kind.folder), _weights(other)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] != theirs[name] for name in ours)


@pytest.mark.parametrize("step", [1, 5])
def test_a_run_killed_at_any_step_ends_bit_equal_to_one_that_was_not(
    step: int, kind: Kind, nursery: Nursery, tmp_path: Path
) -> None:
    run = kind.another(tmp_path / "run")
    killed = nursery.run(run, at_step=(step, signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    resumed = nursery.run(run)
    if step > 1:
        assert _resumed_from(resumed) >= step - 1
    _check_same(kind, run, killed, resumed)


MOMENTS = [
    # Before the first state, then while it is being written, twice at the same place.
    r"os.mkdir resume/\.step-000001",
    r"open resume/\.step-000001\.\w+/manifest.json",
    r"open resume/\.step-000001\.\w+/manifest.json",
    # Complete, but not in its place yet.
    r"os.rename resume/\.step-000002",
    # In its place; the oldest is half removed.
    r"open resume/\.step-000001\.\w+$",
    # While what is known of the steps so far is written anew.
    r"os.rename metrics.part",
    # At the epoch's end: while the model is written, when it is complete, and when it is there but no state yet.
    r"open checkpoints/\.step-000004\.\w+/stillroom.json",
    r"os.rename checkpoints/\.step-000004",
    r"os.mkdir resume/\.step-000004",
    # At the very end.
    r"os.rename checkpoints/\.step-000008",
    r"os.mkdir resume/\.step-000008",
]


def test_a_run_killed_again_and_again_while_it_writes_ends_bit_equal(
    kind: Kind, nursery: Nursery, tmp_path: Path
) -> None:
    run = kind.another(tmp_path / "run")
    lives = [nursery.run(run, die_at=moment) for moment in MOMENTS]
    assert [life.code for life in lives] == [-signal.SIGKILL] * len(MOMENTS)
    _check_same(kind, run, *lives, nursery.run(run))


def test_a_run_killed_while_it_makes_its_tokenizer_ends_bit_equal(kind: Kind, nursery: Nursery, tmp_path: Path) -> None:
    if kind.changes:
        return  # an adapter takes its base's
    run = kind.another(tmp_path / "run")
    killed = nursery.run(run, die_at=r"os.rename \.tokenizer")
    assert killed.code == -signal.SIGKILL
    _check_same(kind, run, killed, nursery.run(run))


def test_a_run_that_is_asked_to_stop_finishes_its_step_keeps_its_state_and_goes_on_bit_equal(
    kind: Kind, nursery: Nursery, tmp_path: Path
) -> None:
    run = _job(tmp_path / "run", **{**kind.changes, "checkpoint_seconds": 1000.0})
    first = nursery.run(run, at_step=(2, signal.SIGTERM))
    assert first.code == 0
    assert first.events[-1]["type"] == "stopped"
    stopped_at = first.events[-1]["step"]
    # The control: it did stop, and wrote no other state than the one for that.
    assert 2 <= stopped_at < STEPS
    assert [state.name for state in step_folders(run / "resume")] == [f"step-{stopped_at:06d}"]

    # As Ctrl-C tells every process of a terminal.
    second = nursery.run(run, at_step=(stopped_at + 1, signal.SIGINT))
    assert second.code == 0
    assert _resumed_from(second) == stopped_at
    _check_same(kind, run, first, second, nursery.run(run))


@one_kind
def test_a_run_whose_newest_state_is_damaged_goes_on_from_the_one_before(
    kind: Kind, nursery: Nursery, tmp_path: Path
) -> None:
    run, killed = _killed_with_damaged_states(kind, nursery, tmp_path / "run", 1)
    resumed = nursery.run(run)
    (warning,) = _warnings(resumed)
    assert warning.startswith("The saved state step-")
    assert _resumed_from(resumed) >= 1
    _check_same(kind, run, killed, resumed)


@one_kind
def test_a_run_whose_states_are_all_damaged_begins_anew_and_ends_the_same(
    kind: Kind, nursery: Nursery, tmp_path: Path
) -> None:
    run, killed = _killed_with_damaged_states(kind, nursery, tmp_path / "run", 2)
    resumed = nursery.run(run)
    assert "begins anew" in _warnings(resumed)[-1]
    assert _resumed_from(resumed) is None
    _check_same(kind, run, killed, resumed)


def _killed_with_damaged_states(kind: Kind, nursery: Nursery, folder: Path, count: int) -> tuple[Path, Ended]:
    run = kind.another(folder)
    killed = nursery.run(run, at_step=(6, signal.SIGKILL))
    states = step_folders(run / "resume")
    assert len(states) == 2
    for state in states[-count:]:
        path = state / "state.safetensors"
        data = bytearray(path.read_bytes())
        data[random.Random(count).randrange(len(data))] ^= 1
        path.write_bytes(data)
    return run, killed


def _resumed_from(ended: Ended) -> Any:
    return next(event for event in ended.events if event["type"] == "started")["resumed_from_step"]


def _warnings(ended: Ended) -> list[str]:
    return [event["message"] for event in ended.events if event["type"] == "message" and event["level"] == "warn"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Where a run's states are to lie, with room for none."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs privileges")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@one_kind
def test_a_run_whose_states_find_no_room_says_so_and_ends_the_same(
    kind: Kind, nursery: Nursery, tmp_path: Path, small_disk: Path
) -> None:
    """A state is insurance: without it a crash would cost time, without the run everything is lost."""
    run = kind.another(tmp_path / "run")
    (run / "resume").symlink_to(small_disk)
    ended = nursery.run(run)
    assert "disk is full" in _warnings(ended)[0]
    _check_same(kind, run, ended)


@one_kind
def test_a_folder_with_another_runs_state_is_refused(kind: Kind, nursery: Nursery, tmp_path: Path) -> None:
    run = _job(tmp_path / "run", **{**kind.changes, "seed": 12})
    (run / "resume").symlink_to(kind.folder / "resume")
    ended = nursery.run(run)
    assert ended.code == 1
    assert ended.events[-1]["code"] == "training_failed"
    assert "folder of its own" in ended.events[-1]["message"]
