"""Where a run's figures go: `metrics.csv`, TensorBoard's files, and W&B where the run was asked to.

Owns that choice and the clock of the training. The loop hands every step's figures to one object and
knows none of the writers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from stillroom.student.events import Emit
from stillroom.student.records.metrics import METRICS_FILE, MetricsFile
from stillroom.student.records.wandb_run import WandbRun


class RunRecord:
    """The figures of a run's steps. What a killed run recorded after `after_step` is dropped everywhere.

    `integrations` are those of OpenAI's fine-tuning API: {"type": "wandb", "wandb": {"project", ...}}.
    """

    def __init__(
        self, folder: Path, *, after_step: int, emit: Emit, integrations: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self._emit = emit
        self._file = MetricsFile(folder / METRICS_FILE, after_step=after_step)
        self._events: Any = None
        if find_spec("tensorboardX") is not None:
            from stillroom.student.records import tensorboard

            self._events = tensorboard.EventFile(folder / tensorboard.FOLDER, self._file.kept)
        self._wandb = [WandbRun(folder, each["wandb"], emit) for each in integrations]
        before = self._file.kept[-1].get("elapsed_seconds", 0.0) if self._file.kept else 0.0
        self._began = time.monotonic() - before

    def step(self, figures: Mapping[str, Any]) -> None:
        """Records a step: its number and what was measured, by the names of `metrics.COLUMNS`."""
        recorded = {**figures, "elapsed_seconds": round(time.monotonic() - self._began, 3)}
        self._file.append(recorded)
        self._draw(recorded)
        for run in self._wandb:
            run.listen()

    def sync(self) -> None:
        """To the disk itself: a resume state must not be newer than its figures."""
        self._file.sync()

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()
        for run in self._wandb:
            run.close()

    def _draw(self, figures: Mapping[str, Any]) -> None:
        """For TensorBoard; a run is not lost for its curves."""
        if self._events is None:
            return
        try:
            self._events.add(figures)
        except OSError as error:
            message = f"TensorBoard's file cannot be written: {error.strerror}. The run goes on without."
            self._emit({"type": "message", "level": "warn", "message": message})
            with contextlib.suppress(OSError):
                self._events.close()
            self._events = None

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
