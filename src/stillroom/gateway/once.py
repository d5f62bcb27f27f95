"""Work with a key is done once at a time: whoever asks for the same meanwhile waits for it.

The work belongs to nobody's connection. It goes on when the one who asked first has left, because
it is paid for anyway, and the next try finds what it made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from stillroom.errors import Conflict, StoreUnavailable

STOP_SECONDS = 5.0  # for work that nobody waits for any more, when the server stops

T = TypeVar("T")
Place = tuple[int, str]  # project and key


class Once(Generic[T]):
    """What is under way in this process. Lives on the event loop."""

    def __init__(self) -> None:
        self._running: dict[Place, tuple[bytes, asyncio.Task[T]]] = {}
        self._closed = False

    async def run(self, place: Place, digest: bytes, work: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """What the work gives, and whether it was somebody else's: begun before under the same key.

        `digest` says what the work is. Raises Conflict when other work is under way under the key,
        and what the work raises; when somebody else's fails, ours is begun.
        """
        while (running := self._running.get(place)) is not None:
            theirs, task = running
            if theirs != digest:
                raise other_request(place[1])
            await asyncio.wait({task})
            if not task.cancelled() and task.exception() is None:
                return task.result(), True
        if self._closed:
            raise StoreUnavailable("The server is stopping. Try again.")
        task = asyncio.create_task(work())
        self._running[place] = (digest, task)
        task.add_done_callback(lambda done: self._ended(place, done))
        return await asyncio.shield(task), False

    async def close(self) -> None:
        """Lets what is under way end for a moment, then ends it."""
        self._closed = True
        tasks = [task for _, task in self._running.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _ended(self, place: Place, task: asyncio.Task[T]) -> None:
        del self._running[place]
        if not task.cancelled():
            task.exception()  # seen, for there may be nobody left to see it


def other_request(key: str) -> Conflict:
    return Conflict(
        f"The Idempotency-Key {key!r} was used for another request. Send the same request again, or a new key.",
        param="Idempotency-Key",
    )
