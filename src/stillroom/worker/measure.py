"""Measures a fine-tuning job before it is one: starts the trainer's twin, gives what it reports."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from stillroom.assembly import QUOTE_FOLDERS, Platform
from stillroom.errors import InvalidRequest, MissingExtra, StillroomError
from stillroom.fine_tuning import Hyperparameters, Order
from stillroom.fine_tuning.quote import Measurement
from stillroom.worker.child import Child, ended_badly
from stillroom.worker.fine_tune import memory_bytes

log = logging.getLogger(__name__)

MEASURER = "stillroom.student.training.measure"


async def measure(platform: Platform, project: int, order: Order, base: str) -> Measurement:
    """What a run of the order would be, by its own first steps. One at a time; takes some seconds, and
    as long as three steps. Raises InvalidRequest in the words that the job would fail with."""
    if find_spec("torch") is None:
        raise MissingExtra("A quote needs `pip install 'stillroom[students]'` where the server runs.")
    async with platform.quotes.measuring:
        with tempfile.TemporaryDirectory(prefix=QUOTE_FOLDERS, dir=platform.settings.folder / "runs") as name:
            folder = Path(name)
            spec = await asyncio.to_thread(_spec, platform, project, order, base)
            (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
            return await _measured(folder)


def _spec(platform: Platform, project: int, order: Order, base: str) -> dict[str, Any]:
    settings = platform.settings.training
    validation = order.validation_file
    return {
        "base": platform.fine_tuning.base_reference(project, order.model, base),
        "training_file": str(platform.files.path(project, order.training_file)),
        "validation_file": str(platform.files.path(project, validation)) if validation else None,
        "method": order.method,
        "teacher": platform.fine_tuning.teacher_reference(project, order.teacher),
        "hyperparameters": order.hyperparameters,
        "seed": order.seed,
        "threads": settings.threads or os.cpu_count() or 1,
        "checkpoint_seconds": settings.checkpoint_seconds,
        "memory_bytes": memory_bytes(settings),
        "model_name": "quote",
    }


async def _measured(folder: Path) -> Measurement:
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    began = time.monotonic()
    child = await Child.start(MEASURER, folder)
    found: dict[str, Any] = {"notes": [], "load": load}
    try:
        async for message in child.messages():
            if message["type"] == "planned":
                found |= {**message, "setup_seconds": time.monotonic() - began}
            elif message["type"] == "measured":
                found |= message
            elif message["type"] == "message":
                found["notes"].append(message["message"])
            else:
                # What the job would fail with; the remedy is in what was asked for.
                raise InvalidRequest(message["message"], code=message["code"], param=message.get("param"))
        status = await child.ended()
        if "step_seconds" not in found:
            raise _broken(status, child.last_words())
    finally:
        await child.close()
    numbers = msgspec.convert(found.pop("hyperparameters"), Hyperparameters)
    known = {name: value for name, value in found.items() if name in Measurement.__dataclass_fields__}
    return Measurement(hyperparameters=numbers, **known)


def _broken(status: int, last_words: str) -> StillroomError:
    log.error("measuring ended with status %s:\n%s", status, last_words)
    killed = "; the job would be, too. Use a smaller batch_size, shorter examples or a smaller base model."
    return ended_badly("measuring", status, killed)
