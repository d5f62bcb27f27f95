"""A process of ours, seen from inside: streams, signals, exit codes, and an end with its parent's.

Standard output carries events, one JSON object a line, and nothing else. SIGTERM and SIGINT ask the work to stop.
Exit codes: 0 the work is done or has stopped, 1 an error, 3 the parent is gone (standard input, a pipe, has
ended). An exit 1 without an error event is a bug, its traceback on standard error.

Knows nothing of what the work is, and imports no torch before an error makes it ask.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from stillroom.errors import StillroomError
from stillroom.student.events import Emit

EXIT_ERROR = 1
EXIT_PARENT_GONE = 3
SILENCE_SECONDS = 20.0
"""Of the parent, at most: less than others wait (30 s) before they believe that it is dead and take its work over."""
WATCH = "parent"
"""The name of the thread that watches it: one is enough, and two would take each other's bytes."""
MEETING = "STILLROOM_PROCESSES_MEET_AT"
"""Names the file over which the processes find each other: no port is opened for it."""

Work = Callable[[Path, Emit, threading.Event], None]


def as_child(name: str, arguments: list[str], work: Work) -> int:
    """Does the work on the folder that `python -m name` was given, as a child with the streams, signals
    and exit codes described above. What it emits is written in the first of several processes of a run alone."""
    if len(arguments) != 1:
        sys.stderr.write(f"usage: python -m {name} FOLDER\n")
        return 2
    say = _events_on(_taken_stdout())
    _draw_no_progress_bars()
    end_with_parent()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        work(Path(arguments[0]), say if is_first() else _keep_silent, stopping)
    except (StillroomError, MemoryError, RuntimeError) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        if isinstance(error, StillroomError):
            sys.stderr.write(f"{error.message}\n")
        else:
            traceback.print_exc()
        # Our own errors are the same in all processes; out of memory can be any of them.
        if is_first() or not isinstance(error, StillroomError):
            say(failure)
        return EXIT_ERROR
    return 0


def end_with_parent(silence_seconds: float = SILENCE_SECONDS) -> None:
    """From now on, the process ends as soon as the pipe from its parent closes, whatever it is doing; and when a
    parent that has once written to the pipe falls silent: it may be stopped, and somebody else have taken over.

    A standard input that is no pipe, such as a terminal or /dev/null, belongs to no such parent.
    """
    mode = os.fstat(0).st_mode
    is_watched = any(each.name == WATCH for each in threading.enumerate())
    if not is_watched and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        threading.Thread(target=_watch_parent, args=(silence_seconds,), name=WATCH, daemon=True).start()


def _watch_parent(silence_seconds: float) -> None:
    patience: float | None = None
    while select.select([0], [], [], patience)[0] and os.read(0, 4096):
        patience = silence_seconds
    os.write(2, b"Standard input has ended: whoever started this process is gone, and it ends too.\n")
    os._exit(EXIT_PARENT_GONE)


def is_first() -> bool:
    """Whether this process is the one that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def was_started_with_others() -> bool:
    """Whether a launcher, of whatever make, has given this process a number among others."""
    return "WORLD_SIZE" in os.environ


def is_alone_by_mistake() -> bool:
    """Whether accelerate was asked for several processes and started one, as it does where there is no GPU."""
    return not was_started_with_others() and {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()


def _draw_no_progress_bars() -> None:
    from transformers.utils import logging  # which every such work has loaded by now

    logging.disable_progress_bar()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says so: torch has an exception of its own for accelerators, and none for the machine's memory."""
    import torch  # which the process that has run out of memory has done long before

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def failure_of(error: Exception) -> dict[str, Any] | None:
    """The error as an event; None when it is our own mistake."""
    if isinstance(error, StillroomError):
        return {"type": "error", "code": error.code, "message": error.message, "param": error.param}
    if is_out_of_memory(error):
        message = "The job needs more memory than there is. Use a smaller batch_size, shorter rows or a smaller base."
        return {"type": "error", "code": "out_of_memory", "message": message, "param": "batch_size"}
    return None


def _taken_stdout() -> TextIO:
    """The real standard output; whatever libraries print there goes to standard error from now on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return events


def _events_on(stream: TextIO) -> Emit:
    def emit(event: Mapping[str, Any]) -> None:
        stream.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()

    return emit


def _keep_silent(event: Mapping[str, Any]) -> None:
    """One process speaks for all."""
