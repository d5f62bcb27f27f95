"""Time, as an argument: the wall clock for what people read, the monotonic one for waiting."""

from __future__ import annotations

import time


class Clock:
    """The machine's clocks. Tests hand in a subclass whose time they move."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean something."""
        return time.monotonic()
