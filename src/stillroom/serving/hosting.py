"""Runs the students' process: starts it, loads students into it, unloads idle ones, counts hours.

The process speaks chat completions on a unix socket and ends when the pipe to us closes. When it
dies, the next call starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from sqlalchemy import Connection

from stillroom import billing, catalog
from stillroom.catalog import Model
from stillroom.clock import Clock
from stillroom.config import GatewaySettings, Price, ServingSettings, Student
from stillroom.errors import MissingExtra, StillroomError, StoreUnavailable, StudentDiffers, StudentUnavailable
from stillroom.store.writer import Writer
from stillroom.teachers.http import HttpAnswer, StudentUpstream, open_session

log = logging.getLogger(__name__)

MODULE = "stillroom.student.serving.host"
LOOK_SECONDS = 0.05  # between two looks whether the new process answers
DEATH_SECONDS = 1.0  # for a process whose connections broke to be seen dead
TICK_SECONDS = 60.0  # between two rounds of unloading and counting hours


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What can be loaded: a fine-tuned model's weights, or those a base model came with."""

    project: int
    names: tuple[str, ...]
    """All that it is known by; it is loaded under the first."""
    job: str | None
    """What made it; None for a base model."""
    source: dict[str, Any]
    """Where the student host finds it: see `student/serving/host.py`."""

    @property
    def name(self) -> str:
        return self.names[0]


def base_weights(project: int, name: str, student: Student) -> Weights:
    """A configured base model as it is. Its hours are counted to the project that had it loaded."""
    base = {"name": name, "path": student.path, "revision": student.revision or None, "precision": student.precision}
    source = {"base": base}
    return Weights(project=project, names=(name,), job=None, source=source)


@dataclass(kw_only=True)
class Loaded:
    """A student in the process: since when its hours are not yet counted, and its last call."""

    weights: Weights
    price: Price
    counted_until: float
    last_used: float


