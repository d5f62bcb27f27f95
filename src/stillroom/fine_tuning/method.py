"""What a job is to learn by: the `method` of a request and its hyperparameters, every field checked.

OpenAI's requests have hyperparameters in two places, beside the method and in it; both are read. What a method has no
use for is refused by name, so that nobody believes it did something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from stillroom.errors import InvalidRequest, did_you_mean, shortened
from stillroom.student import hyperparameters as student
from stillroom.student.hyperparameters import LARGEST_BETA, ONLY_FOR, MethodType

AUTO = ("auto", -1, None)  # Azure's documents spell "auto" as -1
MODULE = re.compile(r"[A-Za-z0-9_.]{1,128}")
MOST_TARGETS = 64
REINFORCEMENT = "reinforcement"
ITSELF = "self"  # the teacher of an on-policy job that has no other
INNER = {MethodType.ON_POLICY: ("hyperparameters", "teacher")}
"""What a method's own object takes, where that is more than hyperparameters."""


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may choose; "auto" until the job has started, then the number that was chosen. What OpenAI
    does not have is left out until the job has started, unless it was asked for."""

    n_epochs: int | Literal["auto"] = "auto"
    """Passes over the training file, 1 to 50."""
    batch_size: int | Literal["auto"] = "auto"
    """Examples in one optimizer step, 1 to 256."""
    learning_rate_multiplier: float | Literal["auto"] = "auto"
    """Times the base model's own learning rate; above 0."""
    beta: float | Literal["auto"] | msgspec.UnsetType = msgspec.UNSET
    """Of the method dpo alone: how strongly the student is held to what it answered before, above 0, 2 at most.
    "auto": 0.1."""
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
    system_prompt: Literal["keep", "drop"] | msgspec.UnsetType = msgspec.UNSET
    """Whether rows are trained with their system prompt. "drop": it must be the same in all rows, the student learns
    to do without, and calls that begin with it are answered without. Default: "keep"."""
    soft_label_weight: float | msgspec.UnsetType = msgspec.UNSET
    """Of the method supervised alone: from 0, only the words of the answers count, to 1, only how likely the teacher
    held each word it could have said instead; the rows must have `logprobs`. Default: 0."""


def method_asked(body: Mapping[str, Any]) -> tuple[MethodType, Hyperparameters]:
    """The method that a request's body asks for, and its hyperparameters, in either place. Raises InvalidRequest
    naming the first wrong field."""
    method, own = _method(body.get("method"))
    inside = optional_object(own, "hyperparameters", f"method.{method}.hyperparameters")
    outside = optional_object(body, "hyperparameters", "hyperparameters")
    for name in sorted(set(outside) & set(inside)):
        if outside[name] != inside[name]:
            raise InvalidRequest(
                f"'{name}' is {written(outside[name])} in 'hyperparameters' and {written(inside[name])} in "
                f"'method.{method}.hyperparameters'. Give it once.",
                param=f"hyperparameters.{name}",
            )
    return method, _hyperparameters(method, {**outside, **inside})


def teacher_asked(body: Mapping[str, Any]) -> str | None:
    """The model that is to judge what the student of an on-policy job says; None: the student itself."""
    method, own = _method(body.get("method"))
    teacher = own.get("teacher")
    if teacher is not None and (not isinstance(teacher, str) or not teacher):
        param = f"method.{method}.teacher"
        raise InvalidRequest(
            f"Invalid '{param}': {written(teacher)}. Expected the name of a model, or \"{ITSELF}\".", param=param
        )
    return None if teacher == ITSELF else teacher


def wanted_of(asked: Hyperparameters) -> student.Hyperparameters:
    """The same for the trainer's rules."""
    return student.Hyperparameters.from_json(msgspec.to_builtins(asked))


def _method(value: Any) -> tuple[MethodType, dict[str, Any]]:
    """The method, and the object that it has of its own."""
    if value is None:
        return MethodType.SUPERVISED, {}
    if not isinstance(value, dict):
        raise InvalidRequest(
            f'Invalid type for \'method\': expected an object like {{"type": "dpo"}}, got {written(value)}.',
            param="method",
            code="invalid_type",
        )
    method = _type(value.get("type", MethodType.SUPERVISED.value))
    for name in sorted(set(value) - {"type", method.value}):
        if name not in (*MethodType, REINFORCEMENT):
            known = ", ".join(("type", *MethodType))
            raise InvalidRequest(
                f"Unknown parameter: 'method.{shortened(name)}'. Known are: {known}.",
                param=f"method.{shortened(name)}",
                code="unknown_parameter",
            )
        if value[name] is not None:
            raise InvalidRequest(
                f"'method.{name}' has no effect on a job of type '{method}'. Leave it out, or set 'method.type' to '{name}'.",
                param=f"method.{name}",
            )
    inner = optional_object(value, method.value, f"method.{method}")
    takes = INNER.get(method, ("hyperparameters",))
    for name in sorted(set(inner) - set(takes)):
        raise InvalidRequest(
            f"Unknown parameter: 'method.{method}.{shortened(name)}'. Known are: {', '.join(takes)}; numbers such as "
            "'n_epochs' belong into 'hyperparameters'.",
            param=f"method.{method}.{shortened(name)}",
            code="unknown_parameter",
        )
    return method, inner


