"""Grades answers by one grader, in a process like a run's, for whoever tries a grader out or waits for the best answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stillroom import config, ids
from stillroom.assembly import Platform
from stillroom.auth import Principal
from stillroom.errors import StillroomError
from stillroom.evals.running.run import KEY
from stillroom.graders.subject import sample_of
from stillroom.worker.child import Child
from stillroom.worker.eval_run import RUNNER, RunFailed, clear_up, run_spec

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0  # somebody waits for the grade


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to grade: the item it is one to, and the sample that it makes."""

    item: Mapping[str, Any]
    sample: Mapping[str, Any]


async def grade_once(
    platform: Platform, principal: Principal, grader: Mapping[str, Any], answer: str, item: Mapping[str, Any]
) -> dict[str, Any]:
    """What a run would report of the item: its one result in `results`, and the tokens used."""
    graded = grade_each(platform, principal, grader, [Answer(item=item, sample=sample_of(answer))])
    async with aclosing(graded):
        async for message in graded:
            return message
    raise RunFailed("The grader's process ended without a grade.")


async def grade_each(
    platform: Platform, principal: Principal, grader: Mapping[str, Any], answers: Iterable[Answer]
) -> AsyncGenerator[dict[str, Any], None]:
    """The same of each answer as soon as it is graded, with its `number` from 0. Close it when done with it."""
    name = ids.random_id("graderrun_")
    folder = platform.settings.folder / "runs" / name
    spec = {
        **run_spec(platform.settings, str(config.running_server(platform.settings.folder)["url"])),
        "patience_seconds": PATIENCE_SECONDS,
        "run": name,
        "model": None,
        "criteria": [grader],
        "in_eval": False,
        "schema": None,
    }
    child = None
    folder.mkdir()
    try:
        key = await asyncio.to_thread(platform.keys.lend, principal.project, principal.key_id, name)
        await asyncio.to_thread(_lay_out, folder, spec, answers)
        child = await Child.start(RUNNER, folder, {KEY: key})
        async for message in child.messages():
            if message["type"] == "done":
                return
            if message["type"] == "error":
                raise StillroomError(message["message"], code=message["code"], param=message.get("param"))
            yield message
        log.error("the process of a grader ended with status %s:\n%s", await child.ended(), child.last_words())
        raise RunFailed("The grader's process ended unexpectedly; the server's log says why.")
    finally:
        if child is not None:
            await child.close()
        await asyncio.to_thread(clear_up, platform, principal.project, name)


def _lay_out(folder: Path, spec: Mapping[str, Any], answers: Iterable[Answer]) -> None:
    (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
    (folder / "done.json").write_bytes(b"[]")
    with (folder / "items.jsonl").open("wb") as lines:
        for answer in answers:
            lines.write(msgspec.json.encode({"item": answer.item, "sample": answer.sample}) + b"\n")
