"""Several processes that compute one run: it is the run of one process, and ends as one."""

from __future__ import annotations

import csv
import json
import random
import signal
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stillroom.student.bases.checkpoint import step_folders
from stillroom.student.bases.identity import read_identity
from stillroom.student.chats.examples import read_rows
from stillroom.student.chats.template import Example
from stillroom.student.training.packing import PADDED, SHARED, Layout, shares
from stillroom.student.training.processes import Processes

from .conftest import save_tiny_base, write_rows
from .nursery import Ended, Nursery
from .tickets import tickets

STEPS = 8
LOSSES = ("train_loss", "valid_loss", "full_valid_loss")


def _job(folder: Path, *, processes: int = 1, **changes: Any) -> Path:
    folder.mkdir()
    spec = {
        "base": {"name": "scratch-small", "path": None, "revision": None},
        "training_file": str(write_rows(folder / "train.jsonl", tickets(16, seed=3))),
        "validation_file": str(write_rows(folder / "valid.jsonl", tickets(5, seed=4))),
        "hyperparameters": {"n_epochs": 1, "batch_size": 2},
        "seed": 11,
        "threads": 2,
        "checkpoint_seconds": 0.0,
        "model_name": "ft:test",
    }
    (folder / "spec.json").write_text(json.dumps(spec | changes))
    return _with_processes(folder, processes)


def _with_processes(folder: Path, count: int) -> Path:
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(spec | {"processes": count}))
    return folder


