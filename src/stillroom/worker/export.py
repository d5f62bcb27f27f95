"""Makes one export: starts the child that writes and checks it, and passes on how far it is."""

from __future__ import annotations

import asyncio
import logging
import os
from importlib.util import find_spec
from typing import Any

import msgspec

from stillroom.assembly import Platform
from stillroom.errors import MissingExtra, StillroomError
from stillroom.serving.exports import Export, ExportedFile
from stillroom.worker.child import Child, ended_badly

log = logging.getLogger(__name__)

EXPORTER = "stillroom.student.exporting.export"
# The child opens no GPU: students and jobs have it, and what is written is the same.
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": ""}


async def make(platform: Platform, blob: str, export: Export) -> None:
    """Fills the export's folder from the model's. Raises what the child says, or died of."""
    if find_spec("torch") is None:
        raise MissingExtra("An export needs `pip install 'stillroom[students]'` where the server runs.")
    spec = {
        "model": str(await asyncio.to_thread(platform.blobs.path, blob)),
        "format": export.format,
        "precision": export.precision,
        "threads": platform.settings.training.threads or os.cpu_count() or 1,
    }
    await asyncio.to_thread((export.folder / "spec.json").write_bytes, msgspec.json.encode(spec))
    child = await Child.start(EXPORTER, export.folder, ENVIRONMENT)
    try:
        async for message in child.messages():
            _take(message, export)
        status = await child.ended()
        if export.agreement is None:
            raise _broken(status, child.last_words())
    finally:
        await child.close()


def _take(message: dict[str, Any], export: Export) -> None:
    if message["type"] == "progress":
        export.stage, export.done, export.total = message["stage"], message["done"], message["total"]
    elif message["type"] == "done":
        export.agreement = message["agreement"]
        export.files = [ExportedFile(**file) for file in message["files"]]
    elif message["type"] == "error":
        raise StillroomError(message["message"], code=message["code"])


def _broken(status: int, last_words: str) -> StillroomError:
    log.error("an export ended with status %s:\n%s", status, last_words)
    return ended_badly("exporting", status, ": it needs the whole model in memory, in float32.")
