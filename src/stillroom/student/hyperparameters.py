"""Hyperparameters as a job states them, and the one rule that turns "auto" into numbers.

Knows counts only: no files, no models, no torch, so that whoever asks what "auto" would be is told by
the rule that the trainer goes by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from stillroom.errors import InvalidRequest

Auto = Literal["auto"]


class Training(StrEnum):
    """Which weights a job moves."""

    FULL = "full"
    ADAPTER = "adapter"


BASE_LEARNING_RATE = {Training.FULL: 3e-3, Training.ADAPTER: 2e-4}
"""What a multiplier of 1 means. Full training is for the small students that start from nothing."""

AUTO_STEPS = {Training.FULL: 450, Training.ADAPTER: 150}
AUTO_EPOCHS = {Training.FULL: 6, Training.ADAPTER: 2}
"""What "auto" gives at least; a pretrained base needs fewer of both."""

AUTO_STEPS_AT_MOST = 2000
"""Where the file alone has more, one pass is enough."""

AUTO_BATCH_SIZES = ((64, 4), (5000, 8))
"""Below so many rows, so many in a step."""
AUTO_BATCH_SIZE_AT_MOST = 16


AS_ASKED = "As asked for."
WHOSE = {Training.FULL: "a student that starts from nothing", Training.ADAPTER: "an adapter on a trained base"}


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """As the job's owner wrote them."""

    n_epochs: int | Auto = "auto"
    """Passes over the training file. "auto": at least 6 passes and 450 optimizer steps (2 and 150 for an
    adapter), but no more passes than fit into 2,000 steps. Eleven rows get 150, 1,000 rows 6, 10,000 rows 3."""
    batch_size: int | Auto = "auto"
    """Rows in an optimizer step. "auto": 4 below 64 rows, 8 below 5,000, then 16."""
    learning_rate_multiplier: float | Auto = "auto"
    """Times the base rate: 3e-3 when all weights are trained, 2e-4 for an adapter. "auto": 1."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Hyperparameters:
        return cls(
            n_epochs=_whole(values, "n_epochs"),
            batch_size=_whole(values, "batch_size"),
            learning_rate_multiplier=_positive(values, "learning_rate_multiplier"),
        )


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Numbers a run is made of."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    learning_rate: float
    total_steps: int


def resolve(wanted: Hyperparameters, *, num_examples: int, training: Training) -> Resolved:
    """The numbers for a file of `num_examples` rows."""
    batch = _auto_batch_size(num_examples) if wanted.batch_size == "auto" else wanted.batch_size
    batch = min(batch, num_examples)
    steps = steps_per_epoch(num_examples, batch)
    epochs = _auto_epochs(steps, training) if wanted.n_epochs == "auto" else wanted.n_epochs
    multiplier = 1.0 if wanted.learning_rate_multiplier == "auto" else wanted.learning_rate_multiplier
    return Resolved(
        n_epochs=epochs,
        batch_size=batch,
        learning_rate_multiplier=multiplier,
        learning_rate=BASE_LEARNING_RATE[training] * multiplier,
        total_steps=steps * epochs,
    )


def learning_rate_at(step: int, *, total_steps: int, peak: float) -> float:
    """The rate of step `step` (from 1): 5 % of all steps up, then straight down to zero after the last."""
    warm_up = max(1, round(0.05 * total_steps))
    if step <= warm_up:
        return peak * step / warm_up
    return peak * (total_steps - step + 1) / (total_steps - warm_up + 1)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """How many batches a pass over the examples has."""
    return -(-num_examples // batch_size)


def reasons(wanted: Hyperparameters, numbers: Resolved, *, num_examples: int, training: Training) -> dict[str, str]:
    """How `resolve` came to each number, one sentence each, by the hyperparameter's name."""
    return {
        "n_epochs": _why_epochs(numbers, num_examples, training) if wanted.n_epochs == "auto" else AS_ASKED,
        "batch_size": _why_batch_size(wanted, numbers, num_examples),
        "learning_rate_multiplier": _why_rate(wanted, numbers, training),
    }


def _why_epochs(numbers: Resolved, num_examples: int, training: Training) -> str:
    steps = numbers.total_steps // numbers.n_epochs
    a_pass = f"a pass over {num_examples:,} examples in batches of {numbers.batch_size} is {_steps(steps)}"
    least, fewest = AUTO_EPOCHS[training], AUTO_STEPS[training]
    passes = f"{numbers.n_epochs} {'pass' if numbers.n_epochs == 1 else 'passes'}"
    if numbers.n_epochs < max(least, -(-fewest // steps)):
        return f"{passes}: {a_pass}, and more passes would not stay within {AUTO_STEPS_AT_MOST:,} steps."
    if numbers.n_epochs > least:
        return f"{passes}: {a_pass}, and {WHOSE[training]} gets at least {fewest} steps."
    return f"{passes}, the fewest that {WHOSE[training]} gets: {a_pass}, {_steps(numbers.total_steps)} in all."


def _why_batch_size(wanted: Hyperparameters, numbers: Resolved, num_examples: int) -> str:
    size = _auto_batch_size(num_examples) if wanted.batch_size == "auto" else wanted.batch_size
    if numbers.batch_size < size:
        return f"{numbers.batch_size}: there are no more examples."
    if wanted.batch_size != "auto":
        return AS_ASKED
    below = next((rows for rows, size in AUTO_BATCH_SIZES if num_examples < rows), None)
    found = f"{numbers.batch_size} examples in a step"
    if below is None:
        return f"{found}: so many from {AUTO_BATCH_SIZES[-1][0]:,} examples on."
    return f"{found}: so many below {below:,} examples."


def _why_rate(wanted: Hyperparameters, numbers: Resolved, training: Training) -> str:
    peak = f"the rate rises to {numbers.learning_rate:g} and falls to zero"
    if wanted.learning_rate_multiplier != "auto":
        return f"{AS_ASKED[:-1]}: {peak}."
    return f"1, the rate that {WHOSE[training]} is made for: {peak}."


def _steps(count: int) -> str:
    return f"{count:,} {'step' if count == 1 else 'steps'}"


def _auto_batch_size(num_examples: int) -> int:
    return next((size for rows, size in AUTO_BATCH_SIZES if num_examples < rows), AUTO_BATCH_SIZE_AT_MOST)


def _auto_epochs(steps: int, training: Training) -> int:
    wanted = max(AUTO_EPOCHS[training], -(-AUTO_STEPS[training] // steps))
    return max(1, min(wanted, AUTO_STEPS_AT_MOST // steps))


def _whole(values: Mapping[str, Any], name: str) -> int | Auto:
    value = values.get(name, "auto")
    if value == "auto":
        return "auto"
    # bool is an int to Python; JSON true is no number.
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequest(f"'{name}' is {value!r}; it must be \"auto\" or a whole number from 1.", param=name)
    return value


def _positive(values: Mapping[str, Any], name: str) -> float | Auto:
    value = values.get(name, "auto")
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InvalidRequest(f"'{name}' is {value!r}; it must be \"auto\" or a number above 0.", param=name)
    return float(value)
