"""Exports of fine-tuned models: begin one, look how far it is, fetch its files, remove it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any

import msgspec

from stillroom import catalog
from stillroom.api.extensions import body_as
from stillroom.api.wire import Call, Reply
from stillroom.catalog import Model
from stillroom.config import SCRATCH
from stillroom.errors import InvalidRequest, ModelNotFound, shortened
from stillroom.serving.exports import Export
from stillroom.student.exporting.formats import Format, check_training, format_of, precision_of
from stillroom.student.hyperparameters import Training
from stillroom.student.manifest import origin_of
from stillroom.worker import export as worker


class ExportOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`format`: safetensors, adapter or gguf. `precision` of the weights: f32, bf16, f16, or q8_0 (gguf); left out,
    f32, or f16 for gguf."""

    format: str
    precision: str | None = None


async def create(call: Call) -> Reply:
    """Export a fine-tuned model, or one checkpoint, as files for transformers, peft or llama.cpp."""
    model = await asyncio.to_thread(_model, call)
    asked = body_as(call, ExportOrder)
    kind = format_of(asked.format)
    precision = precision_of(kind, asked.precision)
    await asyncio.to_thread(_check, call, model, kind)
    work = partial(worker.make, call.platform, model.blob)
    made = call.platform.exports.begin(call.project, model.openai_name, kind, precision, work)
    return Reply(body=_shown(made))


async def list_exports(call: Call) -> Reply:
    """List exports, newest first; they are kept for an hour."""
    data = [_shown(each) for each in call.platform.exports.of_project(call.project)]
    return Reply(body={"object": "list", "data": data, "has_more": False})


async def retrieve(call: Call) -> Reply:
    """Retrieve an export: how far it is, its files, and how like the trained model it is."""
    return Reply(body=_shown(_export(call)))


async def content(call: Call) -> Reply:
    """Download an export's files as one tar file."""
    export = _export(call)
    archive = call.platform.exports.archive(call.project, export.id)
    headers = {"content-type": "application/x-tar", "content-disposition": f'attachment; filename="{export.id}.tar"'}
    return Reply(stream=archive, headers=headers)


async def delete(call: Call) -> Reply:
    """Delete an export and its files; one that is being made is stopped."""
    export = _export(call)
    await call.platform.exports.delete(call.project, export.id)
    return Reply(body={"id": export.id, "object": "stillroom.export", "deleted": True})


def _export(call: Call) -> Export:
    return call.platform.exports.get(call.project, call.parameters["id"])


def _model(call: Call) -> Model:
    name = call.parameters["model"]
    with call.platform.database.read() as connection:
        found = catalog.find_model(connection, call.project, name)
    if found is not None:
        return found
    settings = call.platform.settings
    if name in settings.teachers or name in settings.students or name == SCRATCH:
        raise InvalidRequest(
            f"'{name}' was not fine-tuned here, so there is nothing to export. Name a fine-tuned model or a checkpoint.",
            param="model",
        )
    raise ModelNotFound(f"The model '{shortened(name)}' does not exist", param="model")


def _check(call: Call, model: Model, kind: Format) -> None:
    """What can be known before it is opened. That its files are gone, its export will say."""
    folder = call.platform.settings.folder / "blobs" / model.blob
    check_training(kind, origin_of(folder).training or Training.ADAPTER, model.openai_name)


def _shown(export: Export) -> dict[str, Any]:
    progress = {"stage": export.stage, "done": export.done, "total": export.total} if export.stage else None
    error = {"code": export.error.code, "message": export.error.message} if export.error else None
    return {
        "id": export.id,
        "object": "stillroom.export",
        "model": export.model,
        "format": export.format,
        "precision": export.precision,
        "status": export.status.value,
        "progress": progress,
        "files": [asdict(file) for file in export.files],
        "bytes": sum(file.bytes for file in export.files),
        "agreement": export.agreement,
        "error": error,
        "created_at": export.created_at,
        "finished_at": export.finished_at,
        "expires_at": export.expires_at,
    }
