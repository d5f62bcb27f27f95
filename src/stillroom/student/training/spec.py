"""What a run is told: the spec.json of its folder. `run` says what is in it.

Owns its form, and names the field that is missing or wrong. Opens nothing that it names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stillroom.errors import ConfigurationError
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.hyperparameters import Hyperparameters, MethodType, soft_label_weight_of


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What spec.json says."""

    base: BaseReference
    training_file: Path
    validation_file: Path | None
    hyperparameters: Hyperparameters
    seed: int
    threads: int
    checkpoint_seconds: float
    model_name: str
    method: MethodType = MethodType.SUPERVISED
    teacher: BaseReference | None = None
    """Who judges what the student says, where the method asks; None: itself."""
    memory_bytes: int | None = None
    """How much memory each process may take; None: as much as the machine has free when it begins."""
    integrations: tuple[Mapping[str, Any], ...] = ()
    """Where else its figures are shown: see `record`."""
    processes: int = 1
    """How many compute the run together on this machine; whoever starts them by another launcher decides himself."""
    sharding: bool = False
    """Whether each holds a shard of weights, gradients and optimizer state, or all of them."""

    @property
    def soft_label_weight(self) -> float:
        """0 where the method has no use for soft labels."""
        return soft_label_weight_of(self.hyperparameters) if self.method is MethodType.SUPERVISED else 0.0


def read_spec(folder: Path) -> Spec:
    """The spec of a run's folder; a missing or wrong field is named."""
    path = folder / "spec.json"
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if unknown := sorted(set(values) - {each.name for each in fields(Spec)}):
            raise ValueError(f"there is no '{unknown[0]}' among what a run may be told")
        return Spec(
            base=BaseReference(**values["base"]),
            training_file=Path(values["training_file"]),
            validation_file=Path(values["validation_file"]) if values.get("validation_file") else None,
            hyperparameters=Hyperparameters.from_json(values["hyperparameters"]),
            seed=int(values["seed"]),
            threads=int(values["threads"]),
            checkpoint_seconds=float(values["checkpoint_seconds"]),
            model_name=str(values["model_name"]),
            method=MethodType(values.get("method") or MethodType.SUPERVISED),
            teacher=BaseReference(**values["teacher"]) if values.get("teacher") else None,
            memory_bytes=int(values["memory_bytes"]) if values.get("memory_bytes") else None,
            processes=int(values.get("processes") or 1),
            integrations=tuple(values.get("integrations") or ()),
            sharding=bool(values.get("sharding")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} cannot be used: {_problem(error)}.") from error


def _problem(error: Exception) -> str:
    match error:
        case OSError():
            return f"{error.strerror}"
        case KeyError():
            return f"it lacks {error}"
        case json.JSONDecodeError():
            return f"it is not JSON ({error})"
        case _:
            return str(error)
