"""A job's child process: JSON lines out of it, and its end when we end.

The child watches its standard input; when the pipe closes, because we stopped it or died, it exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from stillroom.errors import TrainingFailed

LINE_BYTES = 256 * 1024 * 1024  # what a child reports in one line may hold a long conversation
KILLED = -signal.SIGKILL
LAST_WORDS = 40  # lines of the child's standard error kept for the report of its death


class Child:
    """One running child. Close it when done with it."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, module: str, folder: Path, environment: Mapping[str, str] | None = None) -> Child:
        """Runs `python -m module folder`, with more `environment`, such as a key that must not lie on
        disk; its standard error goes to `log.txt` in the folder."""
        log = folder / "log.txt"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                str(folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(environment or {})},
                limit=LINE_BYTES,
            )
        return cls(process, log)

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """What the child reports, until it closes its output."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield msgspec.json.decode(line)

    async def messages_or_silence(self, seconds: float) -> AsyncIterator[dict[str, Any] | None]:
        """As `messages`, and None whenever nothing was reported for so long."""
        assert self._process.stdout is not None
        while True:
            try:
                async with asyncio.timeout(seconds):
                    line = await self._process.stdout.readline()
            except TimeoutError:
                yield None
                continue
            if not line:
                return
            yield msgspec.json.decode(line)

    async def ended(self) -> int:
        """Waits for the exit status; below zero, the signal that ended it."""
        return await self._process.wait()

    def ask_to_stop(self) -> None:
        """Lets the child save its state and end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def reassure(self) -> None:
        """Tells the child that we are there and it is to go on: from the first time on it ends when it is not told."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(b"\n")

    async def close(self) -> None:
        """Ends the child now, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def last_words(self) -> str:
        """The end of what the child wrote on standard error."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LAST_WORDS:])


def ended_badly(process: str, status: int, killed: str) -> TrainingFailed:
    """What to tell of a child that ended without a word; `killed` goes on behind what a kill most likely means."""
    if status == KILLED:
        return TrainingFailed(
            f"The {process} process was killed, most likely because memory ran out{killed}", code="out_of_memory"
        )
    return TrainingFailed(f"The {process} process ended unexpectedly (status {status}); the server's log says why.")
