"""What the sandbox of Python graders costs: its start beside a plain Python's, and one item of many beside one alone.

Rounds alternate between the ways, so that noise hits all alike. Linux, with bubblewrap.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

from stillroom.graders.sandbox import PythonGrader, SandboxLimits, why_unavailable

SOURCE = "def grade(sample, item):\n    return 1.0 if sample['output_text'] == item['expected'] else 0.0\n"
SAMPLE, ITEM = {"output_text": "x" * 500}, {"expected": "x" * 500, "prompt": "y" * 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--items", type=int, default=1000)
    asked = parser.parse_args()
    if problem := why_unavailable():
        sys.exit(problem)
    asyncio.run(_measure(asked.rounds, asked.items))


async def _measure(rounds: int, items: int) -> None:
    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "python -I -S": _plain,
        "one item, no sandbox": lambda: _grade(1, unsafe=True),
        "one item, sandbox": lambda: _grade(1),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for round_number in range(rounds + 1):
        for way, run in ways.items():
            seconds = await _seconds(run)
            if round_number:  # the first warms up
                took[way].append(seconds)
    batches = [await _seconds(lambda: _grade(items)) for _ in range(5)]

    plain = statistics.median(took["python -I -S"])
    print(f"start, grade and end, median of {rounds} rounds (min-max)")
    for way, seconds in took.items():
        median = statistics.median(seconds)
        spread = f"{min(seconds) * 1e3:.0f}-{max(seconds) * 1e3:.0f}"
        print(f"{way:>22}: {median * 1e3:6.1f} ms ({spread})  {median / plain:.2f} x the plain start")
    alone = statistics.median(took["one item, sandbox"])
    batch = statistics.median(batches)
    print(f"{items:,} items, sandbox: {batch * 1e3:.0f} ms, {batch / alone:.1f} x one item alone")
    print(f"each further item: {(batch - alone) / (items - 1) * 1e6:.0f} us")


async def _plain() -> None:
    await asyncio.to_thread(subprocess.run, [sys.executable, "-I", "-S", "-c", ""], check=True)


async def _grade(items: int, *, unsafe: bool = False) -> None:
    grader = await PythonGrader.start(SOURCE, SandboxLimits(), unsafe=unsafe)
    try:
        for _ in range(items):
            assert await grader.grade(SAMPLE, ITEM) == 1.0
    finally:
        await grader.close()


async def _seconds(run: Callable[[], Awaitable[None]]) -> float:
    before = time.perf_counter()
    await run()
    return time.perf_counter() - before


if __name__ == "__main__":
    main()
