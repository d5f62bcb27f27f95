"""What is stillroom's own, below `/v1/stillroom`: selections and keys; costs are in `costs.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, TypeVar

import msgspec

from stillroom import bodies
from stillroom.api import files as files_api
from stillroom.api.filters import SelectionFilter, filter_of, numbers_of
from stillroom.api.wire import Call, Reply
from stillroom.datasets import selection
from stillroom.errors import InvalidRequest

T = TypeVar("T")


class SelectionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give `filter`, `ids`, or both. `validation_fraction` of the rows, chosen by `seed`, go to a
    validation file instead of the training file."""

    filter: SelectionFilter | None = None
    ids: list[str] | None = None
    validation_fraction: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    seed: int = 0
    filename: str | None = None


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name` says later what the key is for."""

    name: str


def select(call: Call) -> Reply:
    """Make a training file of stored completions."""
    made = selected(call, body_as(call, SelectionRequest))
    return Reply(
        body={
            "object": "stillroom.selection",
            "training_file": files_api.shown(made.training_file),
            "validation_file": files_api.shown(made.validation_file) if made.validation_file else None,
            "training_examples": made.training_examples,
            "validation_examples": made.validation_examples,
            "skipped": made.skipped,
            "warnings": made.warnings,
        }
    )


def selected(call: Call, asked: SelectionRequest) -> selection.Selection:
    """The selection that a request describes, its files made."""
    if asked.filter is None and asked.ids is None:
        raise InvalidRequest("Give 'filter' (which may be empty: {}), 'ids', or both.", param="filter")
    chosen = filter_of(asked.filter or SelectionFilter())
    if asked.ids is not None:
        chosen = replace(chosen, numbers=numbers_of(asked.ids))
    return selection.select(
        call.platform.database,
        call.platform.files,
        call.project,
        chosen,
        validation_fraction=asked.validation_fraction,
        seed=asked.seed,
        filename=asked.filename,
    )


def create_key(call: Call) -> Reply:
    """Make an API key; its secret is in this answer and nowhere else."""
    key, secret = call.platform.keys.create(call.project, body_as(call, KeyRequest).name)
    return Reply(body={"object": "stillroom.key", **msgspec.to_builtins(key), "key": secret})


def list_keys(call: Call) -> Reply:
    """List the project's API keys, without their secrets."""
    keys = call.platform.keys.of_project(call.project)
    data = [{"object": "stillroom.key", **msgspec.to_builtins(key)} for key in keys]
    return Reply(body={"object": "list", "data": data, "has_more": False})


def revoke_key(call: Call) -> Reply:
    """Revoke an API key."""
    call.platform.keys.revoke(call.project, call.parameters["id"])
    return Reply(body={"id": call.parameters["id"], "object": "stillroom.key.revoked", "deleted": True})


def body_as(call: Call, kind: type[T]) -> T:
    """The request's body as the struct that describes it. Raises InvalidRequest naming what is wrong."""
    return bodies.read(call.json(), kind)
