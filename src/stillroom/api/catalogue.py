"""Every model there is, with what it weighs, what it is deployed as, and what can be done with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillroom import catalog
from stillroom.api.wire import Call, Reply
from stillroom.catalog import Deployment, Model
from stillroom.config import SCRATCH, Price, Student


def list_models(call: Call) -> Reply:
    """List teachers, student bases, fine-tuned models and checkpoints: weights, deployments, prices, abilities."""
    with call.platform.database.read() as connection:
        tuned = catalog.list_models(connection, call.project)
        deployed = catalog.list_deployments(connection, call.project)
    data = [
        *_teachers(call, deployed),
        *_bases(call, deployed),
        *(_tuned(call, each, deployed) for each in tuned[::-1]),
    ]
    return Reply(body={"object": "list", "data": data, "has_more": False})


def _teachers(call: Call, deployed: list[Deployment]) -> Iterator[dict[str, Any]]:
    for name, teacher in sorted(call.platform.settings.teachers.items()):
        can = {"fine_tune": False, "deploy": True, "chat": True}
        yield _shown("teacher", (name,), deployed, teacher.price, can)


def _bases(call: Call, deployed: list[Deployment]) -> Iterator[dict[str, Any]]:
    settings = call.platform.settings
    for name in sorted({SCRATCH, *settings.students} - set(settings.teachers)):
        student = settings.students.get(name, Student())
        # What has no path starts from random weights, so there is nothing yet that could answer.
        can = {"fine_tune": True, "deploy": student.path != "", "chat": student.path != ""}
        yield {**_shown("student_base", (name,), deployed, student.price, can), "bytes": _bytes_of(student)}


def _tuned(call: Call, model: Model, deployed: list[Deployment]) -> dict[str, Any]:
    kind = "fine_tuned" if model.step is None else "checkpoint"
    price = call.platform.settings.students.get(model.base, Student()).price
    can = {"fine_tune": True, "deploy": True, "chat": True}
    return {
        **_shown(kind, model.names, deployed, price, can),
        "base": model.base,
        "job": model.job,
        "created_at": model.created_at,
        "bytes": call.platform.blobs.size(model.blob),
    }


def _shown(
    kind: str, names: tuple[str, ...], deployed: list[Deployment], price: Price, can: dict[str, bool]
) -> dict[str, Any]:
    return {
        "object": "stillroom.model",
        "name": names[0],
        "kind": kind,
        "base": None,
        "job": None,
        "created_at": None,
        "bytes": None,
        "deployments": [each.name for each in deployed if each.model in names],
        "price": {
            "input": price.input,
            "output": price.output,
            "training": price.training,
            "usd_per_hosting_hour": price.hosting_hour,
        },
        "can": can,
    }


def _bytes_of(student: Student) -> int | None:
    """Of a local folder's weights; None for a hub id, whose files are the hub's cache's affair."""
    folder = Path(student.path).expanduser()
    if not student.path or not folder.is_dir():
        return None
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
