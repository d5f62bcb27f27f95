"""Time, as an argument: the wall clock for what people read, the monotonic one for waiting."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime

DAY_SECONDS = 86_400
AGO = re.compile(r"(\d+)([smhd])")
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": DAY_SECONDS}


class Clock:
    """The machine's clocks. Tests hand in a subclass whose time they move."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean something."""
        return time.monotonic()


def moment(text: str) -> int:
    """A time as people write it, `30m`, `2h`, `7d` ago or an ISO time, in seconds since the epoch. Raises ValueError."""
    if ago := AGO.fullmatch(text):
        return int(time.time()) - int(ago[1]) * UNIT_SECONDS[ago[2]]
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        raise ValueError(f"{text!r} is neither like 30m, 2h, 7d nor an ISO time") from None


async def tick(seconds: float) -> None:
    """Waits for the next of the moments that are so many seconds apart. They are the same for everyone, so that an
    idle process is woken once for all who wait."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(seconds - now % seconds)
