"""Time, as an argument: the wall clock for what people read, the monotonic one for waiting."""

from __future__ import annotations

import asyncio
import time

DAY_SECONDS = 86_400


class Clock:
    """The machine's clocks. Tests hand in a subclass whose time they move."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean something."""
        return time.monotonic()


async def tick(seconds: float) -> None:
    """Waits for the next of the moments that are so many seconds apart. They are the same for everyone, so that an
    idle process is woken once for all who wait."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(seconds - now % seconds)