def _type(value: Any) -> MethodType:
    if value == REINFORCEMENT:
        raise InvalidRequest(
            "The method 'reinforcement' is not supported. Use 'supervised' on a teacher's answers, or 'dpo' on pairs of "
            "a better and a worse answer; `stillroom distill pairs --run` makes them of what a grader failed.",
            param="method.type",
        )
    if not isinstance(value, str) or value not in tuple(MethodType):
        raise InvalidRequest(
            f"Invalid 'method.type': {written(value)}. Expected one of {', '.join(MethodType)}.", param="method.type"
        )
    return MethodType(value)


def _hyperparameters(method: MethodType, given: Mapping[str, Any]) -> Hyperparameters:
    _refuse_useless(method, given)
    return Hyperparameters(
        n_epochs=_whole(given, "n_epochs", 50),
        batch_size=_whole(given, "batch_size", 256),
        learning_rate_multiplier=_number(given, "learning_rate_multiplier", 1000),
        beta=_number(given, "beta", LARGEST_BETA) if method is MethodType.DPO else msgspec.UNSET,
        training=_choice(given, "training", ("lora", "full")),
        lora_rank=_optional_whole(given, "lora_rank", 1024),
        lora_alpha=_optional_whole(given, "lora_alpha", 4096),
        lora_targets=_targets(given.get("lora_targets")),
        long_rows=_choice(given, "long_rows", ("fail", "truncate")),
        system_prompt=_choice(given, "system_prompt", ("keep", "drop")),
        soft_label_weight=_share(given, "soft_label_weight"),
    )


def _refuse_useless(method: MethodType, given: Mapping[str, Any]) -> None:
    if unknown := sorted(set(given) - set(Hyperparameters.__struct_fields__)):
        known = [name for name in Hyperparameters.__struct_fields__ if name not in ONLY_FOR or method in ONLY_FOR[name]]
        raise InvalidRequest(
            f"Unknown hyperparameter '{shortened(unknown[0])}'; known are {', '.join(known)}."
            + did_you_mean(unknown[0], known),
            param=f"hyperparameters.{shortened(unknown[0])}",
        )
    for name, methods in ONLY_FOR.items():
        if given.get(name) not in AUTO and method not in methods:
            raise InvalidRequest(
                f"'{name}' has no effect on a job of type '{method}'; it is for {' and '.join(methods)}. Leave it out.",
                param=f"hyperparameters.{name}",
            )


def _whole(given: Mapping[str, Any], name: str, most: int) -> int | Literal["auto"]:
    value = given.get(name)
    if value in AUTO and not isinstance(value, bool):
        return "auto"
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidRequest(
            f"Invalid '{name}': {written(value)}. Expected \"auto\" or a whole number from 1 to {most}.",
            param=f"hyperparameters.{name}",
        )
    return value


def _number(given: Mapping[str, Any], name: str, most: float) -> float | Literal["auto"]:
    value = given.get(name)
    if value in AUTO:
        return "auto"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise InvalidRequest(
            f"Invalid '{name}': {written(value)}. Expected \"auto\" or a number above 0, {most:g} at most.",
            param=f"hyperparameters.{name}",
        )
    return float(value)


def _share(given: Mapping[str, Any], name: str) -> float | msgspec.UnsetType:
    value = given.get(name)
    if value in AUTO:
        return msgspec.UNSET
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidRequest(
            f"Invalid '{name}': {written(value)}. Expected a number from 0 to 1.", param=f"hyperparameters.{name}"
        )
    return float(value)


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
            f"Invalid 'lora_targets': {shortened(repr(value))}. Expected \"all-linear\" or a list of 1 to {MOST_TARGETS} "
            'module names, such as ["q_proj", "v_proj"].',
            param="hyperparameters.lora_targets",
        )
    return tuple(value)


def optional_object(body: Mapping[str, Any], name: str, param: str) -> dict[str, Any]:
    """The object that stands there; empty where there is none. Raises InvalidRequest for anything else."""
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"Invalid type for '{param}': expected an object.", param=param, code="invalid_type")
    return value or {}


def written(value: Any) -> str:
    """As the caller wrote it."""
    return shortened(msgspec.json.encode(value).decode())
