"""A run's figures on disk: `metrics.csv`, one line a step.

Owns the columns and that a resumed run neither repeats nor loses a step, however its predecessor ended.
Does not know who reads them: `report`, TensorBoard files and W&B are made of the same lines.
"""

from __future__ import annotations

import csv
import errno
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stillroom.errors import DiskFull

METRICS_FILE = "metrics.csv"
COLUMNS = {
    # Those of OpenAI's and Azure's result files, by name and in order as their scripts read them.
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "train_mean_token_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
    "validation_mean_token_accuracy": "valid_mean_token_accuracy",
    "full_valid_loss": "full_valid_loss",
    "full_valid_mean_token_accuracy": "full_valid_mean_token_accuracy",
    # Ours.
    "learning_rate": "learning_rate",
    "tokens_per_second": "tokens_per_second",
    "computed_tokens_per_second": "computed_tokens_per_second",
    "memory_bytes": "memory_bytes",
    "elapsed_seconds": "elapsed_seconds",
    "rewards_margin": "rewards_margin",
}
"""Column -> the figure it shows; Azure and OpenAI name some figures differently."""
CHECKPOINT_FIGURES = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)
"""What a checkpoint is told with, by OpenAI's names."""

Row = dict[str, float]
"""A step's figures by name, without those that it did not measure."""


class MetricsFile:
    """Appends a line a step; what a killed run wrote after `after_step` is dropped."""

    def __init__(self, path: Path, *, after_step: int) -> None:
        self.kept = list(itertools.takewhile(lambda row: row["step"] <= after_step, rows_of(path)))
        # Beside the old one and then in its place: a kill between the two must not lose a step.
        draft = path.with_suffix(".part")
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(COLUMNS))
            writer.writeheader()
            writer.writerows(map(_line, self.kept))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        self._file = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, list(COLUMNS))

    def append(self, figures: Mapping[str, Any]) -> None:
        """Raises DiskFull."""
        try:
            self._writer.writerow(_line(figures))
            self._file.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DiskFull(f"The disk is full: {self._file.name} cannot be written. Make room there.") from error

    def sync(self) -> None:
        """To the disk itself: a resume state must not be newer than its metrics."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def rows_of(path: Path) -> Iterator[Row]:
    """The steps of a metrics file in order, up to the first line that a kill has left torn; none without a file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        whole = (line for line in file if line.endswith("\n"))
        for number, line in enumerate(csv.DictReader(whole), start=1):
            row = _row(line)
            if row is None or row.get("step") != number:
                return
            yield row


class Follower:
    """Reads a metrics file while it is being written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open(encoding="utf-8", newline="")
        self._rest = ""
        self._columns: list[str] = []

    def new_rows(self) -> list[Row]:
        """The steps that were written since the last look."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        if lines and not self._columns:
            self._columns = next(csv.reader([lines.pop(0)]))
        rows = map(_row, csv.DictReader(lines, self._columns))
        return [row for row in rows if row is not None]

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _row(line: Mapping[str | Any, str | Any]) -> Row | None:
    """None for a line that is no step."""
    try:
        return {COLUMNS[column]: _number(text) for column, text in line.items() if text and column in COLUMNS}
    except ValueError:
        return None


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def _line(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {column: figures.get(figure) for column, figure in COLUMNS.items()}
