"""What a job reports to besides its owner: Weights & Biases, as OpenAI's `integrations` ask for it.

Owns how they are asked for, and whether this installation can do them. The key is never part of a job:
it is read where a job starts and given to its process by environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import msgspec

from stillroom.config import TrainingSettings, secret
from stillroom.errors import ConfigurationError, InvalidRequest

WANDB = "wandb"
KEY = "WANDB_API_KEY"
MODE = "WANDB_MODE"
PARAM = "integrations"
MOST = 5
MOST_LETTERS = 128
MOST_TAGS, MOST_TAG_LETTERS = 50, 64
NOT_IN_PROJECTS = '/\\#?%:"'


class WandbRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the job's figures go at W&B."""

    project: str
    name: str | None = None
    entity: str | None = None
    tags: list[str] = []


class Integration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of a job's."""

    type: str
    wandb: WandbRun


def parse_integrations(value: Any) -> tuple[Integration, ...]:
    """Those of a request's body. Raises InvalidRequest naming what is wrong."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidRequest("Invalid type for 'integrations': expected a list.", param=PARAM, code="invalid_type")
    if len(value) > MOST:
        raise InvalidRequest(f"Invalid 'integrations': {len(value)} of them; at most {MOST} are taken.", param=PARAM)
    found = tuple(_integration(each, f"integrations[{index}]") for index, each in enumerate(value))
    places = [(each.wandb.entity, each.wandb.project) for each in found]
    if len(set(places)) < len(places):
        raise InvalidRequest("Invalid 'integrations': two of them name the same project.", param=PARAM)
    return found


def refuse_impossible(integrations: Sequence[Integration], settings: TrainingSettings) -> None:
    """Raises InvalidRequest, with the remedy, when jobs here cannot do what was asked for."""
    if not integrations:
        return
    otherwise = "or leave 'integrations' out."
    if find_spec(WANDB) is None:
        raise InvalidRequest(
            f"The integration 'wandb' needs a package that is not installed here: `pip install 'stillroom[wandb]'`, {otherwise}",
            param=PARAM,
        )
    if not _is_offline() and not _key(settings):
        raise InvalidRequest(
            f"The integration 'wandb' needs an API key of W&B: set {KEY} in the server's environment, or "
            f"`wandb_api_key` under [training] to env:NAME or file:PATH, {otherwise}",
            param=PARAM,
        )


def environment_of(integrations: Sequence[Integration], settings: TrainingSettings) -> dict[str, str]:
    """What a job's process is to find in its environment for them."""
    key = _key(settings) if integrations else ""
    return {KEY: key} if key else {}


def told(integrations: Sequence[Integration], job_id: str, base: str) -> list[dict[str, Any]]:
    """Them as the job's process is told of them: a run that goes on goes on under its id there, too."""
    tags = ["stillroom/finetune", f"stillroom/{base}"[:MOST_TAG_LETTERS], f"stillroom/{job_id}"[:MOST_TAG_LETTERS]]
    found: list[dict[str, Any]] = []
    for each in integrations:
        run = msgspec.to_builtins(each.wandb)
        run |= {"id": job_id, "name": each.wandb.name or job_id, "tags": [*each.wandb.tags, *tags]}
        found.append({"type": each.type, WANDB: run})
    return found


def _integration(value: Any, where: str) -> Integration:
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise InvalidRequest(f"Invalid '{where}': expected an object with a 'type'.", param=PARAM)
    if value["type"] != WANDB:
        raise InvalidRequest(
            f"The integration '{value['type'][:MOST_LETTERS]}' is not supported; 'wandb' is the only one.", param=PARAM
        )
    try:
        found = msgspec.convert(value, Integration)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"Invalid '{where}': {error}.", param=PARAM) from error
    _check(found.wandb, f"{where}.{WANDB}")
    return found


def _check(run: WandbRun, where: str) -> None:
    if not run.project or any(letter in NOT_IN_PROJECTS for letter in run.project):
        raise InvalidRequest(
            f"Invalid '{where}.project': expected a name without any of {NOT_IN_PROJECTS}", param=PARAM
        )
    named = {"project": run.project, "name": run.name, "entity": run.entity}
    for name, text in named.items():
        _check_text(text, f"{where}.{name}", MOST_LETTERS)
    if len(run.tags) > MOST_TAGS:
        raise InvalidRequest(f"Invalid '{where}.tags': at most {MOST_TAGS} are taken.", param=PARAM)
    for index, tag in enumerate(run.tags):
        _check_text(tag, f"{where}.tags[{index}]", MOST_TAG_LETTERS)


def _check_text(text: str | None, where: str, most: int) -> None:
    if text is not None and not (0 < len(text) <= most and text.isprintable()):
        raise InvalidRequest(f"Invalid '{where}': expected 1 to {most} printable letters.", param=PARAM)


def _key(settings: TrainingSettings) -> str:
    try:
        return secret(settings.wandb_api_key)
    except ConfigurationError:
        return ""


def _is_offline() -> bool:
    """wandb's own setting to write runs to disk, where no key is needed."""
    return os.environ.get(MODE) == "offline"
