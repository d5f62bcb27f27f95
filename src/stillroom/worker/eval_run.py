"""Carries out one eval run: lays out its folder, starts its process, records what that reports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Connection

from stillroom import config, jobs
from stillroom.assembly import Platform
from stillroom.config import Settings
from stillroom.errors import StillroomError
from stillroom.evals import record
from stillroom.evals.order import RunOrder, parse_data_source
from stillroom.evals.running.run import KEY
from stillroom.evals.table import Eval, Run, get_eval, get_run, project_of
from stillroom.jobs import Claim, State
from stillroom.worker.child import Child

log = logging.getLogger(__name__)

RUNNER = "stillroom.evals.running.run"
FLUSH_SECONDS = 0.25  # between two transactions of found items
FLUSH_ITEMS = 200
CRASHES = 3  # how often the process may die before it has recorded anything more
GRADER_RUN_SECONDS = 3600.0  # a grader tried out alone that began so long ago has ended, perhaps with its server
SERVER_SECONDS = 60.0  # how long the server may take to come up beside this worker


class RunFailed(StillroomError):
    """An eval run cannot go on."""

    code = "run_failed"


class EvalRun:
    """One claimed run in this process."""

    def __init__(self, platform: Platform, claim: Claim, run: Run, definition: Eval) -> None:
        self._platform = platform
        self._claim = claim
        self._run = run
        self._definition = definition
        self._folder = platform.settings.folder / "runs" / run.id
        self._found: list[dict[str, Any]] = []
        self._flushed = 0.0
        self._crashes = claim.crashes
        self._stopping_for: State | None = None
        self._child: Child | None = None
        self.concluding = False

    async def run(self) -> None:
        """Works until every item is recorded, the run is set aside, or the claim is lost (StaleClaim)."""
        order = await asyncio.to_thread(parse_data_source, self._run.data_source, self._definition.data_source_config)
        await asyncio.to_thread(self._lay_out, order, await _server_url(self._platform.settings))
        key = await asyncio.to_thread(self._platform.keys.lend, self._run.project, self._run.key_id, self._run.id)
        try:
            self._child = await Child.start(RUNNER, self._folder, {KEY: key})
            await self._follow(self._child)
        finally:
            if self._child is not None:
                await self._child.close()
            await asyncio.to_thread(self._platform.keys.take_back, self._run.id, key)

    def stop(self, to: State) -> None:
        """Ends the process; what it has reported is recorded, and the rest is left for later."""
        self._stopping_for = to
        if self._child is not None:
            self._child.ask_to_stop()

    def still_ours(self) -> None:
        """Its process needs no word of it: what it reports is refused when the claim does not hold."""

    # --- before ---------------------------------------------------------------------------------

    def _lay_out(self, order: RunOrder, url: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        items = self._folder / "items.jsonl"
        # A worker may have died between laying the items out and saying so; nothing was asked yet then.
        if self._run.lineage is None or not items.exists():
            laid = self._platform.items.lay_out(self._run, order, self._definition.data_source_config, items)
            self._platform.writer.write(lambda c: record.record_start(c, self._claim, laid))
        with self._platform.database.read() as connection:
            done = record.graded_items(connection, self._run.id)
        (self._folder / "done.json").write_bytes(msgspec.json.encode(done))
        (self._folder / "spec.json").write_bytes(msgspec.json.encode(self._spec(order, url)))

    def _spec(self, order: RunOrder, url: str) -> dict[str, Any]:
        return {
            **run_spec(self._platform.settings, url),
            "run": self._run.id,
            "model": order.model,
            "messages": order.messages,
            "sampling": order.sampling,
            "criteria": self._definition.testing_criteria,
            "in_eval": True,
            "schema": self._definition.data_source_config["schema"],
        }

    # --- while it runs --------------------------------------------------------------------------

    async def _follow(self, child: Child) -> None:
        if self._stopping_for is not None:
            child.ask_to_stop()
        async for message in child.messages_or_silence(FLUSH_SECONDS):
            if message is None:
                await self._flush()
            elif message["type"] == "item":
                self._found.append(message)
                if len(self._found) >= FLUSH_ITEMS or time.monotonic() - self._flushed > FLUSH_SECONDS:
                    await self._flush()
            elif message["type"] == "error":
                await self._flush()
                raise RunFailed(message["message"], code=message["code"], param=message.get("param"))
            elif message["type"] == "done":
                await self._flush()
                await self._conclude()
        await self._flush()
        if self.concluding:
            return
        status = await child.ended()
        if self._stopping_for is not None:
            await self._write(lambda c: record.set_aside(c, self._claim, self._stopping_for or State.QUEUED))
            return
        log.error("the process of %s ended with status %s:\n%s", self._run.id, status, child.last_words())
        # Status 0: somebody else asked it to stop, such as a service manager that tells every process of a service.
        if status > 0 or self._crashes + 1 >= CRASHES:
            raise RunFailed(f"The run's process ended unexpectedly (status {status}); the server's log says why.")
        await self._write(lambda connection: jobs.count_crash(connection, self._claim))

    async def _flush(self) -> None:
        found, self._found = self._found, []
        if found:
            await self._write(lambda connection: record.record_items(connection, self._claim, found))
            self._crashes = 0
        self._flushed = time.monotonic()

    async def _conclude(self) -> None:
        self.concluding = True
        await self._write(lambda connection: record.finish(connection, self._claim))
        await asyncio.to_thread(clear_up, self._platform, self._run.project, self._run.id)

    async def _write(self, work: Callable[[Connection], Any]) -> Any:
        return await self._platform.writer.write_soon(work)


def run_spec(settings: Settings, url: str) -> dict[str, Any]:
    """What every process that grades is told of the installation."""
    told = settings.evals
    return {
        "url": url,
        "concurrent_calls": told.concurrent_calls,
        "patience_seconds": told.patience_seconds,
        "unsafe_python_graders": told.unsafe_python_graders,
        "python_seconds": told.python_seconds,
        "python_memory_mb": told.python_memory_mb,
    }


def clear_up(platform: Platform, project: int | None, run_id: str) -> None:
    """Removes what a run that has ended needs no more: its items, its key, and the answers kept for it."""
    platform.keys.take_back(run_id)
    if project is not None:
        platform.kept_answers.forget(project, f"{run_id}/")
    # Last, because whoever is killed before is found by it.
    shutil.rmtree(platform.settings.folder / "runs" / run_id, ignore_errors=True)


def tidy(platform: Platform) -> None:
    """Clears up after runs that ended while nobody was there to do so, or were deleted."""
    for folder in (platform.settings.folder / "runs").glob("graderrun_*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > GRADER_RUN_SECONDS:
                clear_up(platform, None, folder.name)
    for folder in (platform.settings.folder / "runs").glob("evalrun_*"):
        with platform.database.read() as connection:
            state = jobs.state_of(connection, folder.name)
            project = project_of(connection, folder.name)
        if state is None or state in jobs.ENDED:
            clear_up(platform, project, folder.name)


async def _server_url(settings: Settings) -> str:
    """Where the server answers; a run may be claimed while that is still coming up."""
    until = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < until:
        url = config.running_server(settings.folder).get("url")
        if url:
            return str(url)
        await asyncio.sleep(0.1)
    raise RunFailed(f"No server runs on the data folder {settings.folder}, and a run's calls go through it.")


def room(settings: Settings) -> int:
    """How many such jobs run at a time."""
    return settings.evals.running_runs


def held_back(platform: Platform) -> list[int]:
    """The jobs that must wait though it is their turn: none."""
    return []


async def start(platform: Platform, claim: Claim) -> EvalRun:
    """The claimed run, ready to be carried out."""

    def read() -> tuple[Run, Eval]:
        with platform.database.read() as connection:
            run = get_run(connection, claim.project, claim.subject)
            return run, get_eval(connection, claim.project, run.eval)

    return EvalRun(platform, claim, *await asyncio.to_thread(read))


async def give_up(platform: Platform, claim: Claim, error: StillroomError) -> None:
    """The run has failed for good."""
    await platform.writer.write_soon(lambda connection: record.fail(connection, claim, error))
    await asyncio.to_thread(clear_up, platform, claim.project, claim.subject)
