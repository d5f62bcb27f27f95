"""Claims jobs and sees each through: heartbeat, pause, cancel, crash.

Runs as a task of the server's event loop, and as `stillroom worker` on another machine. The
catch-all here is one of the product's two: whatever a job does, the next one runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from types import ModuleType

from stillroom import fine_tuning, jobs
from stillroom.assembly import Platform
from stillroom.errors import StillroomError, StoreUnavailable, TrainingFailed
from stillroom.jobs import Claim, Observer, StaleClaim, State
from stillroom.worker import fine_tune

log = logging.getLogger(__name__)

HANDLERS: dict[str, ModuleType] = {fine_tuning.KIND: fine_tune}
LOOK_SECONDS = 0.25  # between two looks for new jobs
GUARD_SECONDS = 0.5  # between two looks whether a running job was cancelled or is to pause
STOP_SECONDS = 20.0  # for running jobs to save their state when we stop


class Supervisor:
    """The jobs of this process."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._observer = Observer(platform.clock)
        self._running: dict[int, tuple[asyncio.Task[None], fine_tune.FineTune | None]] = {}
        self._looked_for_silent = 0.0

    async def run(self) -> None:
        """Claims and runs jobs until cancelled; then lets running ones save their state."""
        try:
            while True:
                try:
                    await self._look()
                except Exception:
                    log.exception("looking for jobs failed; trying again")
                    await asyncio.sleep(1.0)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._stop()

    async def _look(self) -> None:
        await asyncio.to_thread(self._platform.fine_tuning.validate_waiting)
        await self._take_over_silent()
        while len(self._running) < self._platform.settings.training.running_jobs:
            if not await asyncio.to_thread(self._anything_queued):
                return
            claim = await self._platform.writer.write_soon(lambda c: jobs.claim(c, self._platform.worker_name))
            if claim is None:
                return
            task = asyncio.create_task(self._see_through(claim))
            self._running[claim.number] = (task, None)

    def _anything_queued(self) -> bool:
        with self._platform.database.read() as connection:
            return jobs.anything_queued(connection)

    async def _take_over_silent(self) -> None:
        if time.monotonic() - self._looked_for_silent < jobs.HEARTBEAT_SECONDS:
            return
        self._looked_for_silent = time.monotonic()
        for subject in await self._platform.writer.write_soon(self._observer.take_over):
            log.warning("the worker of %s has gone silent; the job is queued again", subject)
        await asyncio.to_thread(fine_tune.tidy, self._platform)

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
            problem = TrainingFailed("The job broke in a way that was not foreseen; the server's log says how.")
            await self._give_up(handler, claim, problem)
        finally:
            del self._running[claim.number]

    async def _attempt(self, handler: ModuleType, claim: Claim) -> None:
        log.info("job %s: started", claim.subject)
        run = await handler.start(self._platform, claim)
        self._running[claim.number] = (self._running[claim.number][0], run)
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

    async def _guard(self, claim: Claim, run: fine_tune.FineTune) -> None:
        """Moves the heartbeat and carries out the owner's wishes. Ends by StaleClaim."""
        last_beat = 0.0
        asked = False
        while True:
            if run.concluding:
                await asyncio.sleep(GUARD_SECONDS)  # the claim ends with the job, which is about to be written
                continue
            if time.monotonic() - last_beat > jobs.HEARTBEAT_SECONDS:
                last_beat = time.monotonic()
                await self._beat(claim)
            wish = await asyncio.to_thread(self._wish, claim)
            if wish == jobs.PAUSE and not asked:
                asked = True
                run.stop(State.PAUSED)
            await asyncio.sleep(GUARD_SECONDS)

    async def _beat(self, claim: Claim) -> None:
        try:
            await self._platform.writer.write_soon(lambda c: jobs.beat(c, claim))
        except StoreUnavailable as error:
            log.warning("the heartbeat of %s was missed: %s", claim.subject, error.message)

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
        tasks = [task for task, _ in self._running.values()]
        for _, run in self._running.values():
            if run is not None:
                run.stop(State.QUEUED)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
