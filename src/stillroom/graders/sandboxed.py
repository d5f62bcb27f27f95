"""The program inside the sandbox: loads a grader's source and grades item after item, one JSON line each.

Runs as `python -I -S -B sandboxed.py CONFINEMENT` with nothing but the standard library. Everything the grader's code
can reach in here is the grader's to break; the other end of the pipe believes nothing but a finite number with the
right token.
"""

from __future__ import annotations

import json
import linecache
import os
import resource
import signal
import sys
import traceback
import types
from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` would be a tenth of the start
    from collections.abc import Mapping
    from typing import Any, BinaryIO

NAME = "<grader>"
TRACEBACK_LINES = 20
TRACEBACK_CHARACTERS = 4000
MESSAGE_CHARACTERS = 500
GENEROUS_SECONDS = 10  # CPU time beyond the wall clock, which the other end watches


class NoScore(Exception):
    """What the grader returned is no finite number."""


def main() -> None:
    confinement = json.loads(sys.argv[1])
    requests, replies = _take_pipes()
    _confine(confinement)
    sys.path += confinement["packages"]
    _send(replies, {"ready": True})
    _serve(requests, replies, confinement)


def _take_pipes() -> tuple[BinaryIO, int]:
    """Moves the pipes away from where the grader's own input and output will be, which is nowhere."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
    return requests, replies


def _confine(confinement: Mapping[str, Any]) -> None:
    for name, value in confinement["limits"].items():
        _limit(getattr(resource, name), value)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[confinement["core"] % len(cores)]})
    if confinement["user"] is not None:
        os.setgroups([])
        os.setresgid(*[confinement["user"]] * 3)
        os.setresuid(*[confinement["user"]] * 3)


def _limit(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
    resource.setrlimit(kind, (value, value))


def _serve(requests: BinaryIO, replies: int, confinement: Mapping[str, Any]) -> None:
    loads, readline = json.loads, requests.readline  # our own names: the grader may change the modules'
    grade: Any = None
    while line := readline():
        reply: dict[str, Any] = {"token": None}
        try:
            request = loads(line)
            reply["token"] = request.pop("token")
            _allow_cpu(confinement["wall_seconds"])
            if "source" in request:
                grade = _load(request["source"])
            else:
                reply["score"] = _number(grade(request["sample"], request["item"]))
        except BaseException as error:
            reply.update(_failure(error))
        request = line = None  # no later item can find it here
        if confinement["alone"]:
            _end_what_was_left()
        _send(replies, reply)


def _load(source: str) -> Any:
    """The source's `grade`. Raises what the source raises, and NoScore where there is no such function."""
    module = types.ModuleType("grader")
    sys.modules["grader"] = module
    linecache.cache[NAME] = (len(source), None, source.splitlines(keepends=True), NAME)
    exec(compile(source, NAME, "exec"), module.__dict__)  # noqa: S102 - what this program is for
    grade = module.__dict__.get("grade")
    if not callable(grade):
        raise NoScore("The source defines no function `grade(sample, item)`.")
    return grade


def _number(score: Any) -> float:
    """True is 1 and False is 0, as for Python itself."""
    if isinstance(score, (str, bytes, bytearray)) or not (
        hasattr(type(score), "__float__") or hasattr(type(score), "__index__")
    ):
        raise NoScore(f"`grade` returned {_short(score)}, which is no number.")
    try:
        number = float(score)
    except OverflowError:
        raise NoScore("`grade` returned a number too large for a float.") from None
    if not isfinite(number):
        raise NoScore(f"`grade` returned {number}, which is no finite number.")
    return number


def _short(value: object) -> str:
    return f"{repr(value)[:80]} ({type(value).__name__})"


def _failure(error: BaseException) -> dict[str, str]:
    """What went wrong, in the lines of the grader's own code. The error is the grader's: it may fail to be told."""
    try:
        if isinstance(error, NoScore):
            return {"error": str(error)[:MESSAGE_CHARACTERS], "traceback": ""}
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        return {"error": last[:MESSAGE_CHARACTERS], "traceback": _own_lines(error)}
    except BaseException:
        return {"error": "The grader raised an exception that cannot be shown.", "traceback": ""}


def _own_lines(error: BaseException) -> str:
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename != NAME:
        step = step.tb_next
    text = "".join(traceback.format_exception(type(error), error, step))
    return "\n".join(text.splitlines()[-TRACEBACK_LINES:])[-TRACEBACK_CHARACTERS:]


def _allow_cpu(wall_seconds: float) -> None:
    """CPU time for one more item: what is left running by a parent that died ends by itself."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime + wall_seconds + GENEROUS_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _end_what_was_left() -> None:
    """Ends every other process of our namespace. Only for one who is alone in it, which its parent's number shows."""
    if os.getppid() != 1:
        return
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except OSError:  # there was none, or none is left
        pass


def _send(replies: int, reply: Mapping[str, Any]) -> None:
    text = json.dumps(reply).encode() + b"\n"
    while text:
        text = text[os.write(replies, text) :]


if __name__ == "__main__":
    main()
