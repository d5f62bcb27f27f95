"""Starts a run: `python -m stillroom.student.training.launch FOLDER`.

A run of one process is carried out here, by `run`. Of one that FOLDER/spec.json gives several "processes", each is
started as `python -m stillroom.student.training.run FOLDER`, is told its number by torchrun's environment variables, and
ends with this one. To whoever started it, it is one job child either way: events on standard output, SIGTERM
stops the run, and nothing is left when it is killed or its parent's pipe closes, from the first moment on. When
one process dies, the others cannot go on: they are ended, and this one ends as the first did, by the same signal
or with the same exit code.

Owns processes and their ends. Knows neither torch (until it runs a run itself) nor what they do; several machines
are torchrun's or accelerate's business.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from stillroom.student.child import MEETING, end_with_parent

MODULE = "stillroom.student.training.run"
LAST_WORDS_SECONDS = 10.0
"""How long the others may take to end by themselves, when one has failed: one of them may have to say why."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m stillroom.student.training.launch FOLDER\n")
        return 2
    end_with_parent()
    folder = Path(arguments[0])
    count = processes_of(folder)
    if count == 1:
        from stillroom.student.training import run  # takes seconds, and minutes on a starved machine

        return run.main(arguments)
    with tempfile.TemporaryDirectory(prefix="stillroom-") as meeting:
        running: list[subprocess.Popen[bytes]] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: _ask_to_stop(running))
        for rank in range(count):
            running.append(started(folder, _numbered(rank, count) | {MEETING: f"{meeting}/file"}))
        code = _seen_through(running)
    if code < 0:
        _die_by(-code)
    return code


def processes_of(folder: Path) -> int:
    """How many the run's spec asks for. A spec that cannot be read is the run's own to complain about."""
    try:
        return max(1, int(json.loads((folder / "spec.json").read_text(encoding="utf-8")).get("processes") or 1))
    except (OSError, ValueError, TypeError, AttributeError):
        return 1


def started(folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """With a pipe from us as its standard input: it ends when we do."""
    command = [sys.executable, "-m", MODULE, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **environment})


def _numbered(rank: int, count: int) -> dict[str, str]:
    """As torchrun sets them, and that all traffic stays on this machine."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        # Each sets its number of threads itself; one at first, as accelerate would guess and warn.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
    }


def _ask_to_stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for each in processes:
        each.send_signal(signal.SIGTERM)  # which does nothing to one that has ended


def _seen_through(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all of them, or for the first that fails; what they have ended with, below zero for a signal."""
    while None in (codes := [each.poll() for each in processes]) and not any(codes):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    ends = [_ended(each, deadline) for each in processes]
    return next((end for end in ends if end < 0), max(ends))


def _ended(process: subprocess.Popen[bytes], deadline: float) -> int:
    """Its exit code, and 0 for one that had to be killed: it did not fail."""
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return 0


def _die_by(number: int) -> None:
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
