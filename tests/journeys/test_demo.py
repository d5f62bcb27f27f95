"""The first thing the README shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run_demo(data: Path, *flags: str) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "stillroom",
        "demo",
        "--data",
        str(data),
        "--port",
        "0",
        "--exit",
        "--json",
        *flags,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_the_demo_makes_a_student_that_agrees_on_tickets_it_has_not_seen(tmp_path: Path) -> None:
    figures = run_demo(tmp_path / "data")
    assert figures["agreement"] >= 0.95
    assert figures["held_out"] >= 200
    assert figures["held_out_among_training"] == 0
    assert figures["last_loss"] < figures["first_loss"] / 10
    assert figures["student"]["price_per_1000"] < figures["teacher"]["price_per_1000"]


def test_the_demo_shows_its_steps_quickly_and_can_be_run_twice_on_one_folder(tmp_path: Path) -> None:
    first, second = (run_demo(tmp_path / "data", "--fast") for _ in range(2))
    assert first["held_out"] == second["held_out"] == 20
    # A hundred examples do not make a good student: the figure is honest, not the same as in the full run.
    assert first["agreement"] < 0.95
