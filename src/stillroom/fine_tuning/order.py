"""A fine-tuning job as it is asked for: every field of the request, checked."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillroom.chat import check_metadata
from stillroom.errors import InvalidRequest
from stillroom.fine_tuning.integrations import Integration, parse_integrations
from stillroom.fine_tuning.method import Hyperparameters, method_asked, teacher_asked, written
from stillroom.student.hyperparameters import MethodType

SUFFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job as it was asked for, with every value checked."""

    model: str
    training_file: str
    validation_file: str | None
    method: MethodType
    hyperparameters: Hyperparameters
    teacher: str | None
    """Of an on-policy job: who judges what the student says; None: the student itself."""
    suffix: str | None
    seed: int
    metadata: dict[str, str] | None
    integrations: tuple[Integration, ...]
    warnings: tuple[str, ...]


def parse_order(body: Mapping[str, Any]) -> Order:
    """The order in a request's body. Raises InvalidRequest naming the first wrong field."""
    known = {"model", "training_file", "validation_file", "method", "hyperparameters", "suffix", "seed"}
    known |= {"metadata", "integrations", "trainingType"}
    if unknown := sorted(set(body) - known):
        raise InvalidRequest(f"Unrecognized request argument supplied: {unknown[0]}", code="unknown_parameter")
    for name in ("model", "training_file"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise InvalidRequest(
                f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
            )
    check_metadata(body.get("metadata"))
    warnings = ("trainingType has no effect: jobs run on this machine.",) if body.get("trainingType") else ()
    method, hyperparameters = method_asked(body)
    return Order(
        model=body["model"],
        training_file=body["training_file"],
        validation_file=_optional_text(body, "validation_file"),
        method=method,
        hyperparameters=hyperparameters,
        teacher=teacher_asked(body),
        suffix=_suffix(body.get("suffix")),
        seed=_seed(body.get("seed")),
        metadata=body.get("metadata"),
        integrations=parse_integrations(body.get("integrations")),
        warnings=warnings,
    )


def _optional_text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"Invalid type for '{name}': expected a string.", param=name, code="invalid_type")
    return value or None


def _suffix(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not SUFFIX.fullmatch(value):
        raise InvalidRequest(
            f"Invalid 'suffix': {written(value)}. Expected 1 to 64 letters, digits, '-' or '_'.", param="suffix"
        )
    return value


def _seed(value: Any) -> int:
    if value is None:
        return secrets.randbelow(MAX_SEED)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise InvalidRequest(
            f"Invalid 'seed': {written(value)}. Expected a whole number from 0 to {MAX_SEED}.", param="seed"
        )
    return value