@pytest.fixture(scope="module")
def alone(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = _job(tmp_path_factory.mktemp("one") / "alone")
    assert nursery.run(folder).code == 0
    return folder


@pytest.fixture(scope="module")
def together(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The same run of two."""
    folder = _job(tmp_path_factory.mktemp("two") / "together", processes=2)
    return folder, nursery.run(folder)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("llama")
    rows = read_rows(write_rows(folder / "rows.jsonl", tickets(16, seed=3)))
    base = save_tiny_base(folder / "base", rows, "llama")
    return {"name": "tiny-llama", "path": str(base), "revision": None}


def _curve(run: Path) -> list[float]:
    """All losses of all steps."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    return [float(row[name]) for row in rows for name in LOSSES if row[name]]


def _weights(run: Path) -> Any:
    return load_file(next((run / "checkpoints" / f"step-{STEPS:06d}").glob("*model.safetensors")))


def _said(run: Path) -> list[list[int]]:
    """What the student answered when it was saved."""
    identity = read_identity(run / "checkpoints" / f"step-{STEPS:06d}")
    assert identity is not None
    return [[prediction[0][0] for prediction in answer.predictions] for answer in identity.answers]


def _assert_same_weights(run: Path, other: Path, *, within: float) -> None:
    mine, others = _weights(run), _weights(other)
    assert mine.keys() == others.keys()
    for name, weight in mine.items():
        assert (weight - others[name]).abs().max() <= within, name


# --- shares ------------------------------------------------------------------------------------------------


def _examples(*, count: int, seed: int) -> list[Example]:
    """Rows with one of three beginnings."""
    draw = random.Random(seed)
    beginnings = [[draw.randrange(50) for _ in range(40)] for _ in range(3)]
    rows = [draw.choice(beginnings) + [draw.randrange(50) for _ in range(draw.randrange(2, 30))] for _ in range(count)]
    return [Example(ids=array("i", row), mask=bytes(len(row) - 1) + b"\1") for row in rows]


@pytest.mark.parametrize("layout", [SHARED, PADDED])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_hold_every_example_once_and_are_about_even(layout: Layout, count: int) -> None:
    examples = _examples(count=24, seed=1)
    parts = shares(examples, layout, count)
    assert len(parts) <= count
    assert sorted(map(id, (each for part in parts for each in part))) == sorted(map(id, examples))
    computed = [layout.batch(part).num_tokens for part in parts]
    # Not even by more than a row: where one begins, what it shared with the row before is computed again.
    assert max(computed) <= sum(computed) / count + 70


def test_what_begins_alike_stays_in_one_share() -> None:
    examples = _examples(count=24, seed=2)
    together = SHARED.batch(examples).num_tokens
    parts = shares(examples, SHARED, 3)
    # Two cuts, of which each repeats one beginning at most.
    assert sum(SHARED.batch(part).num_tokens for part in parts) <= together + 2 * 69


def test_a_step_of_fewer_examples_than_processes_has_as_many_shares_as_examples() -> None:
    examples = _examples(count=2, seed=3)
    assert [len(part) for part in shares(examples, SHARED, 5)] == [1, 1]


# --- chance ------------------------------------------------------------------------------------------------


def test_what_is_drawn_in_a_step_differs_between_processes_and_comes_again_when_it_is_repeated() -> None:
    def drawn(*, rank: int, step: int) -> list[float]:
        Processes(rank=rank, count=2).draw_apart(7, step)
        return torch.rand(4).tolist()

    with torch.random.fork_rng():
        first = drawn(rank=0, step=3)
        assert drawn(rank=1, step=3) != first
        assert drawn(rank=0, step=4) != first
        assert drawn(rank=0, step=3) == first


# --- the same run ------------------------------------------------------------------------------------------


def test_two_processes_take_the_run_of_one_and_write_it_once(alone: Path, together: tuple[Path, Ended]) -> None:
    folder, ended = together
    assert ended.code == 0
    kinds = [event["type"] for event in ended.events]
    assert kinds.count("step") == STEPS
    assert (kinds[0], kinds.count("started"), kinds.count("done"), kinds[-1]) == ("started", 1, 1, "done")
    assert _curve(folder) == pytest.approx(_curve(alone), rel=1e-5)
    _assert_same_weights(folder, alone, within=1e-4)
    renames = [each for each in ended.operations if each.startswith("os.rename") and "step-" in each]
    assert len(renames) == len(set(renames))
    assert [each.name for each in step_folders(folder / "resume")] == ["step-000007", "step-000008"]


def test_without_adding_up_gradients_it_would_be_another_run(nursery: Nursery, alone: Path, tmp_path: Path) -> None:
    folder = _job(tmp_path / "apart", processes=2)
    assert nursery.run(folder, change="gradients-not-added").code == 0
    assert _curve(folder)[0] == pytest.approx(_curve(alone)[0], rel=1e-5)  # before the first update
    assert _curve(folder) != pytest.approx(_curve(alone), rel=1e-3)


def test_processes_without_an_example_in_a_step_take_part_in_it(nursery: Nursery, alone: Path, tmp_path: Path) -> None:
    folder = _job(tmp_path / "three", processes=3)
    assert nursery.run(folder).code == 0
    assert _curve(folder) == pytest.approx(_curve(alone), rel=1e-5)


def test_when_memory_runs_out_in_one_all_halve_their_passes(nursery: Nursery, alone: Path, tmp_path: Path) -> None:
    folder = _job(tmp_path / "tight", processes=2)
    ended = nursery.run(folder, change="out-of-memory-in-the-second")
    assert ended.code == 0
    messages = [event["message"] for event in ended.events if event["type"] == "message"]
    assert sum("Memory ran out" in message for message in messages) == 1
    assert _curve(folder) == pytest.approx(_curve(alone), rel=1e-5)


# --- ends --------------------------------------------------------------------------------------------------


def test_sigterm_stops_all_at_one_step_and_any_number_of_processes_goes_on(
    nursery: Nursery, alone: Path, tmp_path: Path
) -> None:
    folder = _job(tmp_path / "stopped", processes=2, checkpoint_seconds=1000.0)
    ended = nursery.run(folder, at_step=(2, signal.SIGTERM))
    assert ended.code == 0
    stopped = ended.events[-1]
    assert stopped["type"] == "stopped"
    assert [each.name for each in step_folders(folder / "resume")][-1] == f"step-{stopped['step']:06d}"
    again = nursery.run(_with_processes(folder, 1))
    assert again.code == 0
    assert again.events[0]["resumed_from_step"] == stopped["step"]
    assert _curve(folder) == pytest.approx(_curve(alone), rel=1e-5)


def test_all_end_when_the_parents_pipe_closes(nursery: Nursery, tmp_path: Path) -> None:
    folder = _job(tmp_path / "orphans", processes=2, hyperparameters={"n_epochs": 500})
    # It returns when nobody is left who could write events.
    assert nursery.run(folder, at_step=(1, 0)).code == 3


def test_an_error_of_all_is_reported_once(nursery: Nursery, tmp_path: Path) -> None:
    folder = _job(tmp_path / "wrong", processes=2)
    (folder / "train.jsonl").write_text('{"messages": []}\n')
    ended = nursery.run(folder)
    assert ended.code == 1
    assert [event["code"] for event in ended.events] == ["invalid_training_file"]


def test_when_one_is_killed_all_end_by_that_signal_and_the_run_goes_on_later(
    nursery: Nursery, together: tuple[Path, Ended], tmp_path: Path
) -> None:
    folder = _job(tmp_path / "killed", processes=2)
    assert nursery.run(folder, at_step=(3, signal.SIGKILL), rank=1).code == -signal.SIGKILL
    again = nursery.run(folder)
    assert again.code == 0
    assert again.events[0]["resumed_from_step"] >= 2
    assert _curve(folder) == _curve(together[0])
    _assert_same_weights(folder, together[0], within=0.0)


# --- in shards -----------------------------------------------------------------------------------------------


def _in_shards(tiny_llama: dict[str, Any], training: str) -> dict[str, Any]:
    numbers = {"n_epochs": 1, "batch_size": 2, "training": training}
    return {"base": tiny_llama, "hyperparameters": numbers, "checkpoint_seconds": 1000.0, "sharding": True}


@pytest.fixture(scope="module", params=["full", "lora"])
def sharded(
    request: pytest.FixtureRequest,
    nursery: Nursery,
    tiny_llama: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = _job(tmp_path_factory.mktemp("sharded") / "two", processes=2, **_in_shards(tiny_llama, request.param))
    ended = nursery.run(folder)
    assert ended.code == 0
    assert "Each of 2 processes holds a shard" in ended.events[0]["message"]
    return folder


def test_a_run_in_shards_is_the_run_of_one_process(nursery: Nursery, sharded: Path, tmp_path: Path) -> None:
    spec = json.loads((sharded / "spec.json").read_text())
    alone = _job(tmp_path / "alone", **spec | {"processes": 1})
    assert nursery.run(alone).code == 0
    assert _curve(sharded) == pytest.approx(_curve(alone), rel=1e-5)
    _assert_same_weights(sharded, alone, within=1e-4)
    assert _said(sharded) == _said(alone)


@pytest.mark.parametrize("sharded", ["full"], indirect=True)
def test_a_run_in_shards_that_was_stopped_ends_with_the_same_bits(
    nursery: Nursery, sharded: Path, tmp_path: Path
) -> None:
    folder = _job(tmp_path / "interrupted", **json.loads((sharded / "spec.json").read_text()) | {"processes": 2})
    assert nursery.run(folder, at_step=(2, signal.SIGTERM)).events[-1]["type"] == "stopped"
    assert nursery.run(folder).events[1]["resumed_from_step"] >= 2
    _assert_same_weights(folder, sharded, within=0.0)
