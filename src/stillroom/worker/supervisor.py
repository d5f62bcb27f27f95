"""Claims jobs and sees each through: heartbeat, pause, cancel, crash.

Runs as a task of the server's event loop, and as `stillroom worker` on another machine. The
catch-all here is one of the product's two: whatever a job does, the next one runs.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from stillroom import fine_tuning, jobs
from stillroom.assembly import Platform
from stillroom.clock import tick
from stillroom.completions import bulk as bulk_actions
from stillroom.errors import StillroomError, StoreUnavailable
from stillroom.evals import table as evals
from stillroom.jobs import Claim, Observer, StaleClaim, State
from stillroom.worker import bulk, eval_run, fine_tune

log = logging.getLogger(__name__)

HANDLERS: dict[str, ModuleType] = {fine_tuning.KIND: fine_tune, evals.KIND: eval_run, bulk_actions.KIND: bulk}
LOOK_SECONDS = 0.25  # between two looks whether there may be something to do
HELD_SECONDS = 1.0  # between two looks, at most, while a job is held back
GUARD_SECONDS = 0.5  # between two looks whether a running job was cancelled or is to pause
STOP_SECONDS = 20.0  # for running jobs to save their state when we stop


class Run(Protocol):
    """One claimed job in this process."""

    concluding: bool
    """From when the job's end is being written: the claim may be gone, and that is right."""

    async def run(self) -> None:
        """Works until the job ends, is set aside, or the claim is lost (StaleClaim)."""

    def stop(self, to: State) -> None:
        """Asks the work to save its state and end; the job then becomes `to`."""

    def still_ours(self) -> None:
        """Called whenever the claim has just been found to hold, some seconds apart."""


@dataclass
class _Running:
    kind: str
    task: asyncio.Task[None]
    run: Run | None = None


