"""Workers that die or freeze while they run jobs: each job ends once all the same, as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.torment import Torment

pytestmark = pytest.mark.slow


@pytest.mark.timeout(420)
def test_jobs_whose_workers_are_killed_and_stopped_end_once_as_if_undisturbed(tmp_path: Path) -> None:
    """In small; `benchmarks/interrupted_jobs.py` does it with 30 jobs, 50 kills and 20 stops."""
    figures = Torment(tmp_path, jobs=2, kills=2, stops=1, workers=2, seed=2).run(limit_seconds=360)
    assert figures.violations == []
    # The control: they were disturbed.
    assert figures.kills + figures.stops_taken_over + figures.stops_short + figures.not_used == 3
    assert figures.claims >= 3 + figures.kills
