"""Job children without the seconds that their imports take: a process that has imported everything forks them.

`python -m tests.units.student.nursery` reads orders as JSON lines and answers each when its child has ended.
A child is `stillroom.student.training.run` with standard streams, signals and an end of its own; SIGKILL is a real one.
The nursery itself never computes, as a process that has used torch's threads cannot be forked.

    {"folder", "events": where its standard output goes,
     "signal": {"step": 3, "number": 9, "rank": 1} (or null): sent when the child has reported that step, to the child
               (rank null) or to one of the processes that it has started; number 0 closes its parent's pipe,
     "die_at": "os.rename resume/.step-000002" (or null): it kills itself before the first operation on files of its
               folder that begins so, as a regular expression,
     "change": "gradients-not-added" (or null): one of CHANGES is made to the child's code}

A child whose spec asks for several processes is `stillroom.student.training.launch`, with the processes that it starts forked.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from stillroom.student.training import launch, run
from stillroom.student.training.objective import Objective
from stillroom.student.training.processes import Processes

ROOT = Path(__file__).parents[3]
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child has ended, and what it did before."""

    code: int
    """Below zero: the signal that ended it."""
    events: list[dict[str, Any]]
    operations: list[str]
    """On files of its folder, in order: what, and on which path below it."""


class Nursery:
    """Starts children, one at a time. They find what `preloaded` names imported, besides what every run imports."""

    def __init__(self, preloaded: Sequence[str] = ()) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *preloaded],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def run(
        self,
        folder: Path,
        *,
        die_at: str | None = None,
        at_step: tuple[int, int] | None = None,
        rank: int | None = None,
        change: str | None = None,
    ) -> Ended:
        """Runs a child on the folder until nothing of it is left. `at_step`: a step, and the signal it gets when it has
        reported it, or one of its processes gets."""
        events = folder.with_name(folder.name + ".events")
        sent = {"step": at_step[0], "number": at_step[1], "rank": rank} if at_step else None
        order = {"folder": str(folder), "events": str(events), "signal": sent, "die_at": die_at, "change": change}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        code = json.loads(self._process.stdout.readline())
        reported = [json.loads(line) for line in events.read_text().splitlines()]
        return Ended(code=code, events=reported, operations=_log_of(events).read_text().splitlines())


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for name in sys.argv[1:]:
        import_module(name)
    for line in sys.stdin:
        answers.write(json.dumps(_see_through(json.loads(line))) + "\n")


def _see_through(order: Mapping[str, Any]) -> int:
    """The exit code of one child; below zero, the signal that ended it."""
    (stdin, alive), (reported, stdout) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(alive)
        os.close(reported)
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        _be_a_child(order)
    os.close(stdin)
    os.close(stdout)
    with os.fdopen(reported, "rb") as pipe, Path(order["events"]).open("wb") as events:
        sent = order["signal"]
        for line in pipe:
            events.write(line)
            if sent and (event := json.loads(line))["type"] == "step" and event["step"] >= sent["step"]:
                if sent["number"]:
                    os.kill(child if sent["rank"] is None else _children_of(child)[sent["rank"]], sent["number"])
                else:
                    os.close(alive)
                    alive = -1
                sent = None
    _, status = os.waitpid(child, 0)
    if alive >= 0:
        os.close(alive)
    return os.waitstatus_to_exitcode(status)


def _be_a_child(order: Mapping[str, Any]) -> None:
    """Never returns."""
    log = os.open(_log_of(Path(order["events"])), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    die_at = re.compile(order["die_at"] or "(?!)")

    def watch(operation: str, arguments: tuple[Any, ...]) -> None:
        if operation not in OPERATIONS or not str(arguments[0]).startswith(order["folder"] + "/"):
            return
        done = f"{operation} {str(arguments[0]).removeprefix(order['folder'] + '/')}"
        if die_at.match(done):
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(log, done.encode() + b"\n")

    sys.addaudithook(watch)
    launch.started = Forked
    if order["change"]:
        CHANGES[order["change"]]()
    code = 70
    try:
        code = launch.main([order["folder"]])
    finally:
        sys.stderr.flush()
        os._exit(code)


def _children_of(process: int) -> list[int]:
    """In the order in which they were started."""
    return sorted(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


class Forked:
    """One of several processes of a run: what `launch` needs of a Popen."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        stdin, self._alive = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._alive)
            os.dup2(stdin, 0)
            os.environ.update(environment)
            code = 70
            try:
                code = run.main([str(folder)])
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(stdin)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, seconds: float = 60.0) -> int:
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("forked", seconds)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _add_no_gradients() -> None:
    Processes.sum_gradients = lambda *_: None


def _run_out_of_memory_once_in_the_second() -> None:
    backward, has_run_out = Objective.backward, []

    def fail_once(self: Objective, *arguments: Any, **named: Any) -> Any:
        # Before any training, a probe computes two passes.
        has_run_out.append(0)
        if os.environ.get("RANK") == "1" and len(has_run_out) == 10:
            raise MemoryError
        return backward(self, *arguments, **named)

    Objective.backward = fail_once


CHANGES = {
    "gradients-not-added": _add_no_gradients,
    "out-of-memory-in-the-second": _run_out_of_memory_once_in_the_second,
}


def _log_of(events: Path) -> Path:
    return events.with_name(events.name + ".operations")


if __name__ == "__main__":
    _serve()
