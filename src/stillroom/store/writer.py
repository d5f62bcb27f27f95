"""The one writer: a thread that commits what table owners hand it, many at a time.

Owners submit callables that write through a connection. Those waiting at the same moment share a
transaction (group commit), so that a durable commit costs next to nothing under load; a future
resolves only after the commit. When one of a group fails, the group is rolled back and each is
tried alone, so that one bad write never harms its neighbours.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from stillroom.errors import DiskFull, StoreUnavailable

GROUP = 64  # writes in one transaction at most
WAITING = 10_000  # writes queued at most, before new ones are refused

Work = Callable[[Connection], Any]
T = TypeVar("T")


class Writer:
    """Owns the writing connection and its thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: queue.Queue[tuple[Work, Future[Any]] | None] = queue.Queue(WAITING)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Runs `work` in the next transaction; it may run again when a neighbour fails.

        The future resolves after the commit. Raises StoreUnavailable when too much is waiting.
        """
        future: Future[T] = Future()
        if self._closed:
            raise StoreUnavailable("The server is stopping; nothing was stored.")
        try:
            self._queue.put_nowait((work, future))
        except queue.Full:
            raise StoreUnavailable("The database is behind with its writes; nothing was stored. Try again.") from None
        return future

    def write(self, work: Callable[[Connection], T]) -> T:
        """As `submit`, and waits for the commit. Not for the event loop."""
        return self.submit(work).result()

    async def write_soon(self, work: Callable[[Connection], T]) -> T:
        """As `write`, for the event loop. Cancelling the wait does not undo the write."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(work)))

    def close(self) -> None:
        """Commits what is waiting and ends the thread."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            while len(group) < GROUP:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._queue.put(None)
                    break
                group.append(following)
            self._commit(group)

    def _commit(self, group: list[tuple[Work, Future[Any]]]) -> None:
        try:
            with self._engine.begin() as connection:
                results = [work(connection) for work, _ in group]
        except Exception as error:  # each waiting caller gets it
            if len(group) > 1 and not _is_locked(error):
                for one in group:
                    self._commit([one])
                return
            for _, future in group:
                future.set_exception(_in_our_words(error))
            return
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)


def _is_locked(error: Exception) -> bool:
    """Whether another process kept us out: each of a group tried alone would wait as long again."""
    return isinstance(error, OperationalError) and "locked" in str(error.orig)


def _in_our_words(error: Exception) -> Exception:
    if not isinstance(error, OperationalError):
        return error
    reason = str(error.orig)
    if "full" in reason:
        kind: type[StoreUnavailable] = DiskFull
        message = "The disk that holds the data folder is full; nothing was stored. Free some space and try again."
    else:
        kind = StoreUnavailable
        message = f"The database cannot take the write now ({reason}); nothing was stored. Try again."
    ours = kind(message)
    ours.__cause__ = error
    return ours
