"""`stillroom worker`: claims jobs beside a server, from the same database and files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from stillroom.assembly import Platform, open_platform
from stillroom.config import Settings
from stillroom.errors import ConfigurationError
from stillroom.worker.supervisor import Supervisor

log = logging.getLogger(__name__)


def work(settings: Settings) -> None:
    """Runs jobs until SIGTERM or SIGINT; running ones save their state and go back to the queue."""
    if not (settings.folder / "stillroom.db").exists():
        raise ConfigurationError(f"{settings.folder} is no server's data folder. Name it with --data.", param="data")
    platform = open_platform(settings, as_server=False)
    log.info("%s runs the jobs of %s", platform.worker_name, settings.folder)
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
