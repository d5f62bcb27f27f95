"""A fine-tuning job as it is asked for: every field of the request, checked."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from stillroom.chat import check_metadata
from stillroom.errors import InvalidRequest, shortened
from stillroom.fine_tuning.integrations import Integration, parse_integrations
from stillroom.student import hyperparameters as student

SUFFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_SEED = 2**31 - 1
AUTO = ("auto", -1, None)  # Azure's documents spell "auto" as -1
MODULE = re.compile(r"[A-Za-z0-9_.]{1,128}")
MOST_TARGETS = 64
KNOWN_METHODS = ("supervised", "dpo", "reinforcement")


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may choose; "auto" until the job has started, then the number that was chosen. What OpenAI
    does not have is left out until the job has started, unless it was asked for."""

    n_epochs: int | Literal["auto"] = "auto"
    """Passes over the training file, 1 to 50."""
    batch_size: int | Literal["auto"] = "auto"
    """Examples in one optimizer step, 1 to 256."""
    learning_rate_multiplier: float | Literal["auto"] = "auto"
    """Times the base model's own learning rate; above 0."""
    training: Literal["lora", "full"] | msgspec.UnsetType = msgspec.UNSET
    """Which weights move: an adapter's beside the base's, or all. Default: an adapter where the base has weights to
    put one on; a fine-tuned model goes on as it began."""
    lora_rank: int | msgspec.UnsetType = msgspec.UNSET
    """The adapter's rank, 1 to 1024. Default: 16."""
    lora_alpha: int | msgspec.UnsetType = msgspec.UNSET
    """The adapter counts alpha / rank times, 1 to 4096. Default: twice the rank."""
    lora_targets: Literal["all-linear"] | tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """The linear modules that get one, by name, such as `["q_proj", "v_proj"]`. Default: all but the output head."""
    long_rows: Literal["fail", "truncate"] | msgspec.UnsetType = msgspec.UNSET
    """What becomes of a row with more tokens than the model reads: the job fails and names it, or cuts the row at its
    end and warns. Default: "fail"."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job as it was asked for, with every value checked."""

    model: str
    training_file: str
    validation_file: str | None
    hyperparameters: Hyperparameters
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
    return Order(
        model=body["model"],
        training_file=body["training_file"],
        validation_file=_optional_text(body, "validation_file"),
        hyperparameters=hyperparameters_of(body),
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


def _optional_object(body: Mapping[str, Any], name: str, param: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"Invalid type for '{param}': expected an object.", param=param, code="invalid_type")
    return value or {}


def hyperparameters_of(body: Mapping[str, Any]) -> Hyperparameters:
    """Those that a request's body asks for, in either place. Raises InvalidRequest naming the first wrong one."""
    method = body.get("method") or {"type": "supervised"}
    if not isinstance(method, dict) or method.get("type", "supervised") not in KNOWN_METHODS:
        raise InvalidRequest(f"Invalid 'method': expected a type among {', '.join(KNOWN_METHODS)}.", param="method")
    kind = method.get("type", "supervised")
    if kind != "supervised":
        raise InvalidRequest(f"The method '{kind}' is not supported; use 'supervised'.", param="method.type")
    inner = _optional_object(method, kind, f"method.{kind}")
    outside = _optional_object(body, "hyperparameters", "hyperparameters")
    inside = _optional_object(inner, "hyperparameters", "hyperparameters")
    for name in sorted(set(outside) & set(inside)):
        if outside[name] != inside[name]:
            raise InvalidRequest(
                f"'{name}' is {_written(outside[name])} in 'hyperparameters' and {_written(inside[name])} in "
                f"'method.{kind}.hyperparameters'. Give it once.",
                param=f"hyperparameters.{name}",
            )
    given = {**outside, **inside}
    if unknown := sorted(set(given) - set(Hyperparameters.__struct_fields__)):
        raise InvalidRequest(
            f"Unknown hyperparameter '{unknown[0]}'; known are {', '.join(Hyperparameters.__struct_fields__)}.",
            param=f"hyperparameters.{unknown[0]}",
        )
    return Hyperparameters(
        n_epochs=_whole(given, "n_epochs", 50),
        batch_size=_whole(given, "batch_size", 256),
        learning_rate_multiplier=_multiplier(given.get("learning_rate_multiplier")),
        training=_choice(given, "training", ("lora", "full")),
        lora_rank=_optional_whole(given, "lora_rank", 1024),
        lora_alpha=_optional_whole(given, "lora_alpha", 4096),
        lora_targets=_targets(given.get("lora_targets")),
        long_rows=_choice(given, "long_rows", ("fail", "truncate")),
    )


def _whole(given: Mapping[str, Any], name: str, most: int) -> int | Literal["auto"]:
    value = given.get(name)
    if value in AUTO and not isinstance(value, bool):
        return "auto"
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidRequest(
            f"Invalid '{name}': {_written(value)}. Expected \"auto\" or a whole number from 1 to {most}.",
            param=f"hyperparameters.{name}",
        )
    return value


def _multiplier(value: Any) -> float | Literal["auto"]:
    if value in AUTO:
        return "auto"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1000:
        raise InvalidRequest(
            f"Invalid 'learning_rate_multiplier': {_written(value)}. Expected \"auto\" or a number above 0, 1000 at most.",
            param="hyperparameters.learning_rate_multiplier",
        )
    return float(value)


def wanted_of(asked: Hyperparameters) -> student.Hyperparameters:
    """The same for the trainer's rules."""
    return student.Hyperparameters.from_json(msgspec.to_builtins(asked))


def _optional_whole(given: Mapping[str, Any], name: str, most: int) -> int | msgspec.UnsetType:
    value = _whole(given, name, most)
    return msgspec.UNSET if value == "auto" else value


def _choice(given: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> Any:
    value = given.get(name)
    if value in AUTO:
        return msgspec.UNSET
    if value not in choices:
        raise InvalidRequest(
            f"Invalid '{name}': {shortened(repr(value))}. Expected one of {', '.join(choices)}.",
            param=f"hyperparameters.{name}",
        )
    return value


def _targets(value: Any) -> Literal["all-linear"] | tuple[str, ...] | msgspec.UnsetType:
    if value in AUTO:
        return msgspec.UNSET
    if value == "all-linear":
        return "all-linear"
    are_names = isinstance(value, list) and all(isinstance(each, str) and MODULE.fullmatch(each) for each in value)
    if not are_names or not 0 < len(value) <= MOST_TARGETS:
        raise InvalidRequest(
            f"Invalid 'lora_targets': {shortened(repr(value))}. Expected \"all-linear\" or a list of 1 to {MOST_TARGETS} module names, "
            'such as ["q_proj", "v_proj"].',
            param="hyperparameters.lora_targets",
        )
    return tuple(value)


def _written(value: Any) -> str:
    """As the caller wrote it."""
    return shortened(msgspec.json.encode(value).decode())


def _suffix(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not SUFFIX.fullmatch(value):
        raise InvalidRequest(
            f"Invalid 'suffix': {_written(value)}. Expected 1 to 64 letters, digits, '-' or '_'.", param="suffix"
        )
    return value


def _seed(value: Any) -> int:
    if value is None:
        return secrets.randbelow(MAX_SEED)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise InvalidRequest(
            f"Invalid 'seed': {_written(value)}. Expected a whole number from 0 to {MAX_SEED}.", param="seed"
        )
    return value
