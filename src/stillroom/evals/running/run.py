"""The process of one run: `python -m stillroom.evals.running.run FOLDER` puts every item to the model and grades it.

Reads `spec.json` (what to do), `items.jsonl` and `done.json` (the items recorded before an
interruption) from the folder and writes nothing there. What it finds it reports as JSON lines on
standard output: `item`, `error`, `done`. It asks the server at the spec's `url` like any client, with
the key in the environment, and ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from stillroom.errors import StillroomError
from stillroom.evals.running.caller import Caller
from stillroom.evals.running.grading import Grading
from stillroom.evals.running.sampling import Sampling, brought, given
from stillroom.evals.usage import add_usage

KEY = "STILLROOM_RUN_KEY"


async def carry_out(folder: Path, key: str) -> None:
    """Samples and grades the items that are left, some at a time, each reported when it is done."""
    spec = msgspec.json.decode((folder / "spec.json").read_bytes())
    left = _items(folder / "items.jsonl", done=set(msgspec.json.decode((folder / "done.json").read_bytes())))
    async with (
        Caller(spec["url"], key, patience_seconds=spec["patience_seconds"]) as caller,
        Grading(spec, caller) as grading,
    ):
        sampling = Sampling(spec, caller) if spec["model"] else None

        async def work() -> None:
            for number, row in left:  # one iterator for all: each takes the next
                _report(await _one(spec, number, row, sampling, grading))
                if caller.unavailable is not None:
                    raise caller.unavailable

        # The first alone: it may have to load the model, and others would only wait behind it.
        for number, row in islice(left, 1):
            _report({**await _one(spec, number, row, sampling, grading), "latency_ms": None})
        async with asyncio.TaskGroup() as workers:
            for _ in range(spec["concurrent_calls"]):
                workers.create_task(work())


async def _one(
    spec: Mapping[str, Any], number: int, row: Mapping[str, Any], sampling: Sampling | None, grading: Grading
) -> dict[str, Any]:
    """What became of one item. Raises only what ends the run."""
    name = f"{spec['run']}/{number}"
    found: dict[str, Any] = {"type": "item", "number": number, "item": row["item"], "usage": {}}
    problem = grading.schema_problem(row)
    if problem is not None:
        return {**found, "status": "error", "results": [], "sample": given(row, problem)}
    answer = await sampling.answer(row, name) if sampling is not None else None
    if answer is not None and answer.error is not None:
        return {**found, "status": "error", "results": [], "sample": answer.shown}
    sample = answer.sample if answer is not None else brought(row)
    same = answer is not None and answer.agrees is True
    results, usage = await grading.grade(row["item"], sample, name, same=same)
    found |= {"results": results, "usage": usage, "status": _status(results), "reference": row.get("reference")}
    if answer is None:
        return {**found, "sample": given(row)}
    add_usage(usage, answer.usage)
    return {**found, "sample": answer.shown, "agrees": answer.agrees, "latency_ms": answer.latency_ms}


def _status(results: list[dict[str, Any]]) -> str:
    if any(result["problem"] is not None for result in results):
        return "error"
    return "pass" if all(result["passed"] for result in results) else "fail"


def _items(path: Path, done: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if number not in done:
                yield number, msgspec.json.decode(line)


def _report(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


async def _main(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), _end)  # it never says anything: what can be read is its end
    for number in (signal.SIGTERM, signal.SIGINT):  # a terminal's Ctrl-C reaches us too
        loop.add_signal_handler(number, _end)
    try:
        await carry_out(folder, os.environ.pop(KEY))
    except* StillroomError as group:
        error = group.exceptions[0]
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, StillroomError)
        _report({"type": "error", "code": error.code, "message": error.message, "param": error.param})
    else:
        _report({"type": "done"})


def _end() -> None:
    # Nothing is to be saved: what was reported is recorded, and the rest is done again.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
