"""A run's figures for TensorBoard: `tensorboard/`, an event file.

Owns the names of the curves. The file is written anew by every process of a run, from the steps that
count: a run that was killed and resumed shows one clean curve, to whoever reads and whoever is watching.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from stillroom.student.records.metrics import Row

FOLDER = "tensorboard"
CURVES = {
    "train_loss": "train/loss",
    "train_mean_token_accuracy": "train/token_accuracy",
    "rewards_margin": "train/rewards_margin",
    "learning_rate": "train/learning_rate",
    "valid_loss": "validation/loss",
    "valid_mean_token_accuracy": "validation/token_accuracy",
    "full_valid_loss": "validation/full_loss",
    "full_valid_mean_token_accuracy": "validation/full_token_accuracy",
    "tokens_per_second": "speed/tokens_per_second",
    "computed_tokens_per_second": "speed/computed_tokens_per_second",
    "memory_bytes": "memory/bytes",
}
"""Figure -> the curve it is a point of."""
FLUSH_SECONDS = 2.0
"""Between two moments at which whoever watches sees something new."""


class EventFile:
    """An event file with the steps so far, to which further steps are added."""

    def __init__(self, folder: Path, steps: Sequence[Row]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Emptied, not removed: a TensorBoard that has one open goes on to the next only from a file that is there.
        for old in folder.iterdir():
            os.truncate(old, 0)
        now = time.time()
        # As TensorBoard's own files are called, but without the machine's name.
        self._writer = RecordWriter(str(folder / f"events.out.tfevents.{now:.6f}"))
        self._writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        # A TensorBoard that is watching forgets what it has seen of the run so far.
        start = Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START))
        self._writer.write(start.SerializeToString())
        self._flushed = time.monotonic()
        self._began = now - (_elapsed(steps[-1]) if steps else 0.0)
        for row in steps:
            self.add(row)
        self._flush()

    def add(self, figures: Mapping[str, Any]) -> None:
        values = [
            Summary.Value(tag=curve, simple_value=figures[name])
            for name, curve in CURVES.items()
            if figures.get(name) is not None
        ]
        moment = self._began + _elapsed(figures)
        event = Event(wall_time=moment, step=int(figures["step"]), summary=Summary(value=values))
        self._writer.write(event.SerializeToString())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def close(self) -> None:
        self._writer.close()

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()


def _elapsed(figures: Mapping[str, Any]) -> float:
    return float(figures.get("elapsed_seconds") or 0.0)
