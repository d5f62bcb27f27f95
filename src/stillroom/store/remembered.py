"""What was read from the database, remembered until anything is written.

For answers that many ask for and that take a while to find. Nothing is ever told that is older than the last
commit, whoever made it: to learn of one costs some microseconds (see `Database.version`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from stillroom.store.database import Database

T = TypeVar("T")


class Remembered(Generic[T]):
    """Answers by what they are about. They are not to be changed by those who get them. Blocks."""

    def __init__(self, database: Database, most_seconds: float = math.inf) -> None:
        """`most_seconds`: after so long an answer is read again all the same; for those that time changes, too."""
        self._database = database
        self._most_seconds = most_seconds
        self._version: int | None = None
        self._known: dict[Hashable, tuple[float, T]] = {}
        self._lock = threading.Lock()

    def get(self, about: Hashable, read: Callable[[], T]) -> T:
        """The answer, by `read` when it is not known."""
        with self._lock:  # whoever asks meanwhile waits for what is being read
            # Asked for before reading, so that what is committed during it makes the answer old.
            version = self._database.version()
            if version != self._version:
                self._version = version
                self._known.clear()
            at, answer = self._known.get(about, (-math.inf, None))
            if answer is None or time.monotonic() - at > self._most_seconds:
                answer = read()
                self._known[about] = (time.monotonic(), answer)
            return answer