class Supervisor:
    """The jobs of this process. `only`: leaves all but these to others."""

    def __init__(self, platform: Platform, *, only: Collection[str] | None = None) -> None:
        self._platform = platform
        self._only = only
        # What only the server carries out goes through the writer that stores its answers, in turn with them.
        self._handlers = {
            kind: handler for kind, handler in HANDLERS.items() if platform.is_server or kind != bulk_actions.KIND
        }
        self._observer = Observer(platform.clock)
        # By claim: a job that was set aside may be claimed again before what ran under the claim before has ended.
        self._running: dict[Claim, _Running] = {}
        self._watch = platform.database.watch()
        self._due_at = 0.0  # in seconds since the epoch: when to look, even if nothing is written until then
        self._looked_for_silent = -math.inf

    async def run(self) -> None:
        """Claims and runs jobs until cancelled; then lets running ones save their state."""
        try:
            while True:
                try:
                    await self._look_when_due()
                except Exception:
                    log.exception("looking for jobs failed; trying again")
                    self._due_at = 0.0
                    await asyncio.sleep(1.0)
                await tick(LOOK_SECONDS)
        finally:
            await self._stop()

    async def _look_when_due(self) -> None:
        if time.monotonic() - self._looked_for_silent >= jobs.HEARTBEAT_SECONDS:
            self._looked_for_silent = time.monotonic()
            await self._take_over_silent()
        if self._watch.anything_new() or time.time() >= self._due_at:
            self._due_at = math.inf
            await self._look()

    async def _look(self) -> None:
        await asyncio.to_thread(self._platform.fine_tuning.validate_waiting)
        while kinds := self._kinds_with_room():
            held_back = await asyncio.to_thread(self._held_back, kinds)
            if held_back:
                self._due_at = min(self._due_at, time.time() + HELD_SECONDS)
            claimable = await asyncio.to_thread(self._claimable_from, kinds, held_back)
            if claimable is None:
                return
            if claimable > time.time():
                self._due_at = min(self._due_at, claimable)
                return
            claim = await self._claim(kinds, held_back)
            if claim is None:
                return
            self._running[claim] = _Running(claim.kind, asyncio.create_task(self._see_through(claim)))

    async def _claim(self, kinds: list[str], held_back: list[int]) -> Claim | None:
        name, only = self._platform.worker_name, self._only
        return await self._platform.writer.write_soon(
            lambda connection: jobs.claim(connection, name, kinds, held_back, only)
        )

    def _held_back(self, kinds: list[str]) -> list[int]:
        return [job for kind in kinds for job in self._handlers[kind].held_back(self._platform)]

    def _kinds_with_room(self) -> list[str]:
        running = Counter(one.kind for one in self._running.values())
        return [
            kind for kind, handler in self._handlers.items() if running[kind] < handler.room(self._platform.settings)
        ]

    def _claimable_from(self, kinds: list[str], held_back: list[int]) -> int | None:
        with self._platform.database.read() as connection:
            return jobs.claimable_from(connection, kinds, held_back, self._only)

    async def _take_over_silent(self) -> None:
        for subject in await self._platform.writer.write_soon(self._observer.take_over):
            log.warning("the worker of %s has gone silent; the job is queued again", subject)
        for handler in self._handlers.values():
            await asyncio.to_thread(handler.tidy, self._platform)
        await asyncio.to_thread(self._platform.kept_answers.purge_old)

    async def _see_through(self, claim: Claim) -> None:
        handler = HANDLERS[claim.kind]
        try:
            await self._attempt(handler, claim)
            log.info("job %s: done here", claim.subject)
        except StaleClaim:
            log.info("job %s is no longer ours: it was cancelled, or another worker has it", claim.subject)
        except StoreUnavailable as error:
            # Its state is on disk and its lease runs out, so it is taken up again when the database is back.
            log.warning("job %s interrupted: %s", claim.subject, error.message)
        except StillroomError as error:
            await self._give_up(handler, claim, error)
        except Exception:
            log.exception("job %s broke", claim.subject)
            problem = StillroomError("The job broke in a way that was not foreseen; the server's log says how.")
            await self._give_up(handler, claim, problem)
        finally:
            del self._running[claim]
            self._due_at = 0.0  # there is room for another

    async def _attempt(self, handler: ModuleType, claim: Claim) -> None:
        log.info("job %s: started", claim.subject)
        run = await handler.start(self._platform, claim)
        self._running[claim].run = run
        work = asyncio.create_task(run.run())
        guard = asyncio.create_task(self._guard(claim, run))
        try:
            done, _ = await asyncio.wait({work, guard}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (work, guard):
                task.cancel()
            await asyncio.gather(work, guard, return_exceptions=True)

    async def _guard(self, claim: Claim, run: Run) -> None:
        """Moves the heartbeat and carries out the owner's wishes. Ends by StaleClaim."""
        last_beat = 0.0
        asked = False
        while True:
            if run.concluding:
                await asyncio.sleep(GUARD_SECONDS)  # the claim ends with the job, which is about to be written
                continue
            if time.monotonic() - last_beat > jobs.HEARTBEAT_SECONDS:
                last_beat = time.monotonic()
                await self._beat(claim, run)
            wish = await asyncio.to_thread(self._wish, claim)
            if wish == jobs.PAUSE and not asked:
                asked = True
                run.stop(State.PAUSED)
            await asyncio.sleep(GUARD_SECONDS)

    async def _beat(self, claim: Claim, run: Run) -> None:
        try:
            await self._platform.writer.write_soon(lambda c: jobs.beat(c, claim))
        except StoreUnavailable as error:
            log.warning("the heartbeat of %s was missed: %s", claim.subject, error.message)
        else:
            run.still_ours()

    def _wish(self, claim: Claim) -> str:
        with self._platform.database.read() as connection:
            return jobs.wish_of(connection, claim)

    async def _give_up(self, handler: ModuleType, claim: Claim, error: StillroomError) -> None:
        log.warning("job %s failed: %s", claim.subject, error.message)
        try:
            await handler.give_up(self._platform, claim, error)
        except StaleClaim:
            log.info("job %s was no longer ours to give up", claim.subject)

    async def _stop(self) -> None:
        tasks = [one.task for one in self._running.values()]
        for one in self._running.values():
            if one.run is not None:
                one.run.stop(State.QUEUED)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
