"""`stillroom worker`: claims jobs beside a server, from the same database and files."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from stillroom.assembly import Platform, open_platform
from stillroom.config import Settings
from stillroom.worker.supervisor import Supervisor


def work(settings: Settings) -> None:
    """Runs jobs until SIGTERM or SIGINT; running ones save their state and go back to the queue."""
    platform = open_platform(settings, as_server=False)
    try:
        asyncio.run(_work(platform))
    finally:
        platform.close()


async def _work(platform: Platform) -> None:
    task = asyncio.create_task(Supervisor(platform).run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
