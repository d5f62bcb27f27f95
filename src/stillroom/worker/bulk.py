"""Carries out one bulk action: hands its chunks to the writer, one after the other.

There is no process of its own: what takes the time is the writer. Everybody's writes wait for the
same one, so a chunk is made as large as fits a short transaction, and between two chunks others
have their turn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import Connection

from stillroom.assembly import Platform
from stillroom.completions import bulk
from stillroom.completions.bulk import BulkAction
from stillroom.config import Settings
from stillroom.errors import StillroomError, StoreUnavailable
from stillroom.jobs import Claim, State

log = logging.getLogger(__name__)

CHUNK_SECONDS = 0.015  # that a transaction should take; on a busy machine some take three times as long
SMALLEST_CHUNK, LARGEST_CHUNK = 10, bulk.READ
SHRINKING, GROWTH = 0.5, 1.5  # of a chunk beside the one before, at most: one slow commit says little
REST = 0.5  # of the time that a chunk took, before the next
RETRY_SECONDS = 1.0  # before what the database could not take is tried again


class BulkRun:
    """One claimed action in this process."""

    def __init__(self, platform: Platform, claim: Claim, action: BulkAction) -> None:
        self._platform = platform
        self._claim = claim
        self._action = action
        self._chunk = SMALLEST_CHUNK
        self._stopping = False
        self.concluding = False

    async def run(self) -> None:
        """Works until every completion has been come to, it is asked to stop, or the claim is lost (StaleClaim)."""
        if not await self._work():
            await self._platform.writer.write_soon(lambda c: bulk.set_aside(c, self._claim))

    async def _work(self) -> bool:
        """False when it was asked to stop before the end."""
        if self._action.started_at is None and not await self._record_start():
            return False
        numbers = bulk.upcoming(self._platform.database, self._action)
        while (some := await asyncio.to_thread(next, numbers, None)) is not None:
            if not await self._carry_out(some):
                return False
        self.concluding = True
        return await self._written(lambda c: bulk.finish(c, self._claim))

    async def _record_start(self) -> bool:
        matched = self._action.matched
        if matched is None:
            matched = await asyncio.to_thread(bulk.count, self._platform.database, self._action)
        return await self._written(lambda c: bulk.record_start(c, self._claim, matched))

    def stop(self, to: State) -> None:
        """Ends it after the chunk that is being written; the rest is left for later."""
        self._stopping = True

    def still_ours(self) -> None:
        """There is no process to tell."""

    async def _carry_out(self, numbers: list[int]) -> bool:
        """False when it was asked to stop before all of them were done."""
        begin = 0
        while begin < len(numbers):
            chunk = numbers[begin : begin + self._chunk]
            began = 0.0

            def work(connection: Connection, chunk: list[int] = chunk) -> None:
                nonlocal began
                began = time.monotonic()
                bulk.carry_out(connection, self._claim, self._action, chunk)

            if not await self._written(work):
                return False
            taken = time.monotonic() - began
            begin += len(chunk)
            if len(chunk) == self._chunk:  # the last of what was looked up says nothing of how much fits
                self._chunk = next_chunk(len(chunk), taken)
            await asyncio.sleep(taken * REST)
        return True

    async def _written(self, work: Callable[[Connection], None]) -> bool:
        """Waits for as long as the database cannot take it; False when it was asked to stop before."""
        while not self._stopping:
            try:
                await self._platform.writer.write_soon(work)
            except StoreUnavailable as error:
                log.warning("%s waits: %s", self._claim.subject, error.message)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return True
        return False


def next_chunk(size: int, taken: float) -> int:
    """How many completions the next transaction is for, when one for `size` took so many seconds."""
    fitting = size * min(GROWTH, max(SHRINKING, CHUNK_SECONDS / max(taken, 1e-6)))
    return min(LARGEST_CHUNK, max(SMALLEST_CHUNK, round(fitting)))


def room(settings: Settings) -> int:
    """How many such jobs run at a time. One: of two that tag the same completions the later must win."""
    return 1


def held_back(platform: Platform) -> list[int]:
    """The jobs that must wait though it is their turn. Blocks."""
    with platform.database.read() as connection:
        return bulk.held_back(connection)


async def start(platform: Platform, claim: Claim) -> BulkRun:
    """The claimed action, ready to be carried out."""
    return BulkRun(platform, claim, await asyncio.to_thread(platform.bulk_actions.get, claim.project, claim.subject))


async def give_up(platform: Platform, claim: Claim, error: StillroomError) -> None:
    """The action has failed for good."""
    await platform.writer.write_soon(lambda connection: bulk.fail(connection, claim, error))


def tidy(platform: Platform) -> None:
    """Forgets actions that ended long ago."""
    platform.bulk_actions.purge_old()
