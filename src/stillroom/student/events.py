"""What a run tells while it goes on: see `training.run` for the kinds of events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Figures = dict[str, float | int | None]
"""A step's, by the names of `records.metrics`."""
Emit = Callable[[Mapping[str, Any]], None]