class Hosting:
    """The students' process and what is loaded in it. Lives on the event loop."""

    def __init__(
        self, settings: ServingSettings, limits: GatewaySettings, blobs: Path, writer: Writer, clock: Clock
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._blobs = blobs
        self._writer = writer
        self._clock = clock
        # Not in the data folder: a socket's path has 100 bytes or so at most.
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self._loaded: dict[str, Loaded] = {}
        self._busy = asyncio.Lock()

    def tuned_weights(self, model: Model) -> Weights:
        """A fine-tuned model's weights, or a checkpoint's."""
        return Weights(
            project=model.project,
            names=(model.openai_name, model.azure_name),
            job=model.job,
            source={"path": str(self._blobs / model.blob)},
        )

    async def upstream(self, weights: Weights, price: Price) -> HostedStudent:
        """Where the student answers, loaded if it was not. Raises what loading it raises."""
        endpoint = await self.endpoint(weights, price)
        assert self._process is not None
        return HostedStudent(self, weights, price, endpoint, self._process)

    async def endpoint(self, weights: Weights, price: Price) -> StudentUpstream:
        """The student's address in the process that runs now."""
        loaded = self._loaded.get(weights.name)
        if loaded is None or not self._alive():
            async with self._busy:
                loaded = await self._load(weights, price)
        loaded.last_used = self._clock.monotonic()
        assert self._session is not None
        return StudentUpstream(weights.name, self._session, "http://students/v1/chat/completions", {}, self._limits)

    def loaded_names(self, project: int) -> frozenset[str]:
        """All names of the students that answer without being loaded first."""
        loaded = self._loaded.values() if self._alive() else ()
        return frozenset(name for each in loaded if each.weights.project == project for name in each.weights.names)

    async def has_died(self, process: asyncio.subprocess.Process) -> bool:
        """Whether this process is gone. Its death is noticed a moment after its connections break."""
        if process is self._process:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), DEATH_SECONDS)
        return process.returncode is not None

    async def unload(self, weights: Weights) -> None:
        """Frees the student's memory; its next call loads it again."""
        async with self._busy:
            await self._unload(weights.name)

    async def tend(self) -> None:
        """Unloads idle students and counts hosted time, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                self._count_hours()
                await self._unload_idle()
            except StillroomError as error:
                log.warning("looking after the students failed; trying again: %s", error.message)

    async def _unload_idle(self) -> None:
        idle_since = self._clock.monotonic() - self._settings.idle_seconds
        for name in [name for name, loaded in self._loaded.items() if loaded.last_used < idle_since]:
            async with self._busy:
                await self._unload(name)

    async def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(StoreUnavailable):
            self._count_hours()
        await self._stop()

    def _alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def _load(self, weights: Weights, price: Price) -> Loaded:
        if not self._alive():
            await self._stop()
            await self._start()
        if weights.name not in self._loaded:
            attached = await self._post("/attach", {"name": weights.name, **weights.source})
            now = self._clock.monotonic()
            self._loaded[weights.name] = Loaded(weights=weights, price=price, counted_until=now, last_used=now)
            _log_loaded(weights, attached)
        return self._loaded[weights.name]

    async def _unload(self, name: str) -> None:
        if name not in self._loaded:
            return
        self._count_hours()
        del self._loaded[name]
        if self._alive():
            await self._post("/detach", {"name": name})

    async def _start(self) -> None:
        if find_spec("torch") is None:
            raise MissingExtra("Serving students needs `pip install 'stillroom[students]'` on the server.")
        threads = str(self._settings.threads or os.cpu_count() or 1)
        self._folder = tempfile.TemporaryDirectory(prefix="stillroom-")
        socket = Path(self._folder.name) / "students.sock"
        arguments = [sys.executable, "-m", MODULE, "--socket", str(socket), "--threads", threads]
        # Standard input is the pipe whose closing ends the process, however we end.
        self._process = await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.PIPE)
        self._session = open_session(self._limits, socket=socket)
        try:
            async with asyncio.timeout(self._settings.start_seconds):
                while not await self._answers():  # noqa: ASYNC110 - the process can only be asked
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            await self._stop()
            raise StudentUnavailable("The students' process did not start in time. Try again.") from error

    async def _answers(self) -> bool:
        assert self._session is not None
        if not self._alive():
            raise StudentUnavailable("The students' process ended while starting; the server's log says why.")
        try:
            async with self._session.get("http://students/health") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def _stop(self) -> None:
        self._loaded.clear()
        if self._session is not None:
            await self._session.close()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._session = self._folder = None

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._session is not None
        try:
            async with asyncio.timeout(self._settings.start_seconds):
                async with self._session.post(f"http://students{path}", data=msgspec.json.encode(body)) as response:
                    answer = await response.read()
        except (TimeoutError, aiohttp.ClientError) as error:
            await self._stop()
            raise StudentUnavailable(f"The students' process failed at {path}; it is started again.") from error
        if response.status >= 400:
            problem = msgspec.json.decode(answer)["error"]
            if problem.get("code") == StudentDiffers.code:
                raise StudentDiffers(problem["message"])
            raise StillroomError(problem["message"], code=problem.get("code") or "student_unavailable")
        return dict(msgspec.json.decode(answer))

    def _count_hours(self) -> None:
        for loaded in self._loaded.values():
            seconds = int(self._clock.monotonic() - loaded.counted_until)
            if seconds < 1:
                continue
            entry = billing.Entry(
                project=loaded.weights.project,
                kind=billing.Kind.HOSTING,
                model=loaded.weights.name,
                subject=loaded.weights.job,
                hosted_seconds=seconds,
            )
            self._writer.submit(partial(record_hours, weights=loaded.weights, entry=entry, price=loaded.price))
            loaded.counted_until += seconds  # after, so that a refused span is counted the next time


def _log_loaded(weights: Weights, attached: dict[str, Any]) -> None:
    if weights.job is None:
        log.info("student %s loaded", weights.name)
    elif attached["tokens"] is None:
        log.warning(
            "student %s loaded without proof that it behaves as it was trained: its files, made by an older version, "
            "do not tell what it said then",
            weights.name,
        )
    else:
        log.info(
            "student %s loaded; %s tokens compared with what it said when it was trained, in %.2f seconds",
            weights.name,
            attached["tokens"],
            attached["seconds"],
        )


def record_hours(connection: Connection, *, weights: Weights, entry: billing.Entry, price: Price) -> None:
    """Counts hosted time, for the deployment that the student is loaded for when there is one alone."""
    using = [d.name for d in catalog.list_deployments(connection, weights.project) if d.model in weights.names]
    billing.record(connection, replace(entry, deployment=using[0] if len(using) == 1 else None), price)


class HostedStudent:
    """A loaded student as an upstream. A call that finds the process dead asks the next process, once."""

    def __init__(
        self,
        hosting: Hosting,
        weights: Weights,
        price: Price,
        endpoint: StudentUpstream,
        process: asyncio.subprocess.Process,
    ) -> None:
        self._hosting = hosting
        self._weights = weights
        self._price = price
        self._endpoint = endpoint
        self._process = process

    async def ask(self, body: bytes) -> HttpAnswer:
        try:
            return await self._endpoint.ask(body)
        except StudentUnavailable:
            if not await self._hosting.has_died(self._process):
                raise
        return await (await self._hosting.endpoint(self._weights, self._price)).ask(body)
