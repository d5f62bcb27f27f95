"""Exports under way and waiting to be fetched: a student's files, made for others' programs.

An export lives in a folder of its own below `runs` and in this process's memory, for an hour after it was made
or last read. A restart forgets all of them. How one is made is the worker's to know.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import shutil
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom import ids
from stillroom.errors import Conflict, NotFound, RateLimited, StillroomError, shortened

log = logging.getLogger(__name__)

KEPT_SECONDS = 3600.0
MOST_KEPT = 4  # of a project, those under way too
PIECE = 1 << 20
BLOCK = 512  # of a tar file
FOLDERS = "export-"  # how the folders below `runs` begin


class Status(enum.StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


ENDED = (Status.SUCCEEDED, Status.FAILED)


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    name: str
    bytes: int
    sha256: str


@dataclass(kw_only=True)
class Export:
    """One export. What is asked for does not change; the rest does until it has ended."""

    id: str
    project: int
    model: str
    format: str
    precision: str
    folder: Path
    created_at: int
    status: Status = Status.WAITING
    stage: str | None = None
    """What is being done now: opening, writing, checking."""
    done: int = 0
    """Of the stage, in its own unit."""
    total: int = 1
    files: list[ExportedFile] = field(default_factory=list)
    agreement: dict[str, Any] | None = None
    """How like the trainer's model it is."""
    error: StillroomError | None = None
    finished_at: int | None = None
    expires_at: int | None = None
    used: float = 0.0
    """When it was made or last read, on the clock that only runs forward."""
    readers: int = 0

    @property
    def content(self) -> Path:
        """The folder that the export is."""
        return self.folder / "export"


Work = Callable[[Export], Awaitable[None]]
"""Makes the export, telling in it how far it is. Raises what went wrong."""


class Exports:
    """The exports of this server. Lives on the event loop; one is made at a time."""

    def __init__(self, folder: Path, *, kept_seconds: float = KEPT_SECONDS) -> None:
        self._folder = folder
        self._kept_seconds = kept_seconds
        self._exports: dict[str, Export] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(1)

    def begin(self, project: int, model: str, kind: str, precision: str, work: Work) -> Export:
        """Starts to make one. Raises RateLimited when the project has too many that are not over."""
        self._make_room(project)
        made = Export(
            id=ids.random_id("export-"),
            project=project,
            model=model,
            format=kind,
            precision=precision,
            folder=Path(tempfile.mkdtemp(prefix=FOLDERS, dir=self._folder)),
            created_at=int(time.time()),
        )
        self._exports[made.id] = made
        self._tasks[made.id] = asyncio.create_task(self._see_through(made, work))
        return made

    def get(self, project: int, export_id: str) -> Export:
        """Raises NotFound when there is none."""
        found = self._exports.get(export_id)
        if found is None or found.project != project:
            raise NotFound(f"No export found with id '{shortened(export_id)}'.", param="id")
        return found

    def of_project(self, project: int) -> list[Export]:
        """Newest first."""
        return [each for each in reversed(self._exports.values()) if each.project == project]

    async def delete(self, project: int, export_id: str) -> None:
        """Ends it, if it is under way, and removes its files. Raises NotFound when there is none."""
        await self._forget(self.get(project, export_id))

    def archive(self, project: int, export_id: str) -> Iterator[bytes]:
        """The files as one tar file. Raises Conflict unless the export has succeeded."""
        found = self.get(project, export_id)
        if found.status is not Status.SUCCEEDED:
            raise Conflict(f"The export '{export_id}' is {found.status}; its files are there when it has succeeded.")
        return self._read(found)

    async def close(self) -> None:
        for each in list(self._exports.values()):
            await self._forget(each)

    async def _see_through(self, made: Export, work: Work) -> None:
        try:
            async with self._turn:
                made.status = Status.RUNNING
                await work(made)
            made.status = Status.SUCCEEDED
        except (StillroomError, OSError) as error:
            log.warning("the %s export of %s failed: %s", made.format, made.model, error)
            made.status, made.error = Status.FAILED, _as_ours(error)
            await asyncio.to_thread(shutil.rmtree, made.folder, ignore_errors=True)
        made.finished_at = int(time.time())
        self._was_used(made)
        self._expire_in(self._kept_seconds, made)

    def _expire_in(self, seconds: float, made: Export) -> None:
        asyncio.get_running_loop().call_later(seconds, self._expire, made)

    def _expire(self, made: Export) -> None:
        left = self._kept_seconds - (time.monotonic() - made.used)
        if made.id not in self._exports:
            return
        if made.readers or left > 0:
            self._expire_in(max(left, self._kept_seconds / 10), made)
            return
        self._tasks[made.id] = asyncio.create_task(self._forget(made))

    def _was_used(self, made: Export) -> None:
        made.used = time.monotonic()
        made.expires_at = int(time.time() + self._kept_seconds)

    def _make_room(self, project: int) -> None:
        mine = self.of_project(project)
        if len(mine) < MOST_KEPT:
            return
        over = [each for each in mine if each.status in ENDED and not each.readers]
        if not over:
            raise RateLimited(
                f"The project has {MOST_KEPT} exports that are being made or fetched. Wait for one, or delete one."
            )
        del self._exports[over[-1].id]
        self._tasks.pop(over[-1].id, None)
        shutil.rmtree(over[-1].folder, ignore_errors=True)

    async def _forget(self, made: Export) -> None:
        self._exports.pop(made.id, None)
        task = self._tasks.pop(made.id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, made.folder, ignore_errors=True)

    def _read(self, found: Export) -> Iterator[bytes]:
        found.readers += 1
        try:
            yield from _tar(found.content, found.files)
        except FileNotFoundError as error:
            raise NotFound(f"The export '{found.id}' was deleted while it was read.", param="id") from error
        finally:
            found.readers -= 1
            self._was_used(found)


def _as_ours(error: StillroomError | OSError) -> StillroomError:
    if isinstance(error, StillroomError):
        return error
    return StillroomError(f"The export could not be written: {error.strerror or error}.")


def _tar(folder: Path, files: list[ExportedFile]) -> Iterator[bytes]:
    for file in files:
        header = tarfile.TarInfo(file.name)
        header.size = file.bytes
        yield header.tobuf(tarfile.GNU_FORMAT)
        with (folder / file.name).open("rb") as content:
            while piece := content.read(PIECE):
                yield piece
        yield bytes(-file.bytes % BLOCK)
    yield bytes(2 * BLOCK)
