"""What a run leaves for its readers: figures, curves, a report. Read back by TensorBoard and by eye."""

from __future__ import annotations

import csv
import getpass
import hashlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stillroom.errors import InvalidTrainingFile
from stillroom.student.records import report
from stillroom.student.records.metrics import MetricsFile, rows_of
from stillroom.student.records.record import RunRecord
from stillroom.student.training import run

from .conftest import write_rows
from .tickets import NAMES, SYSTEM, tickets

OPENAI_AND_AZURE = [
    "step",
    "train_loss",
    "train_accuracy",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "validation_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
]
OURS = [
    "learning_rate",
    "tokens_per_second",
    "computed_tokens_per_second",
    "memory_bytes",
    "elapsed_seconds",
    "rewards_margin",
]


def _job(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    spec = {
        "base": {"name": "scratch-small", "path": None, "revision": None},
        "training_file": str(write_rows(folder / "training.jsonl", tickets(16, seed=3))),
        "validation_file": str(write_rows(folder / "validation.jsonl", tickets(4, seed=4))),
        "hyperparameters": {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": "auto"},
        "seed": 11,
        "threads": 1,
        "checkpoint_seconds": 0.0,
        "model_name": "ft:scratch-small:acme:tickets:ab12",
    }
    (folder / "spec.json").write_text(json.dumps(spec | changes))
    return folder


def _run(folder: Path, *, until_step: int | None = None) -> list[dict[str, Any]]:
    """Runs in this process, to the end or until asked to stop behind a step."""
    events: list[dict[str, Any]] = []
    stopping = threading.Event()

    def emit(event: Mapping[str, Any]) -> None:
        events.append(dict(event))
        if event.get("step") == until_step and event["type"] == "step":
            stopping.set()

    run.run(folder, emit, stopping)
    return events


def _killed_at_step(folder: Path, step: int) -> None:
    command = [sys.executable, "-m", "stillroom.student.training.run", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["type"] == "step" and event["step"] == step:
                break
        process.send_signal(signal.SIGKILL)


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _curves(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return found


def _steps(curves: EventAccumulator, name: str) -> list[int]:
    return [point.step for point in curves.Scalars(name)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 12 steps that was killed, went on, was stopped and went on to its end."""
    folder = _job(tmp_path_factory.mktemp("runs") / "run")
    _killed_at_step(folder, 3)
    report.write(folder).rename(folder / "report-when-killed.md")
    stopped = _run(folder, until_step=7)
    assert stopped[-1] == {"type": "stopped", "step": 7}
    (folder / "report-when-stopped.md").write_text((folder / "report.md").read_text())
    assert _run(folder)[-1]["type"] == "done"
    return folder


# --- figures --------------------------------------------------------------------------------------------


def test_openais_and_azures_columns_come_first_and_ours_behind(done: Path) -> None:
    assert list(_rows(done)[0]) == OPENAI_AND_AZURE + OURS


def test_a_killed_and_resumed_run_has_every_step_once_and_all_that_was_measured(done: Path) -> None:
    rows = _rows(done)
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 13)]
    for column in ("train_loss", "train_accuracy", "learning_rate", "memory_bytes"):
        assert all(float(row[column]) >= 0 for row in rows), column
    assert all(float(row["tokens_per_second"]) >= float(row["computed_tokens_per_second"]) > 0 for row in rows)
    elapsed = [float(row["elapsed_seconds"]) for row in rows]
    assert elapsed == sorted(elapsed)


def test_what_a_kill_left_torn_is_dropped_and_nothing_before_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path, after_step=0)
    for step in range(1, 13):
        file.append({"step": step, "train_loss": 1 / step})
    file.close()
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n12,") + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert [row["step"] for row in rows_of(path)] == list(range(1, 12))
        MetricsFile(path, after_step=12).close()
        assert [row["train_loss"] for row in rows_of(path)] == [1 / step for step in range(1, 12)]


# --- TensorBoard ----------------------------------------------------------------------------------------


def test_tensorboard_shows_one_clean_curve_of_each_figure(done: Path) -> None:
    curves, rows = _curves(done), _rows(done)
    shown = {
        "train/loss": "train_loss",
        "train/token_accuracy": "train_accuracy",
        "train/learning_rate": "learning_rate",
        "validation/loss": "valid_loss",
        "validation/token_accuracy": "valid_mean_token_accuracy",
        "validation/full_loss": "full_valid_loss",
        "validation/full_token_accuracy": "full_valid_mean_token_accuracy",
        "speed/tokens_per_second": "tokens_per_second",
        "speed/computed_tokens_per_second": "computed_tokens_per_second",
        "memory/bytes": "memory_bytes",
    }
    assert set(curves.Tags()["scalars"]) == set(shown)
    for name, column in shown.items():
        expected = {int(row["step"]): float(row[column]) for row in rows if row[column]}
        assert _steps(curves, name) == list(expected), name
        assert [point.value for point in curves.Scalars(name)] == pytest.approx(list(expected.values()), rel=1e-6)


def test_a_tensorboard_that_watches_forgets_the_steps_that_were_lost(tmp_path: Path) -> None:
    def recorded(steps: range, *, after_step: int) -> None:
        with RunRecord(tmp_path, after_step=after_step, emit=print) as record:
            for step in steps:
                record.step({"step": step, "train_loss": float(step + after_step)})

    recorded(range(1, 9), after_step=0)
    watching = _curves(tmp_path)
    assert _steps(watching, "train/loss") == list(range(1, 9))
    recorded(range(6, 11), after_step=5)
    for curves in (watching, _curves(tmp_path)):
        curves.Reload()
        assert _steps(curves, "train/loss") == list(range(1, 11))
        assert [point.value for point in curves.Scalars("train/loss")][4:7] == [5.0, 11.0, 12.0]


def test_event_files_do_not_name_the_machine(done: Path) -> None:
    for file in (done / "tensorboard").iterdir():
        assert re.fullmatch(r"events\.out\.tfevents\.\d+\.\d+", file.name)


def test_without_tensorboardx_and_matplotlib_figures_and_report_are_there_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorboardX", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    with RunRecord(tmp_path, after_step=0, emit=print) as record:
        record.step({"step": 1, "train_loss": 2.0})
    told = report.write(tmp_path).read_text()
    assert "| training loss | 2 at step 1 |" in told and "loss.png" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "report.md"]


FILLS_UP = """
import resource, sys
from pathlib import Path
from stillroom.student.records.record import RunRecord
from stillroom.student.records.tensorboard import CURVES

resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))
with RunRecord(Path(sys.argv[1]), after_step=0, emit=print) as record:
    for step in range(1, 121):
        record.step({"step": step, **dict.fromkeys(CURVES, 1)})
"""


def test_a_curve_that_finds_no_room_costs_the_curve_alone(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FILLS_UP, str(tmp_path)], capture_output=True, text=True, timeout=100, check=True
    )
    assert ended.stdout.count("TensorBoard's file cannot be written: File too large. The run goes on without.") == 1
    assert [row["step"] for row in rows_of(tmp_path / "metrics.csv")] == list(range(1, 121))


# --- the report -----------------------------------------------------------------------------------------


def test_the_report_tells_what_was_trained_on_what_and_why(done: Path) -> None:
    told = (done / "report.md").read_text()
    digest = hashlib.sha256((done / "training.jsonl").read_bytes()).hexdigest()
    assert told.startswith("# ft:scratch-small:acme:tickets:ab12\n\nThe run is done: step 12 of 12.")
    assert "training.jsonl: 16 rows, " in told and f"sha256 `{digest}`" in told
    assert "validation.jsonl: 4 rows, " in told
    assert "| n_epochs | 3 | As asked for. |" in told
    assert "| learning_rate_multiplier | 1.0 | 1, the rate that " in told
    assert re.search(r"\| step-000012 \|", told)
    assert "- info: The run went on from step 7, " in told


def test_the_reports_losses_are_those_of_the_figures(done: Path) -> None:
    told, rows = (done / "report.md").read_text(), _rows(done)
    best = min(rows, key=lambda row: float(row["full_valid_loss"] or "inf"))
    measured = [row for row in rows if row["full_valid_loss"]]
    cells = [f"{float(row['full_valid_loss']):.4g} at step {row['step']}" for row in (measured[0], best, measured[-1])]
    assert f"| validation loss, whole file | {' | '.join(cells)} |" in told


def test_the_data_is_known_by_sums_and_counts(done: Path) -> None:
    data = json.loads((done / "run.json").read_text())["data"]
    assert data["training"]["sha256"] == hashlib.sha256((done / "training.jsonl").read_bytes()).hexdigest()
    assert (data["training"]["rows"], data["validation"]["rows"]) == (16, 4)
    assert 0 < data["training"]["trained_tokens"] < data["training"]["tokens"]


def test_the_losses_are_drawn(done: Path) -> None:
    assert "![Losses over steps](loss.png)" in (done / "report.md").read_text()
    with Image.open(done / "loss.png") as image:
        assert image.width >= 800 and image.height >= 400
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
    blue, orange = (0x1F, 0x5F, 0xAE), (0xD1, 0x60, 0x0A)
    assert {blue, orange} <= colours  # training and validation


def test_a_stopped_run_has_a_report_that_says_so(done: Path) -> None:
    told = (done / "report-when-stopped.md").read_text()
    assert "The run was stopped at step 7 of 12, and can go on from there." in told


def test_a_cancelled_job_has_a_report_that_says_how_far_it_came(done: Path, tmp_path: Path) -> None:
    """Its process was ended with it: the worker has the report written."""
    folder = shutil.copytree(done, tmp_path / "cancelled")
    subprocess.run([sys.executable, "-m", "stillroom.student.records.report", str(folder)], check=True, timeout=60)
    steps = len(_rows(folder))
    assert f"The run was cancelled at step {steps} of {steps}." in (folder / "report.md").read_text()


def test_a_failed_run_has_a_report_with_the_reason(tmp_path: Path) -> None:
    folder = _job(tmp_path / "failed")
    (folder / "training.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(InvalidTrainingFile):
        _run(folder)
    assert "The run failed at the first step: Line 1 has no list of 'messages'." in (folder / "report.md").read_text()


def test_a_run_that_broke_unforeseen_quotes_nothing(tmp_path: Path) -> None:
    folder = _job(tmp_path / "broken")

    def broken(event: Mapping[str, Any]) -> None:
        if event.get("step") == 2:
            raise LookupError("Aiko wrote this")

    with pytest.raises(LookupError):
        run.run(folder, broken, threading.Event())
    told = (folder / "report.md").read_text()
    assert "The run failed at step 1 of 12: LookupError" in told
    assert "Aiko" not in told


def test_a_killed_run_is_told_as_far_as_its_figures_go(done: Path) -> None:
    told = (done / "report-when-killed.md").read_text()
    assert re.search(r"The run is at step [2-9] of 12, or was ended there without a word\.", told)


def test_neither_rows_nor_people_nor_machines_are_named(done: Path) -> None:
    for name in ("report.md", "run.json", "environment.json", "events.jsonl"):
        text = (done / name).read_text()
        assert SYSTEM[:30] not in text
        for word in (*NAMES, "charged twice", "unacceptable", socket.gethostname(), getpass.getuser()):
            assert not re.search(rf"\b{re.escape(word)}\b", text), (name, word)


def test_versions_and_machine_are_known(done: Path) -> None:
    known = json.loads((done / "environment.json").read_text())
    assert known["python"].count(".") == 2
    assert {"torch", "transformers", "peft", "accelerate", "stillroom"} <= set(known["packages"])
    assert all(version for name, version in known["packages"].items() if name != "bitsandbytes")
    assert (known["threads"], known["processes"]) == (1, 1)
    assert known["cores"] >= 1 and known["memory_bytes"] > 2**28
