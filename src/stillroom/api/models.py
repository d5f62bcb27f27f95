"""Models: teachers, student bases, and fine-tuned models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stillroom import catalog
from stillroom.api.wire import Call, Dialect, Reply
from stillroom.config import SCRATCH
from stillroom.errors import InvalidRequest, ModelNotFound, shortened

FAR_FUTURE = 4_102_444_800  # 2100-01-01: nothing here is ever retired by someone else


def list_models(call: Call) -> Reply:
    """List models. On /v1 deployments are listed too, because there they are called the same way."""
    return Reply(body={"object": "list", "data": list(_all(call))})


def retrieve(call: Call) -> Reply:
    """Retrieve a model's description."""
    return Reply(body=_find(call, call.parameters["model"]))


def delete(call: Call) -> Reply:
    """Delete a fine-tuned model, or one checkpoint, and its weights; refused while it is deployed."""
    name = call.parameters["model"]
    settings = call.platform.settings
    if name in settings.teachers or name in settings.students or name == SCRATCH:
        raise InvalidRequest(f"'{name}' is not a fine-tuned model; the configuration names it.", param="model")
    model = call.platform.writer.write(lambda c: catalog.delete_model(c, call.project, name))
    call.platform.blobs.delete(model.blob)
    return Reply(body={"id": name, "object": "model", "deleted": True})


def _find(call: Call, name: str) -> dict[str, Any]:
    with call.platform.database.read() as connection:
        tuned = catalog.find_model(connection, call.project, name)
    if tuned is not None:
        return {**_fine_tuned(call, tuned), "id": name}
    for model in _all(call):
        if model["id"] == name:
            return model
    raise ModelNotFound(f"The model '{shortened(name)}' does not exist", param="model")


def _all(call: Call) -> Iterator[dict[str, Any]]:
    settings = call.platform.settings
    azure = call.dialect is Dialect.AZURE
    for name in settings.teachers:
        yield _model(call, name, created=0, owner="teacher", base=None)
    for name in sorted({SCRATCH, *settings.students}):
        yield _model(call, name, created=0, owner=settings.organization, base=None)
    with call.platform.database.read() as connection:
        tuned = catalog.list_models(connection, call.project)
        deployed = [] if azure else catalog.list_deployments(connection, call.project)
    for model in tuned:
        yield _fine_tuned(call, model)
    taken = {*settings.teachers, *settings.students, SCRATCH}
    for deployment in deployed:
        if deployment.name not in taken:
            yield _model(call, deployment.name, created=deployment.created_at, owner=settings.organization, base=None)


def _fine_tuned(call: Call, model: catalog.Model) -> dict[str, Any]:
    name = model.azure_name if call.dialect is Dialect.AZURE else model.openai_name
    return _model(call, name, created=model.created_at, owner=call.platform.settings.organization, base=model.base)


def _model(call: Call, name: str, *, created: int, owner: str, base: str | None) -> dict[str, Any]:
    body = {"id": name, "object": "model", "created": created, "owned_by": owner}
    if call.dialect is not Dialect.AZURE:
        return body
    settings = call.platform.settings
    trainable = base is not None or name == SCRATCH or name in settings.students
    student = settings.students.get(name)
    has_weights = base is not None or (student is not None and student.path != "")
    can = {
        "fine_tune": trainable,
        "inference": has_weights or name in settings.teachers,
        "completion": False,
        "chat_completion": True,
        "embeddings": False,
    }
    more = {
        "status": "succeeded",
        "capabilities": can,
        "lifecycle_status": "generally-available",
        "deprecation": {"fine_tune": FAR_FUTURE, "inference": FAR_FUTURE},
        "created_at": created,
    }
    return {**body, **more, **({"model": base} if base else {})}
