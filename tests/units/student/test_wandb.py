"""Runs at Weights & Biases: the real wandb, and a server that speaks its protocol."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom.student.records import wandb_run
from stillroom.student.records.record import RunRecord
from tests.wandb_server import WandbServer

KEY = "0123456789" * 4
RUN = {"type": "wandb", "wandb": {"project": "tickets", "name": "first", "entity": None, "tags": ["a"], "id": "job-1"}}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("WANDB_MODE", raising=False)
        yield running


def _recorded(folder: Path, steps: range, *, after_step: int = 0) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    told: list[dict[str, Any]] = []
    with RunRecord(
        folder, after_step=after_step, emit=lambda event: told.append(dict(event)), integrations=[RUN]
    ) as record:
        for step in steps:
            record.step({"step": step, "train_loss": 1 / step, "valid_loss": 2.0 if step % 5 == 0 else None})
    return told


def test_every_step_is_shown_once_with_its_figures(tmp_path: Path, server: WandbServer) -> None:
    told = _recorded(tmp_path / "run", range(1, 21))
    assert told == [
        {
            "type": "message",
            "level": "info",
            "message": f"W&B shows this run at {server.url}/somebody/tickets/runs/job-1",
        }
    ]
    run = server.runs["job-1"]
    assert (run["project"], run["displayName"], run["tags"]) == ("tickets", "first", ["a"])
    assert server.steps("job-1") == list(range(1, 21))
    assert run["history"][4]["train_loss"] == 0.2
    assert [line["_step"] for line in run["history"] if "valid_loss" in line] == [5, 10, 15, 20]


def test_a_resumed_run_goes_on_where_wandb_has_it(tmp_path: Path, server: WandbServer) -> None:
    _recorded(tmp_path / "run", range(1, 11))
    _recorded(tmp_path / "run", range(7, 16), after_step=6)
    assert server.steps("job-1") == list(range(1, 16))


def test_the_key_goes_to_wandb_and_nowhere_else(tmp_path: Path, server: WandbServer) -> None:
    _recorded(tmp_path / "run", range(1, 4))
    assert server.keys == {"Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_nothing_of_the_machine_is_sent(tmp_path: Path, server: WandbServer) -> None:
    _recorded(tmp_path / "run", range(1, 4))
    assert "host" not in server.runs["job-1"]
    assert not [text for text in server.requests if str(tmp_path) in text or "requirements.txt" in text]


def test_a_key_that_wandb_cannot_use_is_told_and_stops_nothing(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short-key")
    (told,) = _recorded(tmp_path / "run", range(1, 4))
    assert told["level"] == "warn"
    assert told["message"].startswith("W&B does not show this run, or not all of it: ")
    assert "short-key" not in told["message"]
    assert not server.runs
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 4


def test_a_server_that_is_down_is_told_and_holds_nothing_up_for_long(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_run, "END_SECONDS", 3.0)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    (told,) = _recorded(tmp_path / "run", range(1, 4))
    assert told == {"type": "message", "level": "warn", "message": "W&B has not answered within 3 s of the run's end."}
    assert time.monotonic() - began < 10


def test_offline_runs_lie_in_the_folder_to_be_sent_later(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY")
    (told,) = _recorded(tmp_path / "run", range(1, 4))
    assert told["message"] == "W&B is offline: `wandb sync` sends what is in run/wandb."
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-job-1.wandb")
    assert b"train_loss" in kept.read_bytes()
    assert not server.requests


def test_hyperparameters_and_data_are_in_wandbs_table(tmp_path: Path, server: WandbServer) -> None:
    (tmp_path / "run").mkdir()
    about = {
        "base": {"name": "scratch-small"},
        "data": {"training": {"rows": 24, "tokens": 2400}},
        "hyperparameters": {"chosen": {"n_epochs": 3, "training": "full"}},
    }
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    _recorded(tmp_path / "run", range(1, 4))
    config = json.loads(server.runs["job-1"]["config"])
    shown = {name: given["value"] for name, given in config.items() if name != "_wandb"}
    assert shown == {
        "n_epochs": 3,
        "training": "full",
        "base": "scratch-small",
        "training_rows": 24,
        "training_tokens": 2400,
    }
