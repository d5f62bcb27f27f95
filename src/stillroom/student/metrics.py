"""A run's figures, one CSV line a step.

Owns the columns (those of OpenAI's and Azure's result files together, so that scripts written for either
read it) and that a resumed run neither repeats nor loses a step.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "train_mean_token_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
    "validation_mean_token_accuracy": "valid_mean_token_accuracy",
    "full_valid_loss": "full_valid_loss",
    "full_valid_mean_token_accuracy": "full_valid_mean_token_accuracy",
}
"""Column -> the figure it shows; Azure and OpenAI name some figures differently."""


class MetricsFile:
    """Appends a line a step; what a killed run wrote after `after_step` is dropped."""

    def __init__(self, path: Path, *, after_step: int) -> None:
        kept = _rows_until(path, after_step)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, list(COLUMNS))
        self._writer.writeheader()
        self._writer.writerows(kept)
        self._file.flush()

    def append(self, figures: Mapping[str, Any]) -> None:
        self._writer.writerow({column: figures.get(figure) for column, figure in COLUMNS.items()})
        self._file.flush()

    def sync(self) -> None:
        """To the disk itself: a resume state must not be newer than its metrics."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _rows_until(path: Path, step: int) -> list[dict[str, str]]:
    if step == 0 or not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= step]
