"""How many questions are under way at once: as many as asked for, fewer while the teacher is overloaded.

Trouble halves the number, once for all that were under way together; each round of answers without trouble adds one.
A teacher that says when to come back is left alone until then.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

LONGEST_PAUSE_SECONDS = 600.0  # however long a teacher wants to be left alone: then it is asked how it is
TOLD_SECONDS = 10.0  # a longer pause is told of, so that nobody wonders


class Throttle:
    """The places for questions. Lives on the event loop."""

    def __init__(self, most: int, tell: Callable[[str], None]) -> None:
        self._most = most
        self._tell = tell
        self._room = float(most)
        self._busy = 0
        self._freed = asyncio.Condition()
        self._not_before = 0.0
        self._eased_at = 0.0
        self.fewest = most
        """The smallest number there has been."""

    @property
    def at_once(self) -> int:
        return int(self._room)

    @property
    def busy(self) -> int:
        return self._busy

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """Waits for a place and holds it; gives when it was taken, for `ease`."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._busy < self.at_once)
            self._busy += 1
        try:
            while (pause := self._not_before - time.monotonic()) > 0:  # noqa: ASYNC110 - a time to wait for, no event
                # Not all at the same moment, or the teacher is overloaded again.
                await asyncio.sleep(pause * random.uniform(1.0, 1.25))
            yield time.monotonic()
        finally:
            async with self._freed:
                self._busy -= 1
                self._freed.notify_all()

    def ease(self, taken_at: float, seconds: float | None) -> None:
        """The teacher is overloaded, and may have said for how long."""
        if seconds is not None:
            self._leave_alone(min(seconds, LONGEST_PAUSE_SECONDS))
        if taken_at < self._eased_at:
            return  # asked before the number was lowered: no news
        self._eased_at = time.monotonic()
        self._room = max(1.0, self._room / 2)
        self.fewest = min(self.fewest, self.at_once)

    async def went_well(self) -> None:
        """An answer came."""
        if self._room < self._most:
            before = self.at_once
            self._room = min(self._most, self._room + 1 / self._room)
            if self.at_once > before:
                async with self._freed:
                    self._freed.notify_all()

    def _leave_alone(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        if seconds >= TOLD_SECONDS and until - self._not_before >= TOLD_SECONDS:
            self._tell(f"The teacher is overloaded and asks to be left alone: going on in {seconds:.0f} seconds.")
        self._not_before = max(self._not_before, until)
